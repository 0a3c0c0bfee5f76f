"""Figures of measured fluxes: against the catalogue, over the field, and over a night."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from dsa110_contimg.records import ImageProduct
from dsa110_contimg.science.photometry import OF_CALIBRATION
from dsa110_contimg.views import style

BRIGHT_SIGMA = 20.0
"""Signal to noise above which a source takes part in a median, as `records.Photometry` defines it."""
HALF_POWER = 0.5

Rows: TypeAlias = pd.DataFrame | Sequence[dict[str, Any]]


_NUMBERS = (
    "mjd", "mjd_start", "mjd_end", "noise_jy", "thermal_noise_jy", "flux_jy", "flux_error_jy", "flux_raw_jy",
    "local_noise_jy", "beam_response", "catalog_flux_jy", "ratio",
)  # fmt: skip


def as_table(rows: Rows) -> pd.DataFrame:
    """Rows of the state database as a table of numbers: what it gives as None is NaN here."""
    table = pd.DataFrame(rows)
    for name in set(_NUMBERS) & set(table.columns):
        table[name] = pd.to_numeric(table[name])
    return table


def bright(photometry: pd.DataFrame) -> pd.Series:
    """Which rows take part in a median: above 20 sigma of the local noise, inside the half-power contour."""
    significance = photometry["flux_raw_jy"] / photometry["local_noise_jy"]
    usable = (significance > BRIGHT_SIGMA) & (photometry["beam_response"] >= HALF_POWER)
    return usable & np.isfinite(photometry["ratio"])


@style.styled
def flux_ratio(photometry: pd.DataFrame) -> Figure:
    """Measured over catalogue flux against flux, beam response, and as a distribution of normalised residuals.

    Filled points take part in the median (above 20 sigma, inside half power); open ones do not. The band is the
    interval that 68 % of the filled points fall in.

    Parameters
    ----------
    photometry : DataFrame
        Columns ``catalog_flux_jy``, ``flux_error_jy``, ``flux_raw_jy``, ``local_noise_jy``, ``ratio``,
        ``beam_response``.
    """
    figure = style.new_figure(11.0, 3.7)
    by_flux, by_beam, residual = figure.subplots(1, 3, width_ratios=(1.25, 1.1, 0.8))
    table = photometry[np.isfinite(photometry["ratio"]) & (photometry["catalog_flux_jy"] > 0)]
    counted = bright(table)
    median = float(table.loc[counted, "ratio"].median()) if counted.any() else float("nan")
    for axes, column in ((by_flux, "catalog_flux_jy"), (by_beam, "beam_response")):
        _ratio_panel(axes, table, counted, column, median)
    by_flux.set(xscale="log", xlabel="catalogue flux density at 1.4 GHz (Jy)")
    by_beam.set(xlabel="primary beam response (drift-averaged)")
    by_beam.axvline(HALF_POWER, color=style.MUTED, lw=0.8, ls=":")
    number = int(counted.sum())
    by_flux.set_title(f"Median {median:.3f} of {number} sources" if number else "No source above 20 sigma")
    by_beam.set_title("Over the beam")
    _residual_panel(residual, table, counted)
    return figure


def _ratio_panel(axes: Axes, table: pd.DataFrame, counted: pd.Series, column: str, median: float) -> None:
    error = table["flux_error_jy"] / table["catalog_flux_jy"]
    looks: tuple[tuple[pd.Series, dict[str, Any]], ...] = (
        (~counted, {"mfc": "white", "color": style.MUTED, "alpha": 0.55, "label": "other"}),
        (counted, {"color": style.BLUE, "label": "above 20 sigma, inside half power"}),
    )
    for chosen, look in looks:
        if chosen.any():
            axes.errorbar(
                table.loc[chosen, column], table.loc[chosen, "ratio"], error[chosen], fmt="o", ms=4, lw=0.9, **look
            )
    axes.axhline(1.0, color=style.MUTED, lw=0.8)
    if np.isfinite(median):
        low, high = np.percentile(table.loc[counted, "ratio"], (16, 84))
        axes.axhspan(low, high, color=style.BLUE, alpha=0.10, lw=0)
        axes.axhline(median, color=style.VERMILION, lw=1.4, label="median")
    if len(table) == 0:
        style.say_nothing_to_show(axes, "no source with a catalogue flux")
        return
    spread = np.nanpercentile(np.abs(table["ratio"] - 1.0), 90) * 1.6
    reach = float(np.clip(spread, 0.08, 1.5))
    axes.set(ylim=(1 - reach, 1 + reach), ylabel="measured / catalogue flux")
    axes.grid(axis="y")
    if column == "catalog_flux_jy":
        axes.legend(loc="lower right")


def _residual_panel(axes: Axes, table: pd.DataFrame, counted: pd.Series) -> None:
    """(measured - catalogue) / quoted error: a unit Gaussian if the catalogue were exact and the errors honest."""
    difference = (table["flux_jy"] - table["catalog_flux_jy"]) / table["flux_error_jy"]
    values = difference[counted & np.isfinite(difference)]
    axes.set(xlabel="difference / quoted error", ylabel="sources")
    axes.set_title("Residuals")
    if len(values) == 0:
        style.say_nothing_to_show(axes, "no source above 20 sigma")
        return
    edges = np.linspace(-6, 6, 25)
    count = axes.hist(np.clip(values, -5.99, 5.99), bins=list(edges), color=style.SKY, alpha=0.75)[0]
    axes.plot(
        edges, len(values) * 0.5 / np.sqrt(2 * np.pi) * np.exp(-0.5 * edges**2), color=style.INK, lw=1.2,
        label="errors alone",
    )  # fmt: skip
    axes.set_ylim(0, 1.3 * float(np.max(count)))
    axes.legend(loc="upper left")


@style.styled
def position_offsets(photometry: pd.DataFrame, image: ImageProduct) -> Figure:
    """Fitted minus catalogue position of the sources bright enough for a fit, with the beam, and over the field.

    Parameters
    ----------
    photometry : DataFrame
        Columns ``offset_ra_arcsec`` (on the sky, east positive), ``offset_dec_arcsec``, ``ra_deg``, ``dec_deg``.
    image : ImageProduct
        Its restoring beam and centre.
    """
    figure = style.new_figure(9.0, 4.0)
    scatter, field = figure.subplots(1, 2)
    table = photometry[np.isfinite(photometry["offset_ra_arcsec"]) & np.isfinite(photometry["offset_dec_arcsec"])]
    for axes in (scatter, field):
        if len(table) == 0:
            style.say_nothing_to_show(axes, "no source bright enough for a position")
    east, north = table["offset_ra_arcsec"], table["offset_dec_arcsec"]
    for fraction in (0.1, 0.25):
        size = (fraction * image.bmin_deg * 7200, fraction * image.bmaj_deg * 7200)
        # here x is east, so from north through east is clockwise
        scatter.add_patch(Ellipse((0, 0), *size, angle=-image.bpa_deg, fc="none", ec=style.MUTED, ls="--", lw=0.9))
        angle = np.radians(image.bpa_deg)
        top = float(np.hypot(size[1] * np.cos(angle), size[0] * np.sin(angle))) / 2
        scatter.text(0, top, f"{fraction:g} beam", fontsize=7.5, color=style.MUTED, va="bottom", ha="center")
    scatter.plot(east, north, "o", ms=4, color=style.BLUE, alpha=0.8)
    if len(table):
        label = f"median {east.median():+.2f}″, {north.median():+.2f}″"
        scatter.plot(east.median(), north.median(), "+", ms=12, mew=2, color=style.VERMILION, label=label)
        scatter.legend(loc="lower left")
        turn = (table["ra_deg"] - image.ra_deg + 180.0) % 360.0 - 180.0
        x = turn * np.cos(np.radians(table["dec_deg"]))
        # the axis runs east to the left, and so must the arrows
        arrows = field.quiver(x, table["dec_deg"], -east, north, color=style.BLUE, angles="uv", width=0.004)
        length = float(f"{max(np.hypot(east, north).median(), 0.01):.1g}")
        field.quiverkey(arrows, 0.88, 1.03, length, f"{length:g}″", labelpos="E")
    reach = max(0.3 * image.bmaj_deg * 3600, 1.1 * float(np.hypot(east, north).max()) if len(table) else 0.0)
    scatter.set(xlim=(reach, -reach), ylim=(-reach, reach), aspect="equal")
    scatter.set(xlabel="offset east (arcsec)", ylabel="offset north (arcsec)", title="Fitted minus catalogue")
    field.set(xlabel="right ascension from the centre (deg on the sky)", ylabel="declination (deg)")
    field.set_title("Over the field")
    field.invert_xaxis()
    return figure


@style.styled
def light_curves(photometry: Rows, n_sources: int = 9) -> Figure:
    """Flux against time of the brightest sources that were seen in more than one group of a night.

    Open points are of groups whose amplitude gains are not from a calibrator in its validity.

    Parameters
    ----------
    photometry : DataFrame or list of dict
        Rows of ``photometry_timeseries``: ``source``, ``mjd``, ``flux_jy``, ``flux_error_jy``, ``catalog_flux_jy``,
        ``quality``.
    n_sources : int
        At most this many panels.
    """
    table = as_table(photometry)
    names = repeated_sources(table, n_sources)
    columns = min(3, max(len(names), 1))
    rows = max(1, -(-len(names) // columns))
    figure = style.new_figure(11.0, 2.5 * rows + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    if not names:
        style.say_nothing_to_show(panels[0], "no source was seen in more than one group")
    for axes, name in zip(panels, names, strict=False):
        _light_curve(axes, table[table["source"] == name].sort_values("mjd"), name)
    for axes in panels[len(names) :]:
        axes.set_visible(bool(not names))
    return figure


def repeated_sources(table: pd.DataFrame, n_sources: int) -> list[str]:
    """Names of the brightest sources with a finite flux in at least two groups, brightest first."""
    if len(table) == 0:
        return []
    seen = table[np.isfinite(table["flux_jy"])].groupby("source")
    often = seen["flux_jy"].median()[seen["group"].nunique() > 1]
    return [str(name) for name in often.sort_values(ascending=False).index[:n_sources]]


def _light_curve(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    when = utc_dates(rows["mjd"])
    axes.errorbar(when, rows["flux_jy"], rows["flux_error_jy"], fmt="o", ms=4.5, color=style.BLUE, lw=1)
    between = rows["quality"].to_numpy() & OF_CALIBRATION.value > 0
    axes.plot(when[between], rows["flux_jy"][between], "o", ms=4.5, mfc="white", color=style.BLUE)
    catalogue = rows["catalog_flux_jy"].median()
    if np.isfinite(catalogue):
        axes.axhline(catalogue, color=style.MUTED, lw=1, ls="--", label="catalogue")
    weight = 1 / rows["flux_error_jy"] ** 2
    mean = float((rows["flux_jy"] * weight).sum() / weight.sum())
    chi2 = float((((rows["flux_jy"] - mean) / rows["flux_error_jy"]) ** 2).sum() / max(len(rows) - 1, 1))
    axes.set_title(name, fontsize=9.5)
    axes.set_title(rf"$\chi^2_\nu$ {chi2:.1f} of {len(rows)}", loc="right", fontsize=8, fontweight="normal")
    # a panel never magnifies below 10 %: noise must not look like variability
    reach = max(0.1 * mean, 1.3 * float(np.abs(rows["flux_jy"] - mean).max() + rows["flux_error_jy"].max()))
    centre = mean if not np.isfinite(catalogue) else (mean + catalogue) / 2
    reach += abs(centre - mean)
    axes.set(ylim=(centre - reach, centre + reach), ylabel="flux density (Jy)", xlabel="UTC")
    _clock(axes)
    axes.grid(axis="y")


def utc_dates(mjd: Any) -> Any:
    """Dates for matplotlib of times in MJD UTC."""
    from astropy.time import Time

    return date2num(Time(np.asarray(mjd, np.float64), format="mjd", scale="utc").to_datetime())


def _clock(axes: Axes) -> None:
    axes.xaxis_date()
    locator = axes.xaxis.get_major_locator()
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[arg-type]
    axes.tick_params(axis="x", labelsize=8)


@style.styled
def noise_vs_time(images: Rows) -> Figure:
    """Noise of each image of a night against time, with the thermal limit for the weights that were used.

    Parameters
    ----------
    images : DataFrame or list of dict
        Rows of ``images``: ``mjd_start``, ``mjd_end``, ``noise_jy``, ``thermal_noise_jy`` (NaN where not known).
    """
    figure = style.new_figure(11.0, 3.4)
    axes = figure.subplots()
    axes.set(xlabel="UTC", ylabel="image noise (mJy/beam)")
    table = as_table(images)
    if len(table) == 0:
        style.say_nothing_to_show(axes, "no images")
        return figure
    table = table.sort_values("mjd_start")
    when = utc_dates((table["mjd_start"] + table["mjd_end"]) / 2)
    axes.plot(when, table["noise_jy"] * 1e3, "o-", color=style.BLUE, ms=5, lw=0.8, label="measured (robust rms)")
    axes.plot(when, table["thermal_noise_jy"] * 1e3, "--", color=style.VERMILION, marker="_", label="thermal limit")
    both = table[["noise_jy", "thermal_noise_jy"]].to_numpy(np.float64)
    axes.set_ylim(0, 1.25e3 * float(np.nanmax(both)) if np.isfinite(both).any() else 1.0)
    axes.grid(axis="y")
    axes.legend(loc="lower left", ncols=2)
    _clock(axes)
    return figure


@style.styled
def ratio_by_group(photometry: Rows) -> Figure:
    """Measured over catalogue flux of the bright sources of every group, with the median of each.

    Parameters
    ----------
    photometry : DataFrame or list of dict
        Rows of ``photometry_timeseries``.
    """
    figure = style.new_figure(11.0, 3.4)
    axes = figure.subplots()
    axes.set(xlabel="group (UTC)", ylabel="measured / catalogue flux")
    table = as_table(photometry)
    table = table[bright(table)] if len(table) else table
    if len(table) == 0:
        style.say_nothing_to_show(axes, "no source above 20 sigma")
        return figure
    groups = sorted(table["group"].unique())
    for i, group in enumerate(groups):
        ratio = np.sort(table.loc[table["group"] == group, "ratio"].to_numpy())
        axes.plot(i + np.linspace(-0.25, 0.25, ratio.size), ratio, "o", ms=3.5, color=style.SKY, alpha=0.8)
        axes.plot([i - 0.32, i + 0.32], [np.median(ratio)] * 2, color=style.VERMILION, lw=2)
        axes.annotate(
            f"{np.median(ratio):.3f}", (i + 0.33, float(np.median(ratio))), fontsize=8, va="center", color=style.INK
        )
    axes.axhline(1.0, color=style.MUTED, lw=0.8)
    reach = float(np.clip(1.3 * np.percentile(np.abs(table["ratio"] - 1), 97), 0.08, 1.0))
    axes.set(ylim=(1 - reach, 1 + reach), xlim=(-0.6, len(groups) - 0.2))
    step = max(1, len(groups) // 12)
    axes.set_xticks(range(0, len(groups), step), [str(group)[11:16] for group in groups[::step]])
    axes.grid(axis="y")
    return figure

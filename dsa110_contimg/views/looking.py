"""Figures of rasters and planes of visibilities, for reports: amplitude, phase, waterfalls, flags.

Each figure says underneath how many visibilities it shows and what one pixel is.
"""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dsa110_contimg.views import raster, style
from dsa110_contimg.views.columns import Against
from dsa110_contimg.views.planes import Waterfall, flag_fractions, flagged_means
from dsa110_contimg.views.planes import waterfall as waterfall_plane
from dsa110_contimg.views.raster import Raster

FLAGGED = "#c9ced3"
"""Where there is nothing because it is flagged: neither end of any colour scale."""
_PHASE_MAP = "twilight_shifted"
_MOST_NAMES = 40


def unit_of(vis: xr.Dataset) -> str:
    """Unit of the visibilities as the Dataset states it."""
    unit = str(vis["VISIBILITY"].attrs.get("units", "unit of the data"))
    return "arbitrary unit" if unit == "arbitrary" else unit


def _name(vis: xr.Dataset) -> str:
    """The group, or as much of a longer name as has room beside a title."""
    name = str(vis.attrs.get("group_id", ""))
    return name if len(name) <= 24 else f"{name[:11]}…{name[-11:]}"


def caption(figure: Figure, text: str, width: int) -> None:
    """What a figure shows, in small letters under it; ``width`` in characters."""
    figure.supxlabel(textwrap.fill(text, width), fontsize=7.5, color=style.MUTED, x=0.01, ha="left")


@style.styled
def amplitude(vis: xr.Dataset, x: Against = "uvdist") -> Figure:
    """Amplitude of every unflagged visibility against projected baseline, time or frequency, with its median.

    Parameters
    ----------
    vis : Visibilities view
        May be lazy.
    x : str
        ``uvdist``, ``time`` or ``frequency``.

    Raises
    ------
    InputError
        Another ``x``.
    """
    return _draw(raster.amplitude(vis, x), f"amplitude ({unit_of(vis)})", _name(vis))


@style.styled
def phase(vis: xr.Dataset, x: Against = "uvdist") -> Figure:
    """Phase of every unflagged visibility against projected baseline, time or frequency.

    Parameters and errors as `amplitude`.
    """
    return _draw(raster.phase(vis, x), "phase (deg)", _name(vis))


def _draw(data: Raster, label: str, name: str) -> Figure:
    figure = style.new_figure(9.5, 4.6)
    axes = figure.subplots()
    axes.set_title(f"{data.subject.capitalize()} against {data.columns.name}")
    axes.set_title(name, loc="right", fontsize=8.5, fontweight="normal", color=style.MUTED)
    if data.number == 0:
        style.say_nothing_to_show(axes, "all data are flagged")
        return figure
    count = np.where(data.count > 0, data.count, np.nan)
    top = max(2.0, np.nanmax(count))
    # columns of time or frequency hold equally many; phases then spread evenly, and a linear scale shows best where not
    even = data.subject == "phase" and not data.columns.log
    norm = Normalize(0, top) if even else LogNorm(1, top)
    shown = axes.pcolormesh(data.columns.edges, data.levels, count, cmap=style.DENSITY, norm=norm, rasterized=True)
    figure.colorbar(shown, ax=axes, label="visibilities on a pixel", pad=0.01)
    axes.set(xlabel=data.columns.label, ylabel=label, ylim=(data.levels[0], data.levels[-1]))
    axes.set_xlim(data.columns.edges[0], data.columns.edges[-1])
    if data.columns.log:
        axes.set_xscale("log")
        plain_log_ticks(axes)
    if data.subject == "phase":
        axes.set_yticks(range(-180, 181, 90))
    else:
        axes.plot(data.columns.centres, data.median, color=style.VERMILION, label="median", lw=1.2)
        axes.legend(loc="upper left")
    if data.above:
        text = f"{share(data.above, data.number)} above the panel"
        axes.text(0.985, 0.97, text, transform=axes.transAxes, ha="right", va="top", fontsize=8)
    caption(figure, data.caption, 165)
    return figure


def share(part: int, whole: int) -> str:
    """A fraction as a reader wants it: per cent, or a number where that rounds to nothing."""
    return f"{part / whole:.1%}" if part >= 5e-4 * whole else f"{part:,}"


def plain_log_ticks(axes: Axes, most_decades: float = 4.0) -> None:
    """Numbers, not powers: 1, 2 and 5 of each decade, or only 1 where that would crowd the panel."""
    low, high = axes.get_xlim()
    subs = (1.0, 2.0, 5.0) if high <= low * 10**most_decades else (1.0,)
    axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())


@style.styled
def waterfall(
    vis: xr.Dataset, antenna: str | int | None = None, baseline: str | tuple[str, str] | None = None
) -> Figure:
    """Amplitude and phase against time and frequency of an antenna, of a baseline, or of all baselines.

    Of several baselines it is the mean of |V|, and the argument of the mean of V / |V|, of baselines that begin at the
    antenna. Only the baselines asked for are read. One row for each polarisation.

    Parameters
    ----------
    vis : Visibilities view
        May be lazy.
    antenna : station number
    baseline : ``"25-48"`` or a pair

    Raises
    ------
    InputError
        No such antenna or baseline, or both are given.
    """
    data = waterfall_plane(vis, antenna, baseline)
    rows = len(data.polarizations)
    figure = style.new_figure(10.5, 0.9 + 2.4 * rows)
    panels = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    for row, hand in enumerate(data.polarizations):
        _plane(figure, panels[row, 0], data, data.amplitude[row], unit_of(vis))
        _plane(figure, panels[row, 1], data, np.degrees(data.phase[row]), None)
        panels[row, 0].set_title(f"{data.title} {hand}: amplitude")
        panels[row, 1].set_title(f"{hand}: phase")
        panels[row, 0].set_ylabel("minutes")
    panels[0, 1].set_title(_name(vis), loc="right", fontsize=8.5, fontweight="normal", color=style.MUTED)
    for axes in panels[-1]:
        axes.set_xlabel(data.frequencies.label)
    caption(figure, data.caption, 180)
    return figure


def _plane(figure: Figure, axes: Axes, data: Waterfall, values: NDArray[np.float64], unit: str | None) -> None:
    """One panel; an amplitude where there is a unit, else a phase."""
    axes.set_facecolor(FLAGGED)
    good = values[np.isfinite(values)]
    if good.size == 0:
        style.say_nothing_to_show(axes, "all data are flagged")
        return
    # a pixel in two hundred may saturate: interference must not darken the rest
    low, high = (-180.0, 180.0) if unit is None else (0.0, max(float(np.quantile(good, 0.995)) * 1.05, 1e-12))
    shown = axes.pcolormesh(
        data.frequencies.edges,
        data.times.edges,
        np.ma.masked_invalid(values),
        cmap=_PHASE_MAP if unit is None else "viridis",
        vmin=low,
        vmax=high,
        rasterized=True,
    )
    extra: dict[str, Any] = {"ticks": range(-180, 181, 90)} if unit is None else {"extend": "max"}
    figure.colorbar(shown, ax=axes, label="deg" if unit is None else unit, pad=0.01, **extra)


@style.styled
def flags(vis: xr.Dataset, fractions: xr.Dataset | None = None) -> Figure:
    """Fraction of the visibilities that is flagged, by channel, antenna and time.

    Parameters
    ----------
    vis : Visibilities view
        May be lazy; FLAG is read once.
    fractions : of `planes.flag_fractions`, where they are known already.
    """
    known = flag_fractions(vis) if fractions is None else fractions
    figure = style.new_figure(10.5, 5.4)
    panels = figure.subplot_mosaic([["frequency", "time"], ["antenna", "antenna"]], width_ratios=(1.5, 1))
    hands = [str(name) for name in known["polarization"].values]
    for name, values, label in (
        ("frequency", known["frequency"].values / 1e6, "frequency (MHz)"),
        ("time", style.minutes(known["time"].values), "minutes since the first integration"),
    ):
        axes = panels[name]
        for i, hand in enumerate(hands):
            marker = "o" if values.size == 1 else ""
            percent = 100 * known[f"by_{name}"].values[:, i]
            axes.step(values, percent, where="mid", label=hand, alpha=0.85, marker=marker)
        axes.set(xlabel=label, ylabel="flagged (%)", ylim=(-3, 103), title=f"By {name}")
        axes.grid(axis="y")
    panels["frequency"].legend(ncols=len(hands))
    _antenna_bars(panels["antenna"], known)
    text = f"{known.attrs['flagged']:.2%} of the cross-correlations are flagged."
    caption(figure, f"{text} {_of_flags(vis)}", 165)
    panels["time"].set_title(_name(vis), loc="right", fontsize=8.5, fontweight="normal", color=style.MUTED)
    return figure


def _of_flags(vis: xr.Dataset) -> str:
    """What FLAG says of data without weight."""
    if "WEIGHT" in vis and flagged_means(vis).startswith("flagged,"):
        return "Averages of nothing that has weight are flagged, too."
    return "Data without weight count only where they are flagged."


def _antenna_bars(axes: Axes, known: xr.Dataset) -> None:
    """The most flagged antennas, the worst first."""
    worst = known["by_antenna"].mean("polarization")
    order = np.argsort(-worst.values, kind="stable")[:_MOST_NAMES]
    names = worst["antenna_name"].values[order]
    hands = known.sizes["polarization"]
    for i, hand in enumerate(known["polarization"].values):
        values = 100 * known["by_antenna"].values[order, i]
        axes.bar(np.arange(order.size) + (i - (hands - 1) / 2) * 0.8 / hands, values, 0.8 / hands, label=str(hand))
    axes.set_xticks(np.arange(order.size), names, rotation=0 if max(map(len, names)) < 4 else 60)
    which = "By antenna" if order.size == worst.size else f"The {order.size} most flagged of {worst.size} antennas"
    axes.set(xlabel="antenna", ylabel="flagged (%)", ylim=(0, 103), title=which, xlim=(-0.7, order.size - 0.3))
    axes.grid(axis="y")

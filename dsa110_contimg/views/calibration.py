"""Figures of calibration solutions: every antenna and polarisation, none averaged away.

`gain_solutions` shows a whole table at a glance; `antenna_amplitudes` and `antenna_phases` are pages with a small panel
for each antenna, all on one scale, so that the odd one stands out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dsa110_contimg.views import style

_NAMES = {"B": "Bandpass", "B Jones": "Bandpass", "G": "Gains", "G Jones": "Gains"}
_FLAGGED = "#9aa5af"
_UNITY = 1e-5
"""Amplitudes all this close to 1 say nothing: phases alone were solved, or the bandpass has taken the amplitudes."""


@style.styled
def gain_solutions(tables: Sequence[xr.Dataset]) -> Figure:
    """Amplitude (signal to noise where all are 1) and phase of solutions, a row a table, antennas along x.

    A table with many frequencies (or else times) is an image of antenna against frequency (time), both polarisations
    side by side for each antenna; a table with one of each is a point an antenna and polarisation. Grey is flagged.

    Parameters
    ----------
    tables : CalTable views
        ``GAIN`` (time, antenna_name, frequency, polarization); ``FLAG`` and ``SNR`` of the same shape.
    """
    rows = max(len(tables), 1)
    figure = style.new_figure(11.0, 0.6 + 2.7 * rows)
    panels = figure.subplots(rows, 2, squeeze=False)
    if not tables:
        for axes in panels[0]:
            style.say_nothing_to_show(axes, "no solutions")
    for row, table in zip(panels, tables, strict=False):
        gain = table["GAIN"].where(~table["FLAG"]).transpose("time", "frequency", "antenna_name", "polarization")
        flagged = float(table["FLAG"].mean())
        if bool((abs(abs(gain) - 1.0) < _UNITY).where(gain.notnull(), other=True).all()):
            row[0].set_title(f"{_name(table)}: S/N (amplitudes are 1)")
            _quantity(figure, row[0], table["SNR"].where(~table["FLAG"]).transpose(*gain.dims), "S/N", phase=False)
        else:
            row[0].set_title(f"{_name(table)}: amplitude")
            _quantity(figure, row[0], abs(gain), "amplitude", phase=False)
        row[1].set_title(f"Phase ({flagged:.1%} flagged, reference antenna {table.attrs.get('refant', 'unknown')})")
        _quantity(figure, row[1], xr.apply_ufunc(np.angle, gain) * 180 / np.pi, "phase (deg)", phase=True)
    return figure


def _name(table: xr.Dataset) -> str:
    kind = str(table.attrs.get("kind", ""))
    return _NAMES.get(kind, kind or "Solutions")


def _quantity(figure: Figure, axes: Axes, values: xr.DataArray, label: str, *, phase: bool) -> None:
    """One table on one panel; ``values`` has dims (time, frequency, antenna_name, polarization)."""
    n_time, n_frequency, n_antenna, n_pol = values.shape
    names = [str(name) for name in values["antenna_name"].values]
    if n_time == n_frequency == 1:
        for p, receptor in enumerate(values["polarization"].values):
            axes.plot(range(n_antenna), values.values[0, 0, :, p], "os^v"[p % 4], ms=3.5, label=str(receptor))
        axes.set_ylabel(label)
        if phase:
            axes.set(ylim=(-185, 185), yticks=range(-180, 181, 90))
        else:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=n_pol, borderpad=0, handletextpad=0.1)
        axes.grid(axis="y")
    else:
        flat = values.values.reshape(n_time * n_frequency, n_antenna * n_pol)
        centres, y_label = _vertical(values)
        scale = _phase_scale(flat) if phase else _amplitude_scale(flat)
        shown = axes.pcolorfast(np.arange(n_antenna * n_pol + 1) / n_pol - 0.5, style.bin_edges(centres), flat, **scale)
        axes.set_facecolor(_FLAGGED)
        axes.set_ylabel(y_label)
        bar = figure.colorbar(shown, ax=axes, label=label, pad=0.01)
        if scale["cmap"] == "twilight":
            bar.set_ticks(range(-180, 181, 90))
    step = -(-n_antenna // 12)  # more would run into each other
    axes.set_xticks(range(0, n_antenna, step), names[::step])
    axes.set_xlabel("antenna (station number)")


@style.styled
def antenna_amplitudes(table: xr.Dataset) -> Figure:
    """A small panel for each antenna: amplitude against frequency, or against time if the table has one channel.

    Parameters
    ----------
    table : CalTable view
        Solutions that are flagged are left out; an antenna without any is shaded.
    """
    return _pages(table, phase=False)


@style.styled
def antenna_phases(table: xr.Dataset) -> Figure:
    """The same for phases (deg, relative to the reference antenna)."""
    return _pages(table, phase=True)


def _pages(table: xr.Dataset, *, phase: bool) -> Figure:
    gain = table["GAIN"].where(~table["FLAG"]).transpose("antenna_name", "polarization", "time", "frequency")
    names = [str(name) for name in gain["antenna_name"].to_numpy()]
    along, x, x_label = _horizontal(gain)
    columns = min(12, max(4, round(np.sqrt(1.6 * max(len(names), 1)))))
    rows = -(-len(names) // columns) or 1
    figure = style.new_figure(11.0, 1.3 + 0.85 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    values = np.degrees(np.angle(gain.to_numpy())) if phase else np.abs(gain.to_numpy())
    values = np.where(np.isfinite(gain.to_numpy()), values, np.nan).reshape(len(names), gain.shape[1], -1)
    marker = {"marker": ".", "ms": 1.5 if x.size > 60 else 4.0, "ls": "none"}
    receptors = [str(receptor) for receptor in gain["polarization"].to_numpy()]
    for axes, name, lines in zip(panels, names, values, strict=False):
        axes.set_title(f"{name}*" if name == table.attrs.get("refant") else name, fontsize=7.5, pad=1.5)
        axes.tick_params(labelsize=6.5)
        if not np.isfinite(lines).any():
            axes.set_facecolor(_FLAGGED)
            continue
        for line, colour, receptor in zip(lines, style.CYCLE, receptors, strict=False):
            axes.plot(x, line, color=colour, label=receptor, **marker)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    _page_scale(panels, values, phase=phase)
    what = "phase (deg)" if phase else "amplitude"
    legend = ", ".join(f"{r} {c}" for r, c in zip(receptors, ("blue", "vermilion"), strict=False))
    figure.suptitle(f"{_name(table)} in {along}: {what} ({legend}; * reference; grey: none)")
    figure.supxlabel(x_label)
    figure.supylabel(what)
    return figure


def _horizontal(gain: xr.DataArray) -> tuple[str, NDArray[np.float64], str]:
    """What a table varies along: name, values, label."""
    if gain.sizes["frequency"] > 1:
        repeated = np.tile(gain["frequency"].to_numpy() / 1e6, gain.sizes["time"])
        return "frequency", repeated, "frequency (MHz)"
    return "time", style.minutes(gain["time"].to_numpy()), "minutes since the first solution"


def _page_scale(panels: NDArray[Any], values: NDArray[np.float64], *, phase: bool) -> None:
    """One scale for all panels: the whole circle if the phases need it, amplitudes from zero."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        style.say_nothing_to_show(panels[0], "no solutions")
    elif phase:
        reach = 1.2 * float(np.abs(finite).max())
        limit, step = (185.0, 180.0) if reach > 90 else (max(5.0, reach), max(5.0, reach))
        panels[0].set(ylim=(-limit, limit), yticks=[-step, 0.0, step])
        panels[0].yaxis.set_major_formatter("{x:.0f}")
    else:
        panels[0].set_ylim(0.0, 1.15 * float(np.percentile(finite, 99.5)))


@style.styled
def solution_snr(tables: Sequence[xr.Dataset]) -> Figure:
    """Signal to noise of solutions, a row a table, antennas along x: median of each receptor, bars from 5 to 95 %.

    Parameters
    ----------
    tables : CalTable views
    """
    figure = style.new_figure(11.0, 0.6 + 2.3 * max(len(tables), 1))
    panels = figure.subplots(max(len(tables), 1), 1, squeeze=False).ravel()
    if not tables:
        style.say_nothing_to_show(panels[0], "no solutions")
    for axes, table in zip(panels, tables, strict=False):
        snr = table["SNR"].where(~table["FLAG"]).transpose("antenna_name", "polarization", "time", "frequency")
        lines = snr.to_numpy().reshape(snr.shape[0], snr.shape[1], -1)
        names = [str(name) for name in snr["antenna_name"].to_numpy()]
        for p, (receptor, colour) in enumerate(zip(snr["polarization"].to_numpy(), style.CYCLE, strict=False)):
            there = np.flatnonzero(np.isfinite(lines[:, p]).any(axis=-1))
            if not there.size:
                continue
            low, middle, high = np.nanpercentile(lines[there, p], (5, 50, 95), axis=-1)
            where = there + 0.25 * (p - 0.5)
            axes.errorbar(
                where,
                middle,
                [middle - low, high - middle],
                fmt="os"[p % 2],
                ms=3,
                lw=0.8,
                color=colour,
                label=receptor,
            )
        axes.set_title(f"{_name(table)}: median SNR of each receptor")
        step = max(1, len(names) // 24)
        axes.set_xticks(range(0, len(names), step), names[::step])
        axes.set(xlabel="antenna (station number)", ylabel="S/N", xlim=(-1, len(names)))
        axes.set_ylim(bottom=0)
        if axes.containers:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, borderpad=0, handletextpad=0.1)
        else:
            style.say_nothing_to_show(axes, "no solutions")
        axes.grid(axis="y")
    return figure


def refant_ranking(ranking: pd.DataFrame, n_antennas: int = 10) -> pd.DataFrame:
    """The best reference antennas and those that must not be one, for a report.

    Parameters
    ----------
    ranking : DataFrame
        A row an antenna, the best first: name, share (unflagged part), baselines, distance_m, against (text, empty if
        the antenna may be the reference).
    n_antennas : int
        How many of the best.

    Returns
    -------
    DataFrame of text.
    """
    against = ranking["against"].astype(str)
    order = ranking.assign(against=against, rank=np.arange(1, len(ranking) + 1))
    chosen = pd.concat([order[against == ""].head(n_antennas), order[against != ""]])
    shown = pd.DataFrame(
        {
            "rank": chosen["rank"].astype(str),
            "antenna": chosen["name"].astype(str),
            "unflagged": [f"{share:.1%}" for share in chosen["share"]],
            "baselines": chosen["baselines"].astype(str),
            "from the middle (m)": [f"{distance:.0f}" for distance in chosen["distance_m"]],
            "against it": chosen["against"],
        }
    )
    return shown.set_index("rank")


def _vertical(values: xr.DataArray) -> tuple[NDArray[np.float64], str]:
    if values.sizes["time"] == 1:
        return values["frequency"].values / 1e6, "frequency (MHz)"
    if values.sizes["frequency"] == 1:
        return style.minutes(values["time"].values), "minutes since the first"
    return np.arange(values.sizes["time"] * values.sizes["frequency"], dtype=np.float64), "solution, in time"


def _phase_scale(degrees: NDArray[np.float64]) -> dict[str, Any]:
    """The whole circle in cyclic colours; phases that all lie near zero on a scale of their own."""
    finite = np.abs(degrees[np.isfinite(degrees)])
    reach = max(5.0, 1.2 * float(np.percentile(finite, 99))) if finite.size else 180.0
    if reach > 90.0:
        return {"cmap": "twilight", "vmin": -180.0, "vmax": 180.0}
    return {"cmap": "PuOr", "vmin": -reach, "vmax": reach}


def _amplitude_scale(values: NDArray[np.float64]) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
    return {"cmap": "viridis", "vmin": low, "vmax": high}

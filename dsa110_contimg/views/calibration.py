"""Figures of calibration solutions: every antenna and polarisation, none averaged away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dsa110_contimg.views import style

_NAMES = {"B": "Bandpass", "B Jones": "Bandpass", "G": "Gains", "G Jones": "Gains"}
_FLAGGED = "#9aa5af"
_UNITY = 1e-5
"""Amplitudes all this close to 1 are those of a table that was solved for phase alone."""


@style.styled
def gain_solutions(tables: Sequence[xr.Dataset]) -> Figure:
    """Amplitude (of phase-only tables the signal to noise) and phase of solutions, a row a table, antennas along x.

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
        kind = str(table.attrs.get("kind", ""))
        if bool((abs(abs(gain) - 1.0) < _UNITY).where(gain.notnull(), other=True).all()):
            row[0].set_title("Phases in the field: signal to noise")
            _quantity(figure, row[0], table["SNR"].where(~table["FLAG"]).transpose(*gain.dims), "S/N", phase=False)
        else:
            row[0].set_title(f"{_NAMES.get(kind, kind or 'Solutions')}: amplitude")
            _quantity(figure, row[0], abs(gain), "amplitude", phase=False)
        row[1].set_title(f"Phase ({flagged:.1%} flagged, reference antenna {table.attrs.get('refant', 'unknown')})")
        _quantity(figure, row[1], xr.apply_ufunc(np.angle, gain) * 180 / np.pi, "phase (deg)", phase=True)
    return figure


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
    step = max(1, n_antenna // 12)
    axes.set_xticks(range(0, n_antenna, step), names[::step])
    axes.set_xlabel("antenna (station number)")


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

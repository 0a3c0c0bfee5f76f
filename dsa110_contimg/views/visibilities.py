"""Figures of visibilities: where they lie in the uv plane, and what calibration did to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dsa110_contimg.views import style
from dsa110_contimg.views.blocks import Blocks, block_averages, counts
from dsa110_contimg.views.looking import caption, plain_log_ticks
from dsa110_contimg.views.planes import uv_plane


@style.styled
def uv_coverage(vis: xr.Dataset) -> Figure:
    """Where the unflagged visibilities of a group lie in the uv plane.

    Every visibility counts, with its Hermitian mirror image (-u, -v); nothing is left out or drawn over. Left: the
    colour is the mean frequency of what falls on a pixel. Middle: the core, coloured by the number of visibilities.
    Right: visibilities by projected length.

    Parameters
    ----------
    vis : Visibilities view
        ``FLAG`` and ``UVW`` (m) are used; may be lazy.
    """
    plane = uv_plane(vis)
    figure = style.new_figure(11.0, 4.1)
    whole, core, lengths = figure.subplots(1, 3, width_ratios=(1.16, 1.16, 1.0))
    if plane.number == 0:
        for axes in (whole, core, lengths):
            style.say_nothing_to_show(axes, "all data are flagged")
        return figure
    low, high = vis["frequency"].values.min() / 1e6, vis["frequency"].values.max() / 1e6
    shown = _uv_panel(whole, plane.frequency / 1e6, (plane.limit, plane.unit), cmap=style.BAND_MAP, vmin=low, vmax=high)
    figure.colorbar(shown, ax=whole, label="mean frequency (MHz)", shrink=0.85, pad=0.02)
    count = np.where(plane.core > 0, plane.core, np.nan)
    norm = LogNorm(1, max(2.0, plane.core.max()))
    shown = _uv_panel(core, count, (plane.core_limit, plane.unit), cmap=style.DENSITY, norm=norm)
    figure.colorbar(shown, ax=core, label="visibilities on a pixel", shrink=0.85, pad=0.02)
    whole.set_title(f"All baselines ({plane.baselines} with data)")
    core.set_title("The core")
    edges = plane.columns.edges
    lengths.stairs(plane.lengths, edges, color=style.SKY, fill=True)
    lengths.set(xscale="log", xlabel=plane.columns.label, ylabel="visibilities", ylim=(0, None))
    lengths.set_xlim(edges[0], edges[-1])
    plain_log_ticks(lengths, most_decades=1.7)
    lengths.set_title("Lengths")
    lengths.grid(axis="y")
    lengths.set_box_aspect(1)
    caption(figure, plane.caption, 170)
    return figure


def _uv_panel(axes: Axes, values: NDArray[np.float64], reach: tuple[float, str], **scale: Any) -> ScalarMappable:
    """A square of the uv plane, u to the left as right ascension is."""
    limit, unit = reach
    edges = np.linspace(-limit, limit, len(values) + 1)
    axes.set(xlabel=f"$u$ ({unit})", ylabel=f"$v$ ({unit})", aspect="equal", xlim=(limit, -limit))
    return axes.pcolorfast(edges, edges, values, **scale)


@style.styled
def amplitude_phase(raw: xr.Dataset, corrected: xr.Dataset) -> Figure:
    """Amplitude and phase before (left) and after (right) calibration.

    Every unflagged visibility enters: 16 channels (3.9 MHz) of each baseline, integration and polarisation are averaged
    as vectors, then counted on two-dimensional histograms. Rows: amplitude against projected baseline, phase against
    frequency, phase against time. Phases are relative to the model where the Dataset has one.

    Parameters
    ----------
    raw, corrected : Visibilities views
        The same visibilities, uncalibrated (arbitrary unit) and calibrated (Jy); may be lazy. Each brings the flags
        that hold for it.
    """
    figure = style.new_figure(10.5, 9.0)
    panels = figure.subplots(3, 2, height_ratios=(1.15, 1.0, 1.0))
    stages = (("Before calibration", "arbitrary unit", raw), ("After calibration", "Jy", corrected))
    for column, (title, unit, vis) in enumerate(stages):
        blocks = block_averages(vis)
        if not np.isfinite(blocks.value).any():
            for axes in panels[:, column]:
                axes.set_title(title)
                style.say_nothing_to_show(axes, "all data are flagged")
            continue
        _amplitude_panel(figure, panels[0, column], blocks, unit)
        panels[0, column].set_title(title)
        _phase_panel(panels[1, column], blocks, against="frequency")
        _phase_panel(panels[2, column], blocks, against="time")
    return figure


def _amplitude_panel(figure: Figure, axes: Axes, blocks: Blocks, unit: str) -> None:
    amplitude = np.abs(blocks.value)
    length = np.broadcast_to(blocks.uv_wavelengths[..., None] / 1e3, amplitude.shape)
    good = np.isfinite(amplitude) & (length > 0)
    x, y = length[good], amplitude[good]
    across = np.linspace(np.log10(x.min()), np.log10(x.max()) + 1e-6, 61)
    # two thousandths of the data may lie above the panel: interference must not squeeze the rest flat
    top = float(np.quantile(y, 0.998)) * 1.25
    levels = np.linspace(0, top, 71)
    count = counts(np.log10(x), y, across, levels)
    shown = axes.pcolormesh(
        10**across, levels, np.where(count > 0, count, np.nan), cmap=style.DENSITY, norm=LogNorm(), rasterized=True
    )
    axes.plot(
        10 ** ((across[1:] + across[:-1]) / 2), _medians(x, y, across, top), color=style.VERMILION, label="median"
    )
    above = float((y > top).mean())
    if above >= 5e-4:
        axes.text(
            0.985, 0.96, f"{above:.1%} above the panel", transform=axes.transAxes, ha="right", va="top", fontsize=8
        )
    axes.set(xscale="log", ylim=(0, top), xlabel=r"projected baseline (k$\lambda$)", ylabel=f"amplitude ({unit})")
    axes.legend(loc="upper left")
    figure.colorbar(shown, ax=axes, label="visibilities", pad=0.01)


def _medians(
    x: NDArray[np.float64], y: NDArray[np.float64], across: NDArray[np.float64], top: float
) -> NDArray[np.float64]:
    """Median of y in each bin of log10(x), to a thousandth of the panel; NaN in an empty bin."""
    levels = np.linspace(0, top, 1001)
    fine = np.minimum((y * (1000 / top)).astype(np.int64), 1000)
    column = np.clip(((np.log10(x) - across[0]) / (across[1] - across[0])).astype(np.int64), 0, across.size - 2)
    shape = (across.size - 1, levels.size)
    table = np.bincount(column * levels.size + fine, minlength=shape[0] * shape[1]).reshape(shape)
    below = np.cumsum(table, axis=1)
    middle = (below >= below[:, -1:] / 2).argmax(axis=1)
    return np.where(below[:, -1] > 0, levels[middle], np.nan)


def _phase_panel(axes: Axes, blocks: Blocks, against: str) -> None:
    degrees = np.degrees(blocks.residual_phase)
    if against == "frequency":
        values, axis, label = blocks.frequency_hz / 1e6, 2, "frequency (MHz)"
    else:
        values, axis, label = style.minutes(blocks.time_mjd), 0, "minutes since the first integration"
    # one column a block or an integration, whatever their spacing
    index = np.arange(values.size, dtype=np.float64).reshape([-1 if i == axis else 1 for i in range(4)])
    where = np.broadcast_to(index, degrees.shape)
    levels = np.linspace(-180, 180, 73)
    count = counts(where, degrees, np.arange(values.size + 1, dtype=np.float64) - 0.5, levels)
    axes.pcolormesh(
        style.bin_edges(values), levels, np.where(count > 0, count, np.nan), cmap=style.DENSITY, vmin=0, rasterized=True
    )
    subject = r"phase $-$ model" if blocks.has_model else "phase"
    axes.set(xlabel=label, ylabel=f"{subject} (deg)", ylim=(-180, 180), yticks=range(-180, 181, 90))
    axes.set_title(f"alignment {blocks.alignment:.2f}", loc="right", fontsize=8.5, fontweight="normal")

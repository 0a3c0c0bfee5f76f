"""Figures of visibilities: where they lie in the uv plane, and what calibration did to them."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dsa110_contimg.views import style
from dsa110_contimg.views.blocks import SPEED_OF_LIGHT, Blocks, block_averages, counts, occupied

_PIXELS = 420
_CORE_M = 500.0


@style.styled
def uv_coverage(vis: xr.Dataset) -> Figure:
    """Where the unflagged visibilities of a group lie in the uv plane.

    Every baseline, integration and subband that holds data counts, with its Hermitian mirror image (-u, -v); nothing
    is left out or drawn over. Left: the colour is the mean frequency of what falls on a pixel. Middle: the core,
    coloured by the number of samples. Right: samples by projected length.

    Parameters
    ----------
    vis : Visibilities view
        ``FLAG`` and ``UVW`` (m) are used; may be lazy.
    """
    present, uv_m, frequency = occupied(vis)
    scale = frequency / SPEED_OF_LIGHT / 1e3
    u, v = ((uv_m[..., i, None] * scale)[present] for i in range(2))
    megahertz = np.broadcast_to(frequency / 1e6, present.shape)[present]
    figure = style.new_figure(11.0, 3.9)
    whole, core, lengths = figure.subplots(1, 3, width_ratios=(1.16, 1.16, 1.0))
    if u.size == 0:
        for axes in (whole, core, lengths):
            style.say_nothing_to_show(axes, "all data are flagged")
        return figure
    limit = 1.04 * float(np.hypot(u, v).max())
    band = (vis["frequency"].values.min() / 1e6, vis["frequency"].values.max() / 1e6)
    _uv_panel(figure, whole, (u, v, megahertz), limit, band)
    _uv_panel(figure, core, (u, v, None), min(limit, _CORE_M * float(scale.max())), None)
    whole.set_title(f"All baselines ({_baselines(present)} with data)")
    core.set_title("The core")
    edges = np.geomspace(max(np.hypot(u, v).min(), 1e-3), limit, 60)
    lengths.hist(np.hypot(u, v), bins=edges, color=style.SKY, edgecolor="white", linewidth=0.3)
    lengths.set(xscale="log", xlabel=r"projected baseline (k$\lambda$)", ylabel="samples (subband, integration)")
    lengths.set_title("Lengths")
    lengths.grid(axis="y")
    lengths.set_box_aspect(1)
    return figure


def _baselines(present: NDArray[np.bool_]) -> int:
    return int(present.any(axis=(0, 2)).sum())


def _uv_panel(
    figure: Figure,
    axes: Axes,
    points: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None],
    limit: float,
    band: tuple[float, float] | None,
) -> None:
    """Samples and their mirror images binned on pixels; coloured by mean of the third array, or by count."""
    u, v, third = points
    edges = np.linspace(-limit, limit, _PIXELS // (1 if third is not None else 2) + 1)
    both_u, both_v = np.concatenate([u, -u]), np.concatenate([v, -v])
    count = counts(both_u, both_v, edges, edges)
    if third is None:
        shown = axes.pcolorfast(
            edges, edges, np.where(count > 0, count, np.nan), cmap=style.DENSITY, norm=LogNorm(1, count.max())
        )
        label = "samples on a pixel"
    else:
        total = counts(both_u, both_v, edges, edges, weights=np.concatenate([third, third]))
        mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        low, high = band or (None, None)
        shown = axes.pcolorfast(edges, edges, mean, cmap=style.BAND_MAP, vmin=low, vmax=high)
        label = "mean frequency (MHz)"
    axes.set(xlabel=r"$u$ (k$\lambda$)", ylabel=r"$v$ (k$\lambda$)", aspect="equal", xlim=(limit, -limit))
    figure.colorbar(shown, ax=axes, label=label, shrink=0.85, pad=0.02)


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

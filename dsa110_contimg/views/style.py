"""One look for all figures: sizes, colours that colour-blind readers can tell apart, and the scales of images.

Figures are made without pyplot: a view returns a `matplotlib.figure.Figure` and leaves no state behind.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike, NDArray

P = ParamSpec("P")

BLUE, VERMILION, GREEN, AMBER, PURPLE, SKY = "#0b6aa8", "#c8501e", "#1d8a6b", "#b87a00", "#9a4f86", "#4aa3d8"
INK, MUTED, FAINT = "#1c2733", "#5b6875", "#d7dde3"
CYCLE = (BLUE, VERMILION, GREEN, AMBER, PURPLE, SKY)
"""Ordered for deuteranopia and protanopia: neighbours also differ in lightness (after Okabe & Ito 2008)."""


DENSITY = LinearSegmentedColormap.from_list("density", ["#eef4f8", "#a9cbe0", "#4b93c0", "#0b5c95", "#07263f"])
"""For counts: light is few."""
SKY_MAP = mpl.colormaps["inferno"]
"""For images of the sky."""
BAND_MAP = LinearSegmentedColormap.from_list("band", mpl.colormaps["viridis"](np.linspace(0.0, 0.9, 64)))
"""For frequency, without the yellow that vanishes on white."""

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.formatter.useoffset": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "figure.facecolor": "white",
    "figure.dpi": 96,
    "savefig.dpi": 160,
    "image.origin": "lower",
}


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a view draw in the house style whatever the caller's settings are."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # its keys are literals since matplotlib 3.11
            return function(*args, **kwargs)

    return inside


def new_figure(width: float = 10.0, height: float = 4.0) -> Figure:
    """An empty figure (inches) that arranges its panels itself."""
    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.03)
    return Figure(figsize=(width, height), layout=engine)


def say_nothing_to_show(axes: Axes, why: str) -> None:
    """An empty panel that says why it is empty: missing is not zero."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=MUTED, style="italic")


def sky_norm(noise: float, peak: float, saturation: float = 1000.0) -> AsinhNorm:
    """A scale on which both the noise and the sources are seen.

    Linear within twice the noise, logarithmic above (Lupton, Gunn & Szalay 1999), saturated above ``saturation`` sigma.
    """
    sigma = noise if np.isfinite(noise) and noise > 0 else 1e-6
    top = float(np.clip(peak if np.isfinite(peak) else 0.0, 20.0 * sigma, saturation * sigma))
    return AsinhNorm(linear_width=2.0 * sigma, vmin=-4.0 * sigma, vmax=top)


def minutes(mjd: ArrayLike) -> NDArray[np.float64]:
    """Minutes since the first of the times (MJD)."""
    when = np.asarray(mjd, np.float64)
    return np.asarray((when - when.min()) * 1440.0) if when.size else when


def bin_edges(centres: ArrayLike) -> NDArray[np.float64]:
    """Edges half-way between ascending, distinct centres; one centre gets a width of 1."""
    middle = np.unique(np.asarray(centres, np.float64))
    if middle.size == 1:
        return np.array([middle[0] - 0.5, middle[0] + 0.5])
    inner = (middle[1:] + middle[:-1]) / 2
    return np.concatenate([[2 * middle[0] - inner[0]], inner, [2 * middle[-1] - inner[-1]]])

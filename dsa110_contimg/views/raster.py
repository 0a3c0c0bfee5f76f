"""Every unflagged visibility on a raster of a few hundred pixels a side: what the figures of visibilities show.

Nothing is thinned out: a pixel holds the number of visibilities that fall on it. Cross-correlations and parallel hands
enter where there are any; a Dataset of autocorrelations or cross-hands alone shows these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg.views import kernels
from dsa110_contimg.views.columns import Against, Columns, columns_of, datum
from dsa110_contimg.views.scan import Block, gather, wanted_hands

PHASE_BINS = 180
_INSIDE = 0.998
"""Fraction of the amplitudes that the panel holds, with a quarter of headroom: interference must not squeeze the
rest flat. What lies above is counted and said."""


@dataclass(frozen=True)
class Raster:
    """Numbers of visibilities on a plane of amplitude or phase against something.

    Attributes
    ----------
    count : (row, column) int64.
    columns : the horizontal axis.
    levels : (row + 1,) edges: amplitude in the unit of the data, or phase (deg).
    subject : ``amplitude`` or ``phase``.
    above : visibilities above the highest level.
    not_finite : unflagged visibilities that are NaN or infinite (for a phase, also zero).
    median : (column,) of the amplitude, good to 1 in 128; NaN where there is none, and for a phase.
    datum : what one visibility is, in words.
    pixel : what one pixel is, in words.
    """

    count: NDArray[np.int64]
    columns: Columns
    levels: NDArray[np.float64]
    subject: Literal["amplitude", "phase"]
    above: int
    not_finite: int
    median: NDArray[np.float64]
    datum: str
    pixel: str

    @cached_property
    def number(self) -> int:
        """Unflagged, finite visibilities, those above the panel included."""
        return int(self.count.sum()) + self.above

    @property
    def caption(self) -> str:
        """What is drawn, in full."""
        text = f"{self.number:,} unflagged visibilities, each counted once: {self.datum}. One pixel: {self.pixel}."
        if self.not_finite:
            text += f" {self.not_finite:,} more are not finite."
        return text


def amplitude(vis: xr.Dataset, x: Against = "uvdist") -> Raster:
    """Amplitudes of all unflagged visibilities against something.

    Parameters
    ----------
    vis : Visibilities view
        May be lazy: it is read once, block by block.
    x : str
        ``uvdist`` (projected baseline in wavelengths), ``time`` or ``frequency``.

    Raises
    ------
    InputError
        Another ``x``.
    """
    columns, row_x, channel_x = columns_of(vis, x)
    hands = wanted_hands(vis)

    def fresh() -> dict[str, NDArray[Any]]:
        return {"fine": np.zeros((columns.edges.size - 1, kernels.AMPLITUDE_BINS), np.int64), "bad": np.zeros(1, int)}

    def add(block: Block, sums: dict[str, NDArray[Any]]) -> None:
        where = row_x[block.time, block.baseline], channel_x[block.frequency]
        sums["bad"] += kernels.amplitude_counts(block.value, block.flag, *where, hands, sums["fine"])

    sums = gather(vis, fresh, add)
    fine = sums["fine"]
    count, levels, above = _even_levels(fine)
    step = f"{levels[1] - levels[0]:.2g} of amplitude"
    return Raster(
        count=count,
        columns=columns,
        levels=levels,
        subject="amplitude",
        above=above,
        not_finite=int(sums["bad"][0]),
        median=_medians(fine),
        datum=datum(vis),
        pixel=f"{columns.width}, {step}",
    )


def phase(vis: xr.Dataset, x: Against = "uvdist") -> Raster:
    """Phases of all unflagged visibilities against something; parameters and errors as `amplitude`."""
    columns, row_x, channel_x = columns_of(vis, x)
    hands = wanted_hands(vis)

    def fresh() -> dict[str, NDArray[Any]]:
        return {"count": np.zeros((columns.edges.size - 1, PHASE_BINS), np.int64), "bad": np.zeros(1, int)}

    def add(block: Block, sums: dict[str, NDArray[Any]]) -> None:
        where = row_x[block.time, block.baseline], channel_x[block.frequency]
        sums["bad"] += kernels.phase_counts(block.value, block.flag, *where, hands, sums["count"])

    sums = gather(vis, fresh, add)
    return Raster(
        count=sums["count"].T,
        columns=columns,
        levels=np.linspace(-180.0, 180.0, PHASE_BINS + 1),
        subject="phase",
        above=0,
        not_finite=int(sums["bad"][0]),
        median=np.full(columns.edges.size - 1, np.nan),
        datum=datum(vis),
        pixel=f"{columns.width}, {360 // PHASE_BINS}° of phase",
    )


def _even_levels(fine: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Counts (row, column) on even levels from zero up, their edges, and how many lie above.

    The rows are those of the highest octave shown, which the finer bins of lower octaves fill exactly.
    """
    edges, whole = kernels.amplitude_edges(), fine.sum(axis=0)
    cumulative = np.cumsum(whole)
    last = int(np.searchsorted(cumulative, _INSIDE * cumulative[-1])) if cumulative[-1] else 0
    top = max(1.25 * edges[last + 1], edges[1])
    step = 2.0 ** (np.floor(np.log2(top)) - kernels.AMPLITUDE_BITS)
    rows = int(np.ceil(top / step))
    row = np.minimum(edges[:-1] // step, rows).astype(np.int64)
    # the first bin holds zero and whatever is too small
    row[0] = 0
    count = np.zeros((rows + 1, fine.shape[0]), np.int64)
    np.add.at(count, row, fine.T)
    return count[:rows], step * np.arange(rows + 1), int(count[rows].sum())


def _medians(fine: NDArray[np.int64]) -> NDArray[np.float64]:
    """(column,) median amplitude, NaN where there is none."""
    edges, below = kernels.amplitude_edges(), np.cumsum(fine, axis=1)
    middle = (below >= below[:, -1:] / 2).argmax(axis=1)
    # the first bin holds zero, and what is all but zero
    return np.where(below[:, -1] > 0, np.where(middle > 0, (edges[middle] + edges[middle + 1]) / 2, 0.0), np.nan)

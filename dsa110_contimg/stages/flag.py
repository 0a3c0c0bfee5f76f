"""flag: mark what must not be used in a Measurement Set, by cause. Visibilities are read, only FLAG is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError
from dsa110_contimg.io import ms
from dsa110_contimg.options import FlagOptions
from dsa110_contimg.records import FlagSummary, MeasurementSet
from dsa110_contimg.science import flagging

Progress = Callable[[int, int], None]


def flag(record: MeasurementSet, options: FlagOptions, progress: Progress | None = None) -> FlagSummary:
    """Flag a raw Measurement Set.

    In order: what is flagged already (missing subbands, the correlator's own flags), exact zeros, dead antennas,
    interference in the spectrogram, single outliers; autocorrelations at last. It starts from the flags that
    `convert` left, so that its result does not depend on what was flagged before with other options.

    Raises
    ------
    CorruptFileError
        More than ``options.max_flagged_fraction`` of the cross-correlations are flagged.
    """
    layout = ms.read_layout(record.path)
    cross = layout.antenna1 != layout.antenna2
    runs = _runs(layout.frequencies.size)
    dead = _dead(record, layout, runs, options)
    use = cross & ~dead[layout.antenna1] & ~dead[layout.antenna2]
    n_times, tally = layout.mjd.size, _Tally(cross, layout.mjd.size)
    totals, counts, pending = [], [], []
    for number, (first, stop) in enumerate(runs):
        data, flags = ms.read_channels(record.path, "DATA", first, stop, flags=ms.FLAG_VERSIONS[0])
        tally.add("already flagged", flags)
        flags |= data == 0
        tally.add("exact zeros", flags)
        flags |= np.tile(~use & cross, n_times)[:, None, None]
        tally.add("dead antennas", flags)
        flagging.flag_outliers(data, flags, n_times, options.visibility_sigma)
        total, count = flagging.spectrogram(data, flags, use, n_times)
        totals.append(total)
        counts.append(count)
        pending.append(flags)
        if progress:
            progress(number + 1, len(runs))
    count = np.concatenate(counts, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, np.concatenate(totals, axis=1) / count, np.nan)
    bad = flagging.flag_spectrogram(mean, count, options.spectrogram_sigma)
    with ms.opened(record.path, writable=True) as main:
        for (first, stop), flags in zip(runs, pending, strict=True):
            tally.add("outliers", flags)
            cube = flags.reshape(n_times, -1, *flags.shape[1:])
            cube |= bad[:, None, first:stop]
            tally.add("interference", flags)
            cube[:, ~cross] = True
            ms.write_flags(main, first, flags, ms.FLAG_VERSIONS[1])
    return _summary(record, layout, tally, dead, options)


def _runs(n_channels: int) -> list[tuple[int, int]]:
    step = telescope.N_CHANNELS_PER_SUBBAND
    return [(first, min(first + step, n_channels)) for first in range(0, n_channels, step)]


class _Tally:
    """Flagged cross-correlations after each cause."""

    def __init__(self, cross: NDArray[np.bool_], n_times: int) -> None:
        self.rows = np.tile(cross, n_times)
        self.flagged: dict[str, int] = {}
        self.size: dict[str, int] = {}

    def add(self, cause: str, flags: NDArray[np.bool_]) -> None:
        here = flags[self.rows]
        self.flagged[cause] = self.flagged.get(cause, 0) + int(here.sum())
        self.size[cause] = self.size.get(cause, 0) + here.size

    def shares(self) -> Iterator[tuple[str, float]]:
        """What each cause added to those before it, as a fraction."""
        before = 0.0
        for cause, number in self.flagged.items():
            after = number / max(self.size[cause], 1)
            yield cause, after - before
            before = after


def _dead(
    record: MeasurementSet, layout: ms.Layout, runs: list[tuple[int, int]], options: FlagOptions
) -> NDArray[np.bool_]:
    """Dead antennas, by the median over the band of their autocorrelations; all alive where none were recorded."""
    auto = np.flatnonzero(layout.antenna1 == layout.antenna2)
    if auto.size == 0:
        return np.zeros(len(layout.names), bool)
    only: dict[str, Any] = {"rows_of": auto, "n_baselines": layout.antenna1.size, "flags": ms.FLAG_VERSIONS[0]}
    level = np.full((len(runs), len(layout.names), len(layout.polarizations)), np.nan)
    for number, (first, stop) in enumerate(runs):
        data, flags = ms.read_channels(record.path, "DATA", first, stop, **only)
        amplitude = np.where(flags, np.nan, np.abs(data)).reshape(-1, auto.size, stop - first, data.shape[-1])
        if np.isfinite(amplitude).any():
            filled = np.where(np.isfinite(amplitude), amplitude, 0.0)
            level[number, layout.antenna1[auto]] = filled.mean(axis=(0, 2))
    parallel = [i for i, p in enumerate(layout.polarizations) if p in ("XX", "YY")]
    seen = np.isfinite(level).any(axis=(1, 2))
    if not seen.any():
        raise CorruptFileError("Every visibility is flagged already", path=record.path, expected="some data")
    return flagging.dead_antennas(np.median(level[seen], axis=0)[:, parallel], options.dead_antenna_ratio)


def _summary(
    record: MeasurementSet, layout: ms.Layout, tally: _Tally, dead: NDArray[np.bool_], options: FlagOptions
) -> FlagSummary:
    shares = tuple(tally.shares())
    fraction = sum(share for _, share in shares)
    if fraction > options.max_flagged_fraction:
        causes = ", ".join(f"{cause} {share:.0%}" for cause, share in shares if share > 0.005)
        raise CorruptFileError(
            "Nearly everything is flagged",
            path=record.path,
            found=f"{fraction:.1%} ({causes})",
            expected=f"at most {options.max_flagged_fraction:.0%}",
        )
    names = tuple(name for name, gone in zip(layout.names, dead, strict=True) if gone)
    return FlagSummary(record, shares, float(fraction), names)

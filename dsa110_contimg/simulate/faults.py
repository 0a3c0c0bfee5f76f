"""What goes wrong at the telescope: interference, dead antennas, lost and broken files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dsa110_contimg import telescope
from dsa110_contimg.options import Options

_RFI_STREAM = 4
_SIGNAL_JY = (20.0, 500.0)
N_NARROW = 12
"""Narrow-band signals of a group with interference, 1-3 channels each."""
N_BURSTS = 2
"""Broadband bursts of a group with interference, 1-2 integrations and 2-3 subbands each."""

Subband = Annotated[int, Field(ge=0, lt=telescope.N_SUBBANDS)]


class GroupFaults(Options):
    """Faults of one group."""

    rfi: bool = Field(default=False, description="Narrow-band interference and broadband bursts, 3-5 % of the data.")
    dead_antennas: tuple[int, ...] = Field((), description="Stations that deliver nothing but a trace of noise.")
    missing_subbands: tuple[Subband, ...] = Field((), description="Subbands whose file was never written.")
    truncated_subbands: tuple[Subband, ...] = Field((), description="Subbands whose file is cut off.")


@dataclass(frozen=True)
class Interference:
    """One interfering signal.

    Attributes
    ----------
    first_channel, n_channels : of the 768, in file order (descending frequency).
    strength : (time,) Jy
        On every baseline; 0 where the signal is off.
    """

    first_channel: int
    n_channels: int
    strength: NDArray[np.float32]


def draw_interference(seed: int, group: int) -> list[Interference]:
    """The signals of a group: constant or intermittent carriers, and bursts."""
    rng = np.random.default_rng([seed, _RFI_STREAM, group])
    n_times, n_sub = telescope.N_INTEGRATIONS, telescope.N_SUBBANDS
    low, high = np.log(_SIGNAL_JY)
    signals = []
    for _ in range(N_NARROW):
        width = int(rng.integers(1, 4))
        on = np.ones(n_times, bool) if rng.random() < 0.5 else rng.random(n_times) < 0.5
        strength = np.where(on, np.exp(rng.uniform(low, high)), 0.0)
        first = int(rng.integers(0, telescope.N_CHANNELS - width))
        signals.append(Interference(first, width, strength.astype(np.float32)))
    for _ in range(N_BURSTS):
        start, length = int(rng.integers(0, n_times - 1)), int(rng.integers(1, 3))
        subbands = int(rng.integers(2, 4))
        strength = np.zeros(n_times, np.float32)
        strength[start : start + length] = np.exp(rng.uniform(low, high))
        first = int(rng.integers(0, n_sub - subbands + 1)) * telescope.N_CHANNELS_PER_SUBBAND
        signals.append(Interference(first, subbands * telescope.N_CHANNELS_PER_SUBBAND, strength))
    return signals


def interference_mask(signals: list[Interference]) -> NDArray[np.bool_]:
    """(time, 768) where any signal is on, channels in file order."""
    mask = np.zeros((telescope.N_INTEGRATIONS, telescope.N_CHANNELS), bool)
    for signal in signals:
        mask[:, signal.first_channel : signal.first_channel + signal.n_channels] |= signal.strength[:, None] > 0
    return mask


def add_interference(
    sky: NDArray[np.complex64],
    signals: list[Interference],
    subband: int,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    key: list[int],
) -> None:
    """Add the signals to the visibilities of one subband, in place.

    A transmitter stands still and so does the phase centre (hour angle 0), hence the phase of a baseline is constant
    in time; it is random from antenna to antenna, as for an emitter in the near field.

    Parameters
    ----------
    sky : (time, baseline, frequency) complex64, Jy
    first, second : (baseline,) int
        Antennas of each baseline.
    key : list of int
        Seed of the phases.
    """
    begin = subband * telescope.N_CHANNELS_PER_SUBBAND
    end = begin + telescope.N_CHANNELS_PER_SUBBAND
    n_antennas = int(max(first.max(), second.max())) + 1
    for number, signal in enumerate(signals):
        low = max(signal.first_channel, begin) - begin
        high = min(signal.first_channel + signal.n_channels, end) - begin
        if high <= low:
            continue
        turns = np.random.default_rng([*key, number]).random(n_antennas)
        phase = np.exp(2j * np.pi * (turns[second] - turns[first])).astype(np.complex64)
        for t in np.flatnonzero(signal.strength):
            sky[t, :, low:high] += signal.strength[t] * phase[:, None]

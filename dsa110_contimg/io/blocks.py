"""The parallel hands of a Measurement Set with one field and one window, a subband at a time, as cubes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.io.ms import Layout, opened

PARALLEL_HANDS = ("XX", "YY")


def subbands(layout: Layout, missing: tuple[int, ...] = ()) -> list[tuple[int, int]]:
    """First channel and the one past the last of each subband, ascending, but for those that are missing."""
    step, n_channels = telescope.N_CHANNELS_PER_SUBBAND, layout.frequencies.size
    runs = [(first, min(first + step, n_channels)) for first in range(0, n_channels, step)]
    # subband 0 is the highest in frequency
    return [run for number, run in enumerate(runs) if len(runs) - 1 - number not in missing]


def parallel_hands(layout: Layout) -> list[int]:
    """Where XX and YY stand in the data."""
    return [layout.polarizations.index(hand) for hand in PARALLEL_HANDS if hand in layout.polarizations]


Cubes = tuple[NDArray[Any], ...]


@contextmanager
def reading(path: Path, layout: Layout, columns: tuple[str, ...]) -> Iterator[Callable[[tuple[int, int]], Cubes]]:
    """A function (first channel, the one past the last) -> cubes of the columns, parallel hands alone.

    Cubes are (time, baseline, channel, polarization). They stay valid until the function is called a second time after:
    memory is used again, which is several times as fast as new memory, and one block may be worked on while the next is
    read.
    """
    shape = layout.mjd.size, layout.antenna1.size, -1, len(layout.polarizations)
    hands = parallel_hands(layout)
    memory: list[dict[tuple[str, int], NDArray[Any]]] = [{}, {}]
    with opened(path) as main:

        def read(run: tuple[int, int]) -> Cubes:
            memory.reverse()
            return tuple(one(name, run) for name in columns)

        def one(name: str, run: tuple[int, int]) -> NDArray[Any]:
            width = run[1] - run[0]
            kind = np.bool_ if name == "FLAG" else np.complex64
            if (name, width) not in memory[0]:
                memory[0][name, width] = np.empty((main.nrows(), width, shape[3]), kind)
            block = memory[0][name, width]
            main.getcolslicenp(name, block, [run[0], 0], [run[1] - 1, shape[3] - 1])
            cube = block.reshape(*shape[:2], width, shape[3])
            return cube if len(hands) == shape[3] else np.ascontiguousarray(cube[..., hands])

        yield read


def row_weights(path: Path, layout: Layout) -> NDArray[np.float32]:
    """WEIGHT as (time, baseline, 1, polarization), parallel hands alone."""
    with opened(path) as main:
        weight = np.asarray(main.getcol("WEIGHT"), np.float32)
    return weight.reshape(layout.mjd.size, layout.antenna1.size, 1, -1)[..., parallel_hands(layout)]

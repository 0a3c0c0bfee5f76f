"""The parallel hands of a Measurement Set with one field and one window, a subband at a time, as cubes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.io import tiles
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
        of_tiles = {name: tiles.reading(main, path, name) for name in columns if name != "FLAG"}

        def read(run: tuple[int, int]) -> Cubes:
            memory.reverse()
            return tuple(one(name, run) for name in columns)

        def one(name: str, run: tuple[int, int]) -> NDArray[Any]:
            width = run[1] - run[0]
            kind = np.bool_ if name == "FLAG" else np.complex64
            if (name, width) not in memory[0]:
                memory[0][name, width] = np.empty((main.nrows(), width, shape[3]), kind)
            block = memory[0][name, width]
            if name in of_tiles:
                of_tiles[name](block, 0, run[0])
            else:
                main.getcolslicenp(name, block, [run[0], 0], [run[1] - 1, shape[3] - 1])
            cube = block.reshape(*shape[:2], width, shape[3])
            return cube if len(hands) == shape[3] else np.ascontiguousarray(cube[..., hands])

        yield read


def integrations(
    path: Path, layout: Layout, column: str, hands: tuple[str, ...], *, less_model: bool = False
) -> Iterator[tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]]:
    """Visibilities (less MODEL_DATA), flags and weights of one integration after another, (row, channel, hand).

    Weights are (row, 1, hand) where there is none of single channels.
    Memory is used again: a block stays valid until the second one after it is asked for.

    Parameters
    ----------
    column : DATA or CORRECTED_DATA
    hands : which polarisations, by name.
    """
    n, (n_channels, n_pols) = layout.antenna1.size, layout.cell
    chosen = [layout.polarizations.index(hand) for hand in hands]
    everything = chosen == list(range(n_pols))
    shape = n, n_channels, n_pols
    wide = shape if layout.weight_spectrum else (n, 1, n_pols)
    memory = [(np.empty(shape, np.complex64), np.empty(shape, np.bool_), np.empty(wide, np.float32)) for _ in range(2)]
    model = np.empty(shape if less_model else (0, 0, 0), np.complex64)
    with opened(path) as main:
        read = {name: tiles.reading(main, path, name) for name in (column, *(["MODEL_DATA"] if less_model else []))}
        for time in range(layout.mjd.size):
            data, flags, weights = memory[time % 2]
            read[column](data, time * n, 0)
            main.getcolnp("FLAG", flags, time * n, n)
            if layout.weight_spectrum:
                main.getcolnp("WEIGHT_SPECTRUM", weights, time * n, n)
            else:
                weights[:, 0] = main.getcol("WEIGHT", time * n, n)
            if less_model:
                read["MODEL_DATA"](model, time * n, 0)
                np.subtract(data, model, out=data)
            block = data, flags, weights
            yield block if everything else tuple(np.ascontiguousarray(v[..., chosen]) for v in block)  # type: ignore[misc]


def row_weights(path: Path, layout: Layout) -> NDArray[np.float32]:
    """WEIGHT as (time, baseline, 1, polarization), parallel hands alone."""
    with opened(path) as main:
        weight = np.asarray(main.getcol("WEIGHT"), np.float32)
    return weight.reshape(layout.mjd.size, layout.antenna1.size, 1, -1)[..., parallel_hands(layout)]

"""A data column read past casacore, from the file in which its tiles are.

casacore copies every tile twice, and its Python binding holds the interpreter's lock meanwhile, so that no other thread
gets on. Where a column is stored as `io.ms_create` makes it, a tile's place in its file is plain arithmetic: tiles of
one size, one after the other, those of one run of rows together (casacore's ``TSMCube``). Such a file is mapped into
memory, and tiles are copied once, in any thread. Every other column is left to casacore, and so is all writing.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from casacore.tables import table

Read = Callable[[NDArray[np.complex64], int, int], None]
"""(out, row, channel): fill ``out`` (row, channel, polarization), contiguous, from a row and a channel on."""


def reading(main: table, path: Path, column: str) -> Read:
    """A function that reads a column of complex cells (channel, polarization) of an open table.

    What this process has put into the column and not flushed may be missed.

    Parameters
    ----------
    main : the table at ``path``.
    """
    mapped = _mapped(main, path, column)
    if mapped is not None:
        file, tiles = mapped

        def from_file(out: NDArray[np.complex64], row: int, channel: int) -> None:
            _copy(tiles, out, row, channel)
            # pages that stay mapped would count as this process's memory; those that are read again are still cached
            file.madvise(mmap.MADV_DONTNEED)

        return from_file

    def by_casacore(out: NDArray[np.complex64], row: int, channel: int) -> None:
        high = [channel + out.shape[1] - 1, out.shape[2] - 1]
        main.getcolslicenp(column, out, [channel, 0], high, [], row, len(out))

    return by_casacore


@njit(nogil=True, cache=True)
def _copy(tiles: NDArray[np.complex64], out: NDArray[np.complex64], first_row: int, first_channel: int) -> None:
    """In one piece: between many small ones a thread would wait for the interpreter's lock."""
    n_rows, n_channels = tiles.shape[2:4]
    for i in range(out.shape[0]):
        tile, row = divmod(first_row + i, n_rows)
        begin = 0
        while begin < out.shape[1]:
            j, channel = divmod(first_channel + begin, n_channels)
            end = min(out.shape[1], begin + n_channels - channel)
            out[i, begin:end] = tiles[tile, j, row, channel : channel + end - begin]
            begin = end


def _mapped(main: table, path: Path, column: str) -> tuple[mmap.mmap, NDArray[np.complex64]] | None:
    """The file and its tiles, (row tile, channel tile, row, channel, polarization); None if it is not as we know it."""
    manager = next((m for m in main.getdminfo().values() if column in m["COLUMNS"]), None)
    if manager is None or manager["TYPE"] != "TiledColumnStMan" or list(manager["COLUMNS"]) != [column]:
        return None
    kind, order = main.getcoldesc(column)["valueType"], main.endianformat().lower()
    cubes = list(manager["SPEC"]["HYPERCUBES"].values())
    if kind != "complex" or order != sys.byteorder or len(cubes) != 1:
        return None
    # casacore's axes begin with the one that runs fastest
    shape, tile = (tuple(int(n) for n in cubes[0][name][::-1]) for name in ("CubeShape", "TileShape"))
    if len(tile) != 3 or tile[2] != shape[2]:
        return None
    tiled = -(-shape[0] // tile[0]), -(-shape[1] // tile[1]), *tile
    file = path / f"table.f{manager['SEQNR']}_TSM0"
    # what lies beyond the end of a file must not be looked at in memory: casacore says what is wrong with it
    if not file.is_file() or file.stat().st_size < np.prod(tiled) * 8 or 0 in tiled:
        return None
    with file.open("rb") as stream:
        memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return memory, np.frombuffer(memory, np.complex64, int(np.prod(tiled))).reshape(tiled)

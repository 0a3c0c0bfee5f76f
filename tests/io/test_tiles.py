"""Columns read from their tiles, against what casacore was given to write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from casacore import tables as ct
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsa110_contimg.io import ms, tiles


def _column(path: Path, values: np.ndarray, tile: tuple[int, int], manager: str = "TiledColumnStMan") -> None:
    """A table of one column, DATA (row, channel, polarization), in tiles of so many rows and channels."""
    cell = values.shape[1:]
    kind = "complex" if values.dtype == np.complex64 else "dcomplex"
    storage = {"datamanagertype": manager, "datamanagergroup": "Held"}
    column = ct.makearrcoldesc("DATA", 0j, ndim=2, shape=list(cell), valuetype=kind, **storage)
    shape = np.array([cell[1], tile[1], tile[0]], np.int32)
    info = {"Held": {"DEFAULTTILESHAPE": shape}} if manager.startswith("Tiled") else {}
    description = ct.maketabdesc([column])
    with ct.table(str(path), description, len(values), dminfo=ct.makedminfo(description, info), ack=False) as main:
        main.putcol("DATA", values)


def _values(*shape: int) -> np.ndarray:
    numbers = np.arange(1, 1 + np.prod(shape))
    return (numbers - 1j * numbers).astype(np.complex64).reshape(shape)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_block_of_any_tiling_is_what_casacore_wrote(tmp_path: Path, data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, most)) for most in (30, 14, 4)]
    tile = data.draw(st.integers(1, 34)), data.draw(st.integers(1, 16))
    values, path = _values(*shape), tmp_path / f"{len(list(tmp_path.iterdir()))}.ms"
    _column(path, values, (tile[0], min(tile[1], shape[1])))
    low = [data.draw(st.integers(0, n - 1)) for n in shape[:2]]
    high = [data.draw(st.integers(first + 1, n)) for first, n in zip(low, shape[:2], strict=True)]
    with ms.opened(path) as main:
        assert tiles._mapped(main, path, "DATA") is not None, "this is about tiles"
        out = np.zeros((high[0] - low[0], high[1] - low[1], shape[2]), np.complex64)
        tiles.reading(main, path, "DATA")(out, low[0], low[1])
    np.testing.assert_array_equal(out, values[low[0] : high[0], low[1] : high[1]])


@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
@pytest.mark.parametrize("manager", ["StandardStMan", "TiledShapeStMan", "TiledColumnStMan"])
def test_what_is_not_in_such_tiles_is_read_by_casacore(tmp_path: Path, manager: str, kind: type) -> None:
    values = _values(9, 6, 2).astype(kind)
    _column(tmp_path / "some.ms", values, (4, 3), manager)
    with ms.opened(tmp_path / "some.ms") as main:
        ours = manager == "TiledColumnStMan" and kind is np.complex64
        assert (tiles._mapped(main, tmp_path / "some.ms", "DATA") is not None) == ours
        out = np.zeros((5, 3, 2), kind)
        tiles.reading(main, tmp_path / "some.ms", "DATA")(out, 2, 1)
    np.testing.assert_array_equal(out, values[2:7, 1:4])


def test_a_file_that_ends_early_is_not_looked_at_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "cut.ms"
    _column(path, _values(4000, 48, 2), (400, 12))
    (file,) = path.glob("*_TSM0")
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)
    with ms.opened(path) as main:
        assert tiles._mapped(main, path, "DATA") is None


def test_the_measurement_sets_that_we_make_are_read_from_tiles(tmp_path: Path) -> None:
    values = _values(24, 96, 2)
    description = ct.maketabdesc([ms.tiled_column("DATA", 0j, "complex", (96, 2))])
    info = ct.makedminfo(description, ms.tiles(["DATA"], (96, 2), 12))
    with ct.table(str(tmp_path / "our.ms"), description, 24, dminfo=info, ack=False) as main:
        main.putcol("DATA", values)
    with ms.opened(tmp_path / "our.ms") as main:
        assert tiles._mapped(main, tmp_path / "our.ms", "DATA") is not None
        out = np.zeros_like(values)
        tiles.reading(main, tmp_path / "our.ms", "DATA")(out, 0, 0)
    np.testing.assert_array_equal(out, values)


def test_what_has_been_read_is_not_kept_in_memory(tmp_path: Path) -> None:
    rows, shape = 400, (768, 2)
    values = _values(20 * rows, *shape)
    _column(tmp_path / "long.ms", values, (rows, 48))
    out = np.empty((rows, *shape), np.complex64)
    with ms.opened(tmp_path / "long.ms") as main:
        read = tiles.reading(main, tmp_path / "long.ms", "DATA")
        before = psutil.Process().memory_info().shared
        for number in range(20):
            read(out, number * rows, 0)
            np.testing.assert_array_equal(out, values[number * rows : (number + 1) * rows])
            assert psutil.Process().memory_info().shared - before < values.nbytes / 4

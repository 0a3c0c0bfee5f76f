"""A Visibilities view as a file of its own: netCDF-4, which xarray, netCDF4 and any reader of HDF5 can open.

`xarray.Dataset.to_netcdf` refuses these views: attributes of MSv4 are dictionaries, and netCDF has no booleans and no
complex numbers. Here attributes that netCDF lacks are JSON text (the attribute ``json_attributes`` names them), flags
are bytes as xarray writes them, and complex numbers are compounds of ``r`` and ``i`` as h5py and netCDF4 write them.
"""

from __future__ import annotations

import json
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import schema
from dsa110_contimg.exceptions import CorruptFileError, OutputError
from dsa110_contimg.io import files, lazy

_JSON, _COORDINATES, _DTYPE = "json_attributes", "coordinates", "dtype"
_INTERNAL = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", _JSON, _COORDINATES, _DTYPE}
_LAZY_BYTES = 1_000_000
_CHUNK_BYTES = 16_000_000
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable. "


def write(dataset: xr.Dataset, path: Path) -> Path:
    """Write a Visibilities view, block by block where it is lazy.

    Parameters
    ----------
    dataset : Visibilities view
    path : Path
        What is there is replaced when all is written.

    Raises
    ------
    SchemaError
        Not a Visibilities view.
    OutputError
        It cannot be written there.
    """
    schema.check(dataset, schema.VISIBILITIES)
    try:
        with files.beside(path) as staged, h5py.File(staged, "w", track_order=True) as file:
            _put_dimensions(file, dataset)
            sources, targets = [], []
            for name, variable in dataset.variables.items():
                if name not in dataset.dims:
                    stored = _create(file, str(name), variable)
                    for axis, dim in enumerate(variable.dims):
                        stored.dims[axis].attach_scale(file[str(dim)])
                    values = _encoded(variable.data)
                    if isinstance(values, da.Array):
                        sources.append(values)
                        targets.append(stored)
                    else:
                        stored[...] = values
            # one graph: VISIBILITY and WEIGHT of an average come from the same reading
            da.store(sources, targets, lock=True)
            _put_attributes(file, dataset.attrs)
            file.attrs[_COORDINATES] = " ".join(str(n) for n in dataset.coords if n not in dataset.dims)
    except OSError as error:
        raise OutputError("The visibilities cannot be written", path=path, found=error) from error
    return path


def read(path: Path) -> xr.Dataset:
    """The Visibilities view of a file that `write` made, lazily.

    Raises
    ------
    CorruptFileError
        Not such a file, or a damaged one.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            _require_arrays(file, path)
            found = {name: _variable(path, item) for name, item in file.items() if not _is_bare(item)}
            attributes, coordinates = _attributes(file.attrs), str(file.attrs.get(_COORDINATES, "")).split()
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise CorruptFileError("Not a file of visibilities", path=path, found=error) from error
    named = {name for name, variable in found.items() if variable.dims == (name,)} | set(coordinates)
    dataset = xr.Dataset(
        {name: variable for name, variable in found.items() if name not in named},
        coords={name: variable for name, variable in found.items() if name in named},
        attrs=attributes,
    )
    if wrong := schema.faults(dataset, schema.VISIBILITIES):
        raise CorruptFileError("Not a file of visibilities", path=path, found="; ".join(wrong))
    return dataset


def _require_arrays(file: h5py.File, path: Path) -> None:
    """Raise unless there is nothing but arrays whose axes have names."""
    for name, item in file.items():
        if not isinstance(item, h5py.Dataset) or not (item.is_scale or all(len(axis) for axis in item.dims)):
            raise CorruptFileError("Not a file of visibilities", path=path, found=f"{name} without named dimensions")


# ---- arrays -------------------------------------------------------------------------------------------------------


def _put_dimensions(file: h5py.File, dataset: xr.Dataset) -> None:
    for dim, size in dataset.sizes.items():
        name = str(dim)
        if name in dataset.variables:
            variable = dataset.variables[name]
            _create(file, name, variable)[...] = _encoded(variable.to_numpy())
            file[name].make_scale(name)
        else:
            file.create_dataset(name, (size,), "f4").make_scale(f"{_NO_VARIABLE}{size:10d}")


def _create(file: h5py.File, name: str, variable: xr.Variable) -> h5py.Dataset:
    kind = variable.dtype.kind
    stored = {"b": np.dtype("i1"), "U": h5py.string_dtype(), "O": h5py.string_dtype()}.get(kind, variable.dtype)
    chunks = None
    if variable.nbytes > _LAZY_BYTES:
        sizes = variable.chunks or tuple((n,) for n in variable.shape)
        chunks = _within([max(part) for part in sizes], variable.dtype.itemsize)
    made = file.create_dataset(name, variable.shape, stored, chunks=chunks, track_order=True)
    _put_attributes(made, variable.attrs)
    if kind == "b":
        made.attrs[_DTYPE] = "bool"
    return made


def _within(shape: list[int], itemsize: int) -> tuple[int, ...]:
    """A chunk of at most this shape and a few megabytes, cut along the first axes."""
    for axis in range(len(shape)):
        rest = itemsize * int(np.prod(shape[axis + 1 :]))
        shape[axis] = int(np.clip(_CHUNK_BYTES // max(1, rest), 1, shape[axis]))
    return tuple(shape)


def _encoded(values: Any) -> Any:
    """As it is stored."""
    if values.dtype.kind == "b":
        return values.astype("i1")
    return values.astype(object) if values.dtype.kind == "U" else values


def _is_bare(item: h5py.Dataset) -> bool:
    name = item.attrs.get("NAME", b"")
    return (name.decode() if isinstance(name, bytes) else str(name)).startswith(_NO_VARIABLE)


def _variable(path: Path, item: h5py.Dataset) -> xr.Variable:
    name = item.name.strip("/")
    own = item.is_scale
    dims = (name,) if own else tuple(axis[0].name.strip("/") for axis in item.dims)
    source = Stored(path, name, _kind(item))
    values: Any
    if item.dtype.kind != "O" and item.nbytes > _LAZY_BYTES and not own:
        sizes = item.chunks or item.shape
        values = lazy.whole(source, da.core.normalize_chunks(sizes, item.shape))
    else:
        values = source.of(item, ())
    return xr.Variable(dims, values, _attributes(item.attrs))


def _kind(item: h5py.Dataset) -> np.dtype[Any]:
    return np.dtype(bool) if item.attrs.get(_DTYPE) == "bool" else item.dtype


@dataclass(frozen=True)
class Stored:
    """One array of a file, which is opened whenever something is read."""

    path: Path
    name: str
    dtype: np.dtype[Any]

    def read(self, index: tuple[NDArray[np.int64], ...]) -> NDArray[Any]:
        """The values at these positions along each axis, all combinations of them."""
        with h5py.File(self.path, "r", locking=False) as file:
            whole = self.of(file[self.name], tuple(slice(int(at.min()), int(at.max()) + 1) for at in index))
        return np.asarray(whole[np.ix_(*(at - at.min() for at in index))])

    def of(self, item: h5py.Dataset, part: tuple[slice, ...]) -> NDArray[Any]:
        """A part of what is stored, decoded."""
        if h5py.check_string_dtype(item.dtype) is not None:
            return np.asarray(item.asstr()[part]).astype(str)
        return np.asarray(item[part]).astype(self.dtype, copy=False)


# ---- attributes ---------------------------------------------------------------------------------------------------


def _put_attributes(where: h5py.File | h5py.Dataset, attributes: Mapping[Any, Any]) -> None:
    as_text = []
    for name, value in attributes.items():
        plain = isinstance(value, (str, numbers.Real)) and not isinstance(value, (bool, np.bool_))
        if plain:
            where.attrs[str(name)] = value
        else:
            where.attrs[str(name)] = json.dumps(value, default=_as_python)
            as_text.append(str(name))
    if as_text:
        where.attrs[_JSON] = " ".join(as_text)


def _attributes(stored: h5py.AttributeManager) -> dict[str, Any]:
    as_text = str(stored.get(_JSON, "")).split()
    found: dict[str, Any] = {}
    for name in stored:
        if name in as_text:
            found[name] = json.loads(stored[name], object_hook=_measure)
        elif name not in _INTERNAL:
            value = stored[name]
            found[name] = value.item() if isinstance(value, np.generic) else value
    return found


def _as_python(value: Any) -> Any:
    """What JSON does not know."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise OutputError("An attribute cannot be written", found=f"{type(value).__name__}: {value}")


def _measure(mapping: dict[str, Any]) -> dict[str, Any]:
    """MSv4 keeps the dimensions of a quantity as a tuple, which JSON has not."""
    return {name: tuple(value) if name == "dims" else value for name, value in mapping.items()}

"""UVH5 files as lazy Visibilities Datasets: one file, or the files of a group side by side in frequency.

The files hold the conjugate of what a Measurement Set does, with uvw = position(antenna 2) - position(antenna 1). A
view has the sense of a Measurement Set: visibilities are conjugated when they are read, UVW is negated, and
polarisations keep their names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError
from dsa110_contimg.io import dataset, lazy
from dsa110_contimg.io.uvh5 import read_header
from dsa110_contimg.io.uvh5_checks import require_contiguous, require_same
from dsa110_contimg.io.uvh5_header import Header, meridian_uvw, subband_number
from dsa110_contimg.io.uvh5_storage import as_complex, as_flags, read_selection
from dsa110_contimg.records import SubbandGroup, group_id

Meridian = Callable[[NDArray[np.float64], float], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""(MJD UTC, apparent declination in rad) -> ICRS right ascension and declination of hour angle 0 (rad)."""


def open_group(group: SubbandGroup, meridian: Meridian, times_per_chunk: int = 8) -> xr.Dataset:
    """The observation of a group as a lazy Visibilities Dataset, phased as its files are.

    Frequencies ascend. Subbands without a file are absent from the frequency axis. A chunk holds one subband; what is
    read of it is what is asked for.

    Parameters
    ----------
    group : SubbandGroup
    meridian : callable
        `science.coordinates.meridian_icrs`, which says where the telescope pointed.
    times_per_chunk : int
        Integrations in one dask chunk.

    Raises
    ------
    CorruptFileError
        A file is bad, or the files of the group disagree on times, antennas, frequencies or phase centre.
    """
    headers = [read_header(f.path) for f in group.files]
    for file, header in zip(group.files, headers, strict=True):
        require_same(headers[0], header)
        if subband_number(header.frequencies) != file.subband:
            raise CorruptFileError(
                "The file is not of the subband that it was",
                path=file.path,
                found=f"sb{subband_number(header.frequencies):02d}",
                expected=f"sb{file.subband:02d}",
            )
    require_contiguous(headers)
    headers.sort(key=lambda header: float(header.frequencies.min()))
    extra = {"missing_subbands": list(group.missing)}
    return _view(tuple(headers), meridian, times_per_chunk, group.group_id, extra)


def open_file(path: Path, meridian: Meridian, times_per_chunk: int = 8) -> xr.Dataset:
    """One file of any telescope as a lazy Visibilities Dataset. Arguments and errors as `open_group`.

    Where the file's fringes were never stopped (another telescope's drift scan), they are stopped at the zenith of each
    integration.
    """
    header = read_header(path, any_telescope=True)
    name = group_id(float(header.mjd[0])) if header.ours else path.stem
    return _view((header,), meridian, times_per_chunk, name, {})


def _view(
    headers: tuple[Header, ...], meridian: Meridian, times_per_chunk: int, name: str, extra: Mapping[str, object]
) -> xr.Dataset:
    first = headers[0]
    n_times, n_baselines = first.mjd.size, first.antenna1.size
    pointing = np.stack(meridian(first.mjd, first.pointing_dec), axis=-1) if first.ours else None
    if first.centres is None or first.uvw is None:
        centre = pointing
        uvw: NDArray[np.float64] = np.broadcast_to(-meridian_uvw(first), (n_times, n_baselines, 3))
    else:
        centre, uvw = np.stack([first.centres.ra, first.centres.dec], axis=-1), -first.uvw
    centre = pointing if centre is None else centre
    if centre is None:
        raise CorruptFileError("The file does not say where it is phased to", path=first.path)
    axes = dataset.Axes(
        mjd=first.mjd,
        frequencies=np.concatenate([np.sort(h.frequencies) for h in headers]),
        polarizations=first.polarizations,
        antennas=dataset.Antennas(np.array(first.names), first.positions, first.antenna1, first.antenna2),
        centre=centre,
        pointing=centre if pointing is None else pointing,
        per_integration=bool(np.ptp(centre, axis=0).any()),
        channel_width=first.channel_width,
        integration_s=first.integration_s,
    )
    drifting = axes.per_integration
    origin = dataset.Origin(
        telescope_name=telescope.TELESCOPE_NAME if first.ours else first.telescope_name,
        group_id=name,
        unit="arbitrary",
        fields=np.array([f"meridian_{i}" if drifting else "phased" for i in range(n_times)]),
        extra=extra,
    )
    arrays = {
        variable: _lazy(headers, column, times_per_chunk)
        for variable, column in (("VISIBILITY", "visdata"), ("FLAG", "flags"), ("WEIGHT", "nsamples"))
    }
    return dataset.visibilities(arrays, uvw, axes, origin)


def _lazy(headers: tuple[Header, ...], column: str, times_per_chunk: int) -> da.Array:
    first = headers[0]
    edges = [*range(0, first.mjd.size, times_per_chunk), first.mjd.size]
    chunks = (
        tuple(b - a for a, b in itertools.pairwise(edges)),
        (first.antenna1.size,),
        tuple(h.frequencies.size for h in headers),
        (len(first.polarizations),),
    )
    return lazy.whole(Column(headers, column), chunks)


@dataclass(frozen=True)
class Column:
    """One kind of array of the files of a group, (time, baseline, frequency ascending, polarization), in the sense of a
    Measurement Set: visibilities conjugated, fringes stopped where the header says.

    Attributes
    ----------
    headers : of the files, by ascending frequency.
    name : ``visdata``, ``flags`` or ``nsamples``.
    """

    headers: tuple[Header, ...]
    name: str

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype({"visdata": np.complex64, "flags": np.bool_, "nsamples": np.float32}[self.name])

    def read(self, index: tuple[NDArray[np.int64], ...]) -> NDArray[Any]:
        """The values at these times, baselines, channels and polarisations. Errors as `read_selection`."""
        times, baselines, channels, pols = index
        first = self.headers[0]
        rows = (times[:, None] * first.antenna1.size + baselines).ravel()
        out = np.empty(tuple(i.size for i in index), self.dtype)
        edges = np.cumsum([0, *(h.frequencies.size for h in self.headers)])
        for header, low, high in zip(self.headers, edges[:-1], edges[1:], strict=True):
            here = np.flatnonzero((channels >= low) & (channels < high))
            if here.size:
                n = header.frequencies.size
                local = channels[here] - low
                local = n - 1 - local if header.frequencies[0] > header.frequencies[-1] else local
                values = self._sense(header, read_selection(header, self.name, rows, local, pols), rows, local)
                if here.size == channels.size:
                    return values.reshape(out.shape)
                run = slice(here[0], here[-1] + 1)  # a slice is written ten times faster than the same as a list
                where: Any = run if here[-1] - here[0] + 1 == here.size else here
                out[:, :, where] = values.reshape(times.size, baselines.size, here.size, pols.size)
        return out

    def _sense(
        self, header: Header, values: NDArray[Any], rows: NDArray[np.int64], channels: NDArray[np.int64]
    ) -> NDArray[Any]:
        if self.name == "flags":
            return as_flags(values)
        if self.name == "nsamples":
            return values.astype(np.float32, copy=False)
        values = as_complex(values)
        np.conjugate(values, out=values)
        if header.centres is not None and not header.centres.stopped and header.uvw is not None:
            # the file counts from the array, V = sum S exp(2 pi i w f / c); a view counts from the phase centre
            turns = header.uvw[..., 2].ravel()[rows, None] * header.frequencies[channels] / speed_of_light
            values *= np.exp(2j * np.pi * turns).astype(np.complex64)[..., None]
        return values

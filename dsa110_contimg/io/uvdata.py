"""Measurement Sets written by others' code, to hold the direct writer against: pyuvdata's, and CASA's from UVFITS.

Both begin with pyuvdata's reading. The files look like zenith drift data to it, so the recipe of the observatory's
files is followed: undo the fringestopping with the files' own w, take uvw from the antenna positions, then phase. None
of our kernels takes part; only the phase centre, and which subbands are missing, come from us.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ExternalToolError, InputError
from dsa110_contimg.io import casa, files, ms, uvh5
from dsa110_contimg.io.ms import Layout
from dsa110_contimg.records import SubbandGroup

if TYPE_CHECKING:
    from pyuvdata import UVData


@dataclass(frozen=True)
class Inputs:
    """What the writers are given.

    Attributes
    ----------
    group : SubbandGroup
    layout : Layout
        For phase centre, windows and telescope.
    frequencies : callable
        (subband) -> its channels (Hz), for missing ones.
    """

    group: SubbandGroup
    layout: Layout
    frequencies: Callable[[int], NDArray[np.float64]]


def _read(path: Path) -> UVData:
    """A file as pyuvdata reads it, fringestopping undone, uvw towards the zenith."""
    from pyuvdata import UVData

    data = UVData()
    data.read(path, file_type="uvh5", run_check=False)
    # float32 of the files is 0.1 mm coarse, 3e-3 rad of phase; the header's check holds the two together
    w = np.tile(uvh5.meridian_uvw(uvh5.read_header(path))[:, 2], data.Ntimes)
    data.uvw_array = data.uvw_array.astype(np.float64)
    turns = w[:, None] * data.freq_array.ravel() / speed_of_light
    data.data_array = (data.data_array * np.exp(2j * np.pi * turns)[..., None]).astype(np.complex64)
    data.set_uvws_from_antenna_positions(update_vis=False)
    return data


def _missing(like: UVData, frequencies: NDArray[np.float64]) -> UVData:
    """A subband that was not recorded: zeros, flagged, without weight."""
    data = like.copy()
    data.freq_array = np.sort(frequencies)[:: 1 if like.freq_array[0] < like.freq_array[-1] else -1]
    data.data_array[:], data.flag_array[:], data.nsample_array[:] = 0, True, 0
    return data


def read_phased(inputs: Inputs) -> UVData:
    """The whole group, in memory, phased; frequencies ascending.

    Raises
    ------
    ExternalToolError
        pyuvdata is not installed.
    """
    try:
        from pyuvdata import UVData  # noqa: F401
    except ModuleNotFoundError as error:
        raise ExternalToolError(
            "pyuvdata is not installed", found=error, expected="pip install 'dsa110_contimg[pyuvdata]'"
        ) from error
    layout = inputs.layout
    with warnings.catch_warnings():
        # it warns of what is odd in the observatory's files: float32 uvw, no lst_array, an unknown telescope
        warnings.simplefilter("ignore")
        parts = {f.subband: _read(f.path) for f in inputs.group.files}
        like = next(iter(parts.values()))
        parts |= {subband: _missing(like, inputs.frequencies(subband)) for subband in inputs.group.missing}
        first, *others = (parts[subband] for subband in sorted(parts, reverse=True))
        whole = first.fast_concat(others, axis="freq", run_check=False) if others else first
        whole.reorder_freqs(channel_order="freq", run_check=False)
        centers = np.broadcast_to(layout.centers, (layout.mjd.size, 2)) if len(layout.centers) > 1 else layout.centers
        times = np.repeat(np.arange(whole.Ntimes), whole.Nblts // whole.Ntimes)
        for number, (ra, dec) in enumerate(centers):
            mask = None if len(centers) == 1 else times == number
            name = f"meridian_{layout.group_id}" + ("" if mask is None else f"_t{number}")
            whole.phase(lon=ra, lat=dec, phase_frame="icrs", cat_name=name, select_mask=mask)
        whole.conjugate_bls("ant1<ant2")
    whole.telescope.name = telescope.TELESCOPE_NAME
    return whole


def write_ms(path: Path, inputs: Inputs, _scratch: Path) -> None:
    """`UVData.write_ms`, the reference.

    Raises
    ------
    InputError
        16 spectral windows are asked for.
    """
    _require("pyuvdata", inputs, one_field=False)
    whole = read_phased(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole.write_ms(str(path), run_check=False, force_phase=False, clobber=True)


def write_by_casa(path: Path, inputs: Inputs, scratch: Path) -> None:
    """UVFITS by pyuvdata, Measurement Set by CASA's importuvfits in a child process.

    Raises
    ------
    InputError
        A field for each integration or 16 spectral windows are asked for, which UVFITS of pyuvdata does not hold.
    """
    _require("casa", inputs, one_field=True)
    whole = read_phased(inputs)
    _number_from_one(whole)
    fits = scratch / f".{path.name}.uvfits"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole.write_uvfits(str(fits), run_check=False, force_phase=False)
        casa.import_uvfits(fits, path, workdir=scratch)
        with ms.opened(path / "ANTENNA", writable=True) as sub:
            # UVFITS has x towards the local meridian; importuvfits turns it back for arrays that it knows only
            sub.putcol("POSITION", _positions(whole))
    finally:
        files.remove(fits)


def _positions(whole: UVData) -> NDArray[np.float64]:
    """(antenna, 3) ITRF (m)."""
    reference = [part.to_value("m") for part in whole.telescope.location.geocentric]
    return np.asarray(whole.telescope.antenna_positions + np.array(reference))


def _number_from_one(whole: UVData) -> None:
    """Number antennas as stations are, from 1: CASA takes UVFITS antenna 0 for a row that is not there."""
    whole.telescope.antenna_numbers = whole.telescope.antenna_numbers + 1
    whole.ant_1_array, whole.ant_2_array = whole.ant_1_array + 1, whole.ant_2_array + 1
    whole.baseline_array = whole.antnums_to_baseline(whole.ant_1_array, whole.ant_2_array)


def _require(writer: str, inputs: Inputs, *, one_field: bool) -> None:
    layout = inputs.layout
    if layout.n_windows > 1 or (one_field and len(layout.centers) > 1):
        raise InputError(
            f"The {writer} writer does not make that",
            found=f"{len(layout.centers)} fields, {layout.n_windows} spectral windows asked for",
            expected="spectral_windows 1" + (", phase_center midpoint" if one_field else "") + ", or the direct writer",
        )


WRITERS: dict[str, Callable[[Path, Inputs, Path], None]] = {"pyuvdata": write_ms, "casa": write_by_casa}

"""CASA calibration tables of complex gains, as CalTable views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from dsa110_contimg import schema
from dsa110_contimg.exceptions import CorruptFileError
from dsa110_contimg.io.ms import MJD_S, opened


def open_caltable(path: Path) -> xr.Dataset:
    """A bandpass or gain table (one spectral window) as a CalTable Dataset.

    Parameters
    ----------
    path : Path
        A CASA table with CPARAM: kinds ``B Jones``, ``G Jones``.

    Raises
    ------
    CorruptFileError
        Not a table, not of complex gains, or of more than one spectral window.
    """
    with opened(path) as main:
        if "CPARAM" not in main.colnames():
            raise CorruptFileError("Not a table of complex gains", path=path, found=main.colnames(), expected="CPARAM")
        windows = np.unique(main.getcol("SPECTRAL_WINDOW_ID"))
        if main.nrows() == 0 or windows.size != 1:
            raise CorruptFileError("Not a table of one spectral window", path=path, found=windows.tolist())
        gain, flag, snr = (np.asarray(main.getcol(c)) for c in ("CPARAM", "FLAG", "SNR"))
        seconds, antenna = np.asarray(main.getcol("TIME")), np.asarray(main.getcol("ANTENNA1"))
        refant = int(np.asarray(main.getcol("ANTENNA2"))[0])
        kind = str(main.getkeyword("VisCal"))
    with opened(path / "ANTENNA") as sub:
        names = np.array(sub.getcol("NAME"))
    with opened(path / "SPECTRAL_WINDOW") as sub:
        frequencies = np.asarray(sub.getcell("CHAN_FREQ", int(windows[0])))
    if gain.shape[1] == 1 and frequencies.size > 1:
        frequencies = np.array([frequencies.mean()])
    times, index = np.unique(seconds, return_inverse=True)
    shape = (times.size, names.size, gain.shape[1], gain.shape[2])
    cubes = {
        "GAIN": np.full(shape, np.nan + 0j, np.complex64),
        "FLAG": np.ones(shape, bool),
        "SNR": np.zeros(shape, np.float32),
    }
    for name, values in (("GAIN", gain), ("FLAG", flag), ("SNR", snr)):
        cubes[name][index, antenna] = values
    dims = ("time", "antenna_name", "frequency", "polarization")
    dataset = xr.Dataset(
        {name: (dims, cube) for name, cube in cubes.items()},
        coords={
            "time": ("time", times / MJD_S, {"units": "d", "format": "mjd", "scale": "utc"}),
            "antenna_name": names,
            "frequency": ("frequency", frequencies, {"units": "Hz"}),
            "polarization": ["X", "Y"][: shape[3]],
        },
        attrs={"kind": kind, "refant": str(names[refant]) if 0 <= refant < names.size else ""},
    )
    return schema.check(dataset, schema.CALTABLE)

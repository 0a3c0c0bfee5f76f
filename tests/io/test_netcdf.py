"""A Visibilities view that is written comes back as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import dsa110_contimg as dc
from dsa110_contimg.exceptions import CorruptFileError, OutputError, SchemaError
from dsa110_contimg.io import netcdf

SAMPLES = Path(__file__).parents[2] / "data-samples"


@pytest.fixture(scope="module")
def group() -> xr.Dataset:
    return dc.open_group(SAMPLES)


def centre(group: xr.Dataset) -> tuple[float, float]:
    return float(group["pointing_ra"][11]), float(group["pointing_dec"][11])


@pytest.mark.parametrize("what", ["as opened", "computed", "averaged", "flagged"])
def test_what_is_written_comes_back_the_same(group: xr.Dataset, tmp_path: Path, what: str) -> None:
    view = group.dsa.select(frequency=(1.40e9, 1.45e9))
    if what == "computed":
        view = view.compute()
    elif what == "averaged":
        view = view.isel(frequency=slice(0, 192)).dsa.phase_to(centre(group)).dsa.average(8, 2).dsa.stokes_i()
    elif what == "flagged":
        view = view.assign(FLAG=view["FLAG"] | (view["frequency"] > 1.42e9)).transpose(*view["VISIBILITY"].dims, ...)
    written = view.dsa.to_netcdf(tmp_path / "view.nc")
    back = dc.open(written)
    xr.testing.assert_identical(back.compute(), view.compute())
    for name, variable in view.variables.items():
        assert back.variables[name].dtype == variable.dtype, name
        for key, value in variable.attrs.items():
            assert type(back.variables[name].attrs[key]) is type(value), (name, key)
    assert list(tmp_path.iterdir()) == [written]


def test_it_opens_lazily_and_everything_works_on_it(group: xr.Dataset, tmp_path: Path) -> None:
    back = dc.open(str(group.dsa.to_netcdf(tmp_path / "view.nc")))
    assert back["VISIBILITY"].chunks is not None
    antenna = str(group["antenna_name"].values[0])
    part, same = (view.dsa.select(antenna=antenna, time=(None, float(group["time"][5]))) for view in (back, group))
    np.testing.assert_array_equal(part["VISIBILITY"].values, same["VISIBILITY"].values)
    assert back.dsa.plot.uv() is not None


def test_another_reader_of_hdf5_finds_dimensions_numbers_and_text(group: xr.Dataset, tmp_path: Path) -> None:
    written = group.dsa.to_netcdf(tmp_path / "view.nc")
    with h5py.File(written) as file:
        data = file["VISIBILITY"]
        assert [axis[0].name for axis in data.dims] == ["/time", "/baseline_id", "/frequency", "/polarization"]
        np.testing.assert_array_equal(data[3], group["VISIBILITY"].values[3])
        assert data.attrs["units"] == "arbitrary"
        assert file["FLAG"].dtype == "i1" and file["FLAG"].attrs["dtype"] == "bool"
        assert [name.decode() for name in file["polarization"][:]] == ["XX", "YY"]
        assert json.loads(file["time"].attrs["integration_time"])["attrs"]["units"] == "s"


def test_what_is_not_such_a_file_is_refused(group: xr.Dataset, tmp_path: Path) -> None:
    text, empty = tmp_path / "text.nc", tmp_path / "empty.nc"
    text.write_text("visibilities")
    h5py.File(empty, "w").close()
    whole = group.dsa.to_netcdf(tmp_path / "view.nc")
    cut = tmp_path / "cut.nc"
    cut.write_bytes(whole.read_bytes()[:1000])
    other = next(SAMPLES.glob("*_sb00.hdf5"))
    for path in (text, empty, cut, other, tmp_path / "nothing.nc", tmp_path):
        with pytest.raises(CorruptFileError, match="Not a file of visibilities"):
            netcdf.read(path)


def test_what_cannot_be_written_leaves_what_was_there(group: xr.Dataset, tmp_path: Path) -> None:
    written = group.dsa.to_netcdf(tmp_path / "view.nc")
    before = written.read_bytes()
    with pytest.raises(OutputError, match="An attribute cannot be written"):
        group.assign_attrs(odd={"what": object()}).dsa.to_netcdf(written)
    with pytest.raises(SchemaError):
        netcdf.write(group.drop_vars("WEIGHT"), written)
    assert written.read_bytes() == before
    assert list(tmp_path.iterdir()) == [written]
    with pytest.raises(OutputError):
        group.dsa.to_netcdf(written / "below")


def test_it_can_be_written_over_itself_by_another_process_while_open(group: xr.Dataset, tmp_path: Path) -> None:
    written = group.isel(frequency=slice(0, 48)).dsa.to_netcdf(tmp_path / "view.nc")
    back = dc.open(written)
    program = (
        "import sys; import dsa110_contimg as dc; v = dc.open(sys.argv[1]);"
        "v.assign(FLAG=~v['FLAG']).dsa.to_netcdf(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", program, str(written)], check=True)
    assert back["VISIBILITY"].shape == dc.open(written)["VISIBILITY"].shape
    np.testing.assert_array_equal(dc.open(written)["FLAG"].values, ~group["FLAG"].values[:, :, :48])

"""Subband files: found, checked, grouped, opened; the bad ones named."""

import csv
import gzip
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import CorruptFileError, EmptyInputError, ForeignTelescopeError
from dsa110_contimg.io import groups, uvh5
from dsa110_contimg.records import SubbandFile
from dsa110_contimg.science.coordinates import meridian_icrs
from dsa110_contimg.settings import load_settings


@pytest.fixture
def one(night16, tmp_path):
    """A copy of one file, to be spoilt."""
    source = night16.groups[1].files[4].path
    return Path(shutil.copy(source, tmp_path / source.name))


@pytest.fixture
def validation_data():
    path = load_settings().validation_data
    if not path.is_dir():
        pytest.skip(f"the validation data are not at {path}; DSA110_VALIDATION_DATA names the folder")
    return path


def test_groups_are_made_by_the_time_in_the_file_not_by_its_name(night16):
    assert [len(g.files) for g in night16.groups] == [15, 16]
    assert night16.groups[0].missing == (9,)
    names = {f.path.name[:19] for f in night16.groups[1].files}
    assert len(names) > 1, "the simulated names must differ within a group, or this test says nothing"
    assert [g.group_id for g in night16.groups] == [g.group_id for g in night16.truth.groups]


def test_a_file_still_being_written_is_left_alone(night16, tmp_path):
    for file in night16.groups[1].files:
        (tmp_path / file.path.name).symlink_to(file.path)
    (tmp_path / "2026-01-26T05:00:00_sb03_incomplete.hdf5").write_bytes(b"half")
    found = groups.discover(tmp_path)
    assert len(found.groups) == 1 and not found.problems


def test_an_empty_or_absent_directory_is_an_error(tmp_path):
    with pytest.raises(EmptyInputError, match="no subband files"):
        groups.discover(tmp_path)
    with pytest.raises(EmptyInputError, match="does not exist"):
        groups.discover(tmp_path / "absent")


@pytest.mark.parametrize("keep", [0, 100, 5000, 200_000])
def test_a_truncated_file_is_named_and_the_others_used(night16, one, keep):
    for file in night16.groups[1].files:
        if file.path.name != one.name:
            (one.parent / file.path.name).symlink_to(file.path)
    os.truncate(one, keep)
    found = groups.discover(one.parent)
    assert [g.missing for g in found.groups] == [(4,)]
    assert isinstance(found.problems[0], CorruptFileError)
    assert one.name in str(found.problems[0]) and "Found:" in str(found.problems[0])


def spoil(path, name, value):
    with h5py.File(path, "r+") as file:
        head = file["Header"]
        if value is None:
            del head[name]
        elif head[name].shape == ():
            head[name][()] = value
        else:
            head[name][...] = value(head[name][...])


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("time_array", None, "lacks an entry"),
        ("Ntimes", 23, "not a rectangle"),
        ("time_array", lambda t: t[::-1], "shuffled"),
        ("freq_array", lambda f: f / 1e6, "Frequencies"),
        ("freq_array", lambda f: f + 6e6, "not those of a subband|disagree"),
        ("uvw_array", lambda w: w[:, ::-1], "uvw_array is not that of hour angle 0"),
        ("uvw_array", lambda w: w * np.nan, "uvw_array is not that of hour angle 0"),
        ("extra_keywords/phase_center_dec", 16.6, "radians"),
        ("ant_1_array", lambda a: a + 110, "outside the station table"),
        ("polarization_array", lambda p: p - 90, "lacks an entry"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(one, name, value, says):
    spoil(one, name, value)
    with pytest.raises((CorruptFileError, uvh5.InputError), match=says) as caught:
        uvh5.identify(one)
    assert one.name in str(caught.value) or "Channels" in str(caught.value)


def test_a_file_of_another_telescope_is_refused(validation_data):
    with pytest.raises(ForeignTelescopeError, match=r"hera\.uvh5.*Found: HERA.*Expected: OVRO_MMA"):
        uvh5.read_header(validation_data / "uvh5_other" / "hera.uvh5")


def test_negative_channel_width_and_a_missing_window_axis_are_read(one):
    before = uvh5.read_header(one)
    with h5py.File(one, "r+") as file:
        file["Header/channel_width"][()] = -telescope.CHANNEL_WIDTH_HZ
        for name in ("visdata", "flags", "nsamples"):
            values = file["Data"][name][:]
            del file["Data"][name]
            file["Data"][name] = values[:, 0]
    after = uvh5.read_header(one)
    assert after.channel_width == before.channel_width == telescope.CHANNEL_WIDTH_HZ
    assert uvh5.read_visibilities(after)[0].ndim == 3


def test_open_group_is_lazy_ascending_and_as_declared(night16):
    vis = uvh5.open_group(night16.groups[0], meridian_icrs)
    assert not schema.faults(vis, schema.VISIBILITIES)
    assert vis["VISIBILITY"].chunks is not None
    assert vis.sizes["frequency"] == 15 * 48
    assert (np.diff(vis.frequency) > 0).all()
    file = night16.groups[0].files[2]
    with h5py.File(file.path) as raw:
        truth = raw["Data/visdata"][5 * vis.sizes["baseline_id"] + 7, 0, 10]
        frequency = raw["Header/freq_array"][0, 10]
    here = vis.isel(time=5, baseline_id=7).sel(frequency=frequency)
    assert (here["VISIBILITY"].to_numpy() == truth).all()
    # slices of every kind reach the same numbers
    assert (vis["VISIBILITY"][3:20:4, 7, ::-1, 1].to_numpy() == vis["VISIBILITY"].to_numpy()[3:20:4, 7, ::-1, 1]).all()


def inventory():
    """The observatory's inventory: one row a name, with how many subbands stand under it."""
    path = load_settings().validation_data.parent / "tables" / "observed_groups.csv.gz"
    if not path.is_file():
        pytest.skip(f"the inventory is not at {path}")
    with gzip.open(path, "rt") as stream:
        return list(csv.DictReader(stream))


def test_the_real_inventory_merges_into_2431_groups():
    rows = inventory()
    files, last, number = [], -1.0, 0
    for row in rows:
        mjd = np.datetime64(row["timestamp"]).astype("datetime64[s]").astype(float) / 86400 + 40587.0
        if (mjd - last) * 86400 > groups.GROUP_TOLERANCE_S:
            number = 0  # the inventory counts subbands without naming them: number them through
        last = mjd
        for _ in range(int(row["n_subbands"])):
            files.append((SubbandFile(Path(f"{row['timestamp']}_{number}"), number, mjd, 0), 0.0))
            number += 1
    found, problems = groups.group_files(files)
    assert len(found) == 2431
    assert sum(len(g.files) == 16 for g in found) == 2377
    assert not problems

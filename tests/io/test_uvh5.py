"""Subband files: found, checked, grouped, opened; the bad ones named."""

import dataclasses
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError, EmptyInputError, ForeignTelescopeError
from dsa110_contimg.io import groups, uvh5
from dsa110_contimg.io.uvh5_header import PhaseCentres
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
        ("polarization_array", lambda p: p - 90, "Not a polarisation"),
        ("polarization_array", lambda p: p * 0 - 5, "polarisation is there twice"),
        ("antenna_names", lambda n: np.roll(n, 1), "not the station numbers"),
        ("antenna_positions", lambda p: p * np.nan, "An antenna has no position"),
        ("latitude", 0.65, "not at its place"),
        ("channel_width", 1e6, "Frequencies are not equally spaced"),
        ("channel_width", np.nan, "not the same throughout"),
        ("integration_time", lambda t: t * 2, "one integration apart"),
        ("ant_2_array", lambda a: a * 0, "there twice"),
        ("Nblts", -5, "not a count"),
        ("extra_keywords/ha_phase_center", 0.1, "off the meridian"),
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


def rename(path, table):
    with h5py.File(path, "r+") as file:
        extra = file["Header/extra_keywords"]
        del extra["fs_table"]
        if table is not None:
            extra["fs_table"] = np.bytes_(table)


@pytest.mark.parametrize(
    "table", [None, "", "fringestopping_table_dec16.6deg_16ant.npz", "fringestopping_table_dec17deg.npz"]
)
def test_a_fringestopping_table_of_that_declination_is_accepted(one, table):
    rename(one, table)
    assert np.degrees(uvh5.read_header(one).pointing_dec) == pytest.approx(16.6)


@pytest.mark.parametrize(
    "table", ["fringestopping_table_dec54.6deg_96ant.npz", "fringestopping_table_dec16.45deg_96ant.npz"]
)
def test_a_fringestopping_table_of_another_declination_is_refused_and_both_are_named(one, table):
    rename(one, table)
    with pytest.raises(
        CorruptFileError, match=rf"Found: phase_center_dec 16\.6000 deg.*{table.replace('.', chr(92) + '.')}"
    ):
        uvh5.read_header(one)


def test_an_array_of_which_pieces_were_never_written_is_refused(one):
    """HDF5 itself reads zeros there."""
    with h5py.File(one, "r+") as file:
        data = file["Data/visdata"]
        shape, chunks, half = data.shape, data.chunks, data[: data.chunks[0]]
        del file["Data/visdata"]
        new = file["Data"].create_dataset("visdata", shape, np.complex64, maxshape=(None, *shape[1:]), chunks=chunks)
        new[: chunks[0]] = half
        assert (new[chunks[0] :] == 0).all()
    with pytest.raises(CorruptFileError, match="visdata lacks pieces"):
        uvh5.read_header(one)


def test_samples_that_are_no_numbers_come_flagged_and_without_weight(one):
    with h5py.File(one, "r+") as file:
        file["Data/nsamples"][3, 0, 4:6, 1] = [np.nan, -96.0]
    _, flags, samples = uvh5.read_visibilities(uvh5.read_header(one))
    assert np.argwhere(flags).tolist() == [[3, 4, 1], [3, 5, 1]]
    assert (samples[flags] == 0).all() and (samples[~flags] == 96).all()


def changed(header, **values):
    return dataclasses.replace(header, path=Path("other_sb05.hdf5"), **values)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h: {"mjd": h.mjd[:-1]}, "numbers of integrations"),
        (lambda h: {"mjd": h.mjd + 7 / 86400}, "not simultaneous"),
        (lambda _: {"polarizations": ("YY", "XX")}, "polarisations"),
        (lambda h: {"pointing_dec": h.pointing_dec + 1e-5}, "declinations"),
        (lambda h: {"antenna1": h.antenna1[::-1]}, "different baselines"),
        (lambda h: {"positions": h.positions + np.arange(117)[:, None] * 1e-2}, "antenna positions"),
        (lambda _: {"centres": PhaseCentres(np.zeros(24), np.zeros(24))}, "phased to different directions"),
        (lambda h: {"integration_s": h.integration_s * 2}, "integration times"),
    ],
)
def test_two_files_that_are_not_of_one_group_are_refused(one, change, says):
    header = uvh5.read_header(one)
    uvh5.require_same(header, changed(header, mjd=header.mjd + 5 / 86400))  # subbands start within seconds
    with pytest.raises(CorruptFileError, match=says):
        uvh5.require_same(header, changed(header, **change(header)))


def test_frequencies_continue_or_miss_whole_subbands(one):
    header = uvh5.read_header(one)
    step = 48 * telescope.CHANNEL_WIDTH_HZ
    below = [changed(header, frequencies=header.frequencies - n * step) for n in (3, 1)]
    uvh5.require_contiguous([header, *below])
    for wrong in (0.0, step / 2, step - telescope.CHANNEL_WIDTH_HZ, step + 3e3):
        with pytest.raises(CorruptFileError, match="do not continue"):
            uvh5.require_contiguous([header, changed(header, frequencies=header.frequencies - wrong)])


def test_a_channel_off_its_place_is_not_of_a_subband():
    frequencies = telescope.subband_frequencies(7)
    assert uvh5.subband_number(frequencies) == uvh5.subband_number(frequencies[::-1]) == 7
    for wrong in (frequencies + 3e3, frequencies[1:], frequencies + 6e6, frequencies - 1e9):
        with pytest.raises(uvh5.InputError, match="not those of a subband"):
            uvh5.subband_number(wrong)

"""Validation finds what is wrong with a Measurement Set, names it, and puts the Measurement Set out of the way."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from dsa110_contimg.exceptions import CorruptFileError
from dsa110_contimg.io import groups, ms
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.records import Validation
from dsa110_contimg.stages.convert import convert
from dsa110_contimg.stages.validate import require_valid, validate


@pytest.fixture(scope="module")
def good(night16, tmp_path_factory):
    return convert(night16.groups[0], ConvertOptions(), tmp_path_factory.mktemp("good"))


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copytree(good.path, tmp_path / good.path.name)


def change(path, column, function, table=""):
    with ms.opened(path / table if table else path, writable=True) as main:
        main.putcol(column, function(main.getcol(column)))


def failures(path, group, workdir):
    found = validate(path, group, workdir=workdir, casa_too=False)
    assert Validation.from_json(found.to_json()) == found
    return [name for name, *_ in found.failed]


def test_a_good_one_passes_every_check_casa_s_included(good, night16, tmp_path):
    found = validate(good, night16.groups[0], workdir=tmp_path)
    assert found.ok, found.failed
    names = [name for name, *_ in found.checks]
    assert {"uvw", "antenna positions", "frequency order", "missing sb09", "msmetadata", "gaincal"} <= set(names)
    require_valid(found, tmp_path / "failed", "good.ms")
    assert good.path.is_dir() and not (tmp_path / "failed").exists()


@pytest.mark.parametrize("options", [{"phase_center": "meridian"}, {"spectral_windows": 16}, {"columns": "imaging"}])
def test_so_do_those_with_other_options(night16, tmp_path, options):
    record = convert(night16.groups[1], ConvertOptions(**options), tmp_path)
    found = validate(record, night16.groups[1], workdir=tmp_path)
    assert found.ok, found.failed


def test_uvw_two_millimetres_off_are_found(copy, night16, tmp_path):
    change(copy, "UVW", lambda uvw: uvw + np.array([0, 2e-3, 0]))
    assert failures(copy, night16.groups[0], tmp_path) == ["uvw"]


def test_uvw_of_the_wrong_sense_are_found(copy, night16, tmp_path):
    change(copy, "UVW", np.negative)
    assert failures(copy, night16.groups[0], tmp_path) == ["uvw"]


def test_a_moved_antenna_is_found(copy, night16, tmp_path):
    change(copy, "POSITION", lambda xyz: xyz + 0.1 * (np.arange(len(xyz)) == 3)[:, None], "ANTENNA")
    assert {"antenna positions", "uvw"} <= set(failures(copy, night16.groups[0], tmp_path))


def test_descending_channels_are_found(copy, night16, tmp_path):
    change(copy, "CHAN_FREQ", lambda f: np.ascontiguousarray(f[:, ::-1]), "SPECTRAL_WINDOW")
    assert failures(copy, night16.groups[0], tmp_path) == ["readable"]


def test_a_phase_centre_written_as_twice_its_right_ascension_is_found(copy, night16, tmp_path):
    change(copy, "PHASE_DIR", lambda d: np.repeat(d[..., :1], 2, axis=-1), "FIELD")
    assert {"phase centre", "uvw"} <= set(failures(copy, night16.groups[0], tmp_path))


def test_subbands_that_changed_places_are_found(copy, night16, tmp_path):
    def swap(data):
        return np.concatenate([data[:, 48:96], data[:, :48], data[:, 96:]], axis=1)

    change(copy, "DATA", swap)
    assert failures(copy, night16.groups[0], tmp_path) == ["visibilities"]


def test_a_missing_subband_that_is_not_flagged_is_found(copy, night16, tmp_path):
    change(copy, "FLAG", np.zeros_like)
    assert failures(copy, night16.groups[0], tmp_path) == ["missing sb09"]


def test_numbers_that_are_none_are_found(copy, night16, tmp_path):
    change(copy, "DATA", lambda data: np.where(np.arange(data.shape[1])[:, None] == 5, np.nan, data))
    assert "finite" in failures(copy, night16.groups[0], tmp_path)


def test_one_wrong_integration_is_found_and_so_is_a_spike_that_hides_the_rest(copy, night16, tmp_path):
    def spoil(data):
        data = data.copy()
        data[20 * 136 : 21 * 136] *= 1j
        return data

    change(copy, "DATA", spoil)
    assert failures(copy, night16.groups[0], tmp_path) == ["visibilities"]
    change(copy, "DATA", lambda data: np.where(np.arange(data.size).reshape(data.shape) == 7, np.complex64(1e6), 0))
    assert failures(copy, night16.groups[0], tmp_path) == ["visibilities"]


@pytest.mark.parametrize("writer", ["pyuvdata", "casa"])
def test_what_the_reference_writers_make_passes(night16, tmp_path, writer):
    record = convert(night16.groups[1], ConvertOptions(writer=writer), tmp_path)
    found = validate(record, night16.groups[1], workdir=tmp_path, casa_too=False)
    assert found.ok, found.failed
    assert ms.read_layout(record.path).group_id == night16.groups[1].group_id


@pytest.mark.parametrize("writer", ["direct", "pyuvdata"])
def test_what_is_no_number_in_a_file_is_flagged_by_every_writer(night16, tmp_path, writer):
    group = night16.groups[1]
    for file in group.files:
        shutil.copy(file.path, tmp_path)
    with h5py.File(tmp_path / group.files[3].path.name, "r+") as file:
        file["Data"]["visdata"][3 * 136 + 40, 0, 10, 1] = np.nan
    (copied,) = groups.discover(tmp_path).groups
    record = convert(copied, ConvertOptions(writer=writer), tmp_path / "ms")
    assert validate(record, copied, workdir=tmp_path, casa_too=False).ok
    vis = ms.open_ms(record.path)
    assert int(vis.FLAG.sum()) == 1
    assert (vis.VISIBILITY.values[vis.FLAG.values] == 0).all()


def test_casa_s_complaint_is_a_failed_check(copy, tmp_path):
    (copy / "STATE" / "table.dat").write_bytes(b"\0" * 100)
    found = validate(copy, workdir=tmp_path)
    assert [name for name, *_ in found.failed] == ["casa"]


def test_a_bad_one_is_moved_and_its_findings_kept(copy, night16, tmp_path):
    change(copy, "UVW", lambda uvw: uvw * 1.001)
    found = validate(copy, night16.groups[0], workdir=tmp_path, casa_too=False)
    with pytest.raises(CorruptFileError, match=r"set aside.*uvw: .* mm off"):
        require_valid(found, tmp_path / "failed", copy.name)
    assert not copy.exists()
    assert ms.read_layout(tmp_path / "failed" / copy.name).mjd.size == 24
    kept = (tmp_path / "failed" / copy.name).with_suffix(".validation.json")
    assert Validation.from_json(kept.read_text()) == found


def test_one_that_fails_while_it_is_made_leaves_the_earlier_one_in_its_place(night16, tmp_path):
    group = night16.groups[1]
    good = convert(group, ConvertOptions(), tmp_path / "ms")

    def check(made):
        change(made, "UVW", lambda uvw: uvw * 1.001)
        found = validate(made, group, workdir=tmp_path, casa_too=False)
        require_valid(found, tmp_path / "failed", good.path.name)

    with pytest.raises(CorruptFileError, match="set aside"):
        convert(group, ConvertOptions(), tmp_path / "ms", check=check)
    assert [path.name for path in (tmp_path / "ms").iterdir()] == [good.path.name]
    assert validate(good, group, workdir=tmp_path, casa_too=False).ok
    assert ms.read_layout(tmp_path / "failed" / good.path.name).mjd.size == 24


def test_what_is_not_a_measurement_set_fails_in_one_check(tmp_path):
    (tmp_path / "no.ms").mkdir()
    found = validate(tmp_path / "no.ms", workdir=tmp_path)
    assert [name for name, *_ in found.checks] == ["readable"] and not found.ok

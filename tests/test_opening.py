"""What a user writes to open something, and what comes."""

import shutil

import numpy as np
import pytest

import dsa110_contimg as dc
from dsa110_contimg import schema
from dsa110_contimg.exceptions import EmptyInputError, InputError
from dsa110_contimg.io.groups import GroupWarning
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.stages.convert import convert


@pytest.fixture(scope="module")
def converted(night16, tmp_path_factory):
    return convert(night16.groups[1], ConvertOptions(smoke_test=False), tmp_path_factory.mktemp("ms"))


def test_a_group_is_opened_by_its_time_any_files_time_or_its_record(night16):
    group = night16.groups[1]
    views = [dc.open_group(f"{night16.directory}/{when}") for when in {group.group_id, group.files[7].path.name[:19]}]
    views += [dc.open_group(group), dc.open(group)]
    for vis in views:
        assert vis.attrs["group_id"] == group.group_id
        assert not schema.faults(vis, schema.VISIBILITIES)


def test_a_directory_of_several_groups_names_them(night16):
    with pytest.raises(InputError) as caught:
        dc.open_group(night16.directory)
    assert all(group.group_id in str(caught.value) for group in night16.groups)
    with pytest.raises(EmptyInputError):
        dc.open_group(night16.directory / "2020-01-01T00:00:00")


def test_a_file_that_cannot_be_used_is_told_when_its_group_is_opened_by_its_directory(night16, tmp_path):
    for file in night16.groups[1].files:
        shutil.copy(file.path, tmp_path)
    broken = tmp_path / night16.groups[1].files[2].path.name
    broken.write_bytes(broken.read_bytes()[:5000])
    with pytest.warns(GroupWarning, match=broken.name):
        vis = dc.open_group(tmp_path)
    assert vis.sizes["frequency"] == 15 * 48


def test_a_file_is_the_part_of_the_group_that_it_holds(night16):
    group = night16.groups[1]
    part, whole = dc.open_uvh5(str(group.files[5].path)), dc.open_group(group)
    same = whole.sel(frequency=part.frequency)
    assert np.array_equal(part.VISIBILITY, same.VISIBILITY) and np.array_equal(part.UVW, same.UVW)
    assert part.attrs["group_id"] == group.group_id


def test_a_measurement_set_of_ours_opens_without_a_choice_and_with_one(converted):
    ours, chosen = dc.open_ms(str(converted.path)), dc.open_ms(converted.path, field=0, spw=0)
    assert ours.attrs["telescope_name"] == "DSA_110"
    assert np.array_equal(ours.VISIBILITY, chosen.VISIBILITY) and np.array_equal(ours.FLAG, chosen.FLAG)
    assert np.allclose(ours.UVW, chosen.UVW, rtol=0, atol=0)
    with pytest.raises(InputError, match="lacks a column"):
        dc.open_ms(converted.path, "CORRECTED_DATA")


def test_a_measurement_set_of_ours_is_msv4_but_for_what_the_documentation_lists(converted):
    """The same two things as a view of files: tests/io/test_uvh5_views.py."""
    from xradio.measurement_set.schema import VisibilityXds
    from xradio.schema.check import check_dataset

    issues = check_dataset(dc.open_ms(converted.path), VisibilityXds).issues
    assert {(issue.path[-2:][0][1], issue.path[-1][1]) for issue in issues} == {("time", "units"), (None, None)}


def test_the_group_phased_to_its_middle_is_what_convert_writes(night16, converted):
    """Which ties the sense of a view of files to that of a Measurement Set."""
    from dsa110_contimg.science.phasing import phase_to

    written = dc.open_ms(converted.path)
    phased = phase_to(dc.open_group(night16.groups[1]), np.radians([converted.ra_deg, converted.dec_deg]))
    names = [f"baseline_antenna{i}_name" for i in (1, 2)]
    place = {pair: i for i, pair in enumerate(zip(*(written[n].values for n in names), strict=True))}
    pairs = list(zip(*(phased[n].values for n in names), strict=True))
    straight = [i for i, pair in enumerate(pairs) if pair in place]
    assert len(straight) > 100
    one = phased.VISIBILITY.isel(baseline_id=straight).to_numpy()
    two = written.VISIBILITY.isel(baseline_id=[place[pairs[i]] for i in straight]).to_numpy()
    assert np.abs(one - two).max() < 1e-5 * np.abs(two).max()

"""Groups of subband files: by the time in them, whatever their names, their neighbours and their number."""

import csv
import gzip
import itertools
import os
import shutil
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError, EmptyInputError, IncompleteGroupError, InputError
from dsa110_contimg.io import groups, inventory
from dsa110_contimg.io.groups import Chunk
from dsa110_contimg.records import IndexedFile, group_id
from dsa110_contimg.settings import load_settings
from dsa110_contimg.simulate.array import build_array
from dsa110_contimg.simulate.uvh5 import SubbandHeader, meridian_uvw, write_subband
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.subbands import SubbandIndex

START = datetime(2026, 1, 25, 22, 26, 5, tzinfo=UTC)
GROUP = "2026-01-25T22:26:05"
NEXT = "2026-01-25T22:31:14"
ARRAY = build_array(3)


def mjd_of(when: datetime) -> float:
    return (when - datetime(1858, 11, 17, tzinfo=UTC)) / timedelta(days=1)


def write(directory, subband, *, late_s=0.0, lag_s=0.0, group=0, n_times=24, dec_deg=16.64):
    """One file of three antennas; its name is ``late_s`` after the group, its integrations are ``lag_s`` after."""
    begin = START + timedelta(seconds=group * 309.2376)
    times = mjd_of(begin) + ((np.arange(n_times) + 0.5) * telescope.INTEGRATION_S + lag_s) / 86400
    dec = np.radians(dec_deg)
    opened = (begin + timedelta(seconds=late_s)).strftime("%Y-%m-%dT%H:%M:%S")
    header = SubbandHeader(ARRAY, subband, times, dec, meridian_uvw(ARRAY.baselines_m, dec), opened)
    return write_subband(directory, header, np.zeros((n_times, ARRAY.n_baselines, 48, 2), np.complex64))


@pytest.fixture
def raw(tmp_path):
    """A group of four subbands in sixteen seconds' worth of names, and the group after it."""
    directory = tmp_path / "raw"
    directory.mkdir()
    for subband in range(4):
        write(directory, subband, late_s=4.0 * subband)
        write(directory, subband, group=1)
    return directory


@pytest.fixture
def index(tmp_path):
    database = open_database(tmp_path / "state")
    yield SubbandIndex(database)
    database.close()


class Opened:
    """Counts the files that were opened."""

    count = 0

    def __call__(self, done, total):
        self.count = done
        assert done <= total


def subbands(group):
    return [file.subband for file in group.files]


def names(group):
    return [file.path.name for file in group.files]


# ---- groups -------------------------------------------------------------------------------------------------------


def test_names_82_seconds_apart_are_one_group(tmp_path):
    for subband in range(16):
        write(tmp_path, subband, late_s=82.0 * subband / 15)
    found = groups.discover(tmp_path)
    assert [(g.group_id, len(g.files)) for g in found.groups] == [(GROUP, 16)]
    assert not found.problems
    last = found.groups[0].files[-1].path.name[:19]
    assert groups.find_group(tmp_path, last) == groups.find_group(tmp_path, GROUP) == found.groups[0]


def test_a_bad_neighbour_does_not_matter_to_a_group(raw):
    for bad in raw.glob(f"{NEXT}_sb0[13].hdf5"):
        os.truncate(bad, 1000)
    (raw / "2026-01-25T22:28:00_sb09.hdf5").write_bytes(b"of no group")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert subbands(groups.find_group(raw, GROUP)) == [0, 1, 2, 3]


def test_a_bad_file_makes_its_own_group_incomplete_and_is_named(raw):
    bad = raw / "2026-01-25T22:26:09_sb01.hdf5"
    os.truncate(bad, 1000)
    with pytest.warns(groups.GroupWarning, match=rf"{bad.name}.*Found: 1000 bytes"):
        group = groups.find_group(raw, GROUP)
    assert subbands(group) == [0, 2, 3]
    found = groups.look_up(raw, bad.name[:19])
    assert found.groups == (group,)
    assert [problem.path for problem in found.losses] == [bad]
    assert [subbands(g) for g in groups.discover(raw).groups] == [[0, 2, 3], [0, 1, 2, 3]]


def test_a_group_of_bad_files_only_says_why(tmp_path):
    for subband in range(2):
        (tmp_path / f"{GROUP}_sb{subband:02d}.hdf5").write_bytes(b"")
    with pytest.raises(EmptyInputError, match=r"No file of the group can be used.*sb00\.hdf5.*sb01\.hdf5"):
        groups.find_group(tmp_path, GROUP)
    found = groups.discover(tmp_path)
    assert not found.groups and len(found.losses) == 2


def test_a_time_without_a_group_or_that_is_no_time(raw):
    for when in ("2026-01-25T22:28:40", "2025-01-25T22:28:40"):
        with pytest.raises(EmptyInputError, match="No group of that time is here"):
            groups.find_group(raw, when)
    with pytest.raises(InputError, match=r"Not a time.*Found: yesterday"):
        groups.find_group(raw, "yesterday")


@pytest.mark.parametrize("bad_is_first", [True, False])
def test_of_a_subband_that_is_there_twice_the_valid_file_is_used(raw, bad_is_first):
    good = raw / "2026-01-25T22:26:09_sb01.hdf5"
    bad = raw / f"2026-01-25T22:26:{'06' if bad_is_first else '12'}_sb01.hdf5"
    bad.write_bytes(good.read_bytes()[:5000])
    found = groups.discover(raw)
    assert names(found.groups[0])[1] == good.name
    (problem,) = found.problems
    assert problem.path == bad and not found.losses
    assert "the valid file is used" in str(problem) and good.name in str(problem) and "truncated" in str(problem)


def test_of_two_valid_files_the_whole_one_is_used_then_the_first(raw):
    other = write(raw, 1, late_s=20.0)
    found = groups.discover(raw)
    assert names(found.groups[0])[1] == "2026-01-25T22:26:09_sb01.hdf5"
    assert "the first file is used" in str(found.duplicates[0]) and found.duplicates[0].path == other
    first = raw / "2026-01-25T22:26:09_sb01.hdf5"
    with first.open("ab") as stream:
        stream.write(b"more than the other files have")
    found = groups.discover(raw)
    assert names(found.groups[0])[1] == other.name
    assert "the whole file is used" in str(found.duplicates[0]) and found.duplicates[0].path == first


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ({"dec_deg": 16.65}, r"Dec 16\.6500.*Expected: .*Dec 16\.6400"),
        ({"n_times": 23}, "23 integrations of.*Expected: 24 integrations of"),
        ({"lag_s": -12.9}, r"begins -12\.9 s from"),
        ({"lag_s": 12.9}, r"begins \+12\.9 s from"),
    ],
)
def test_a_file_that_disagrees_with_its_group_is_left_out(raw, spoilt, says):
    bad = write(raw, 7, **spoilt)
    found = groups.discover(raw)
    assert (found.groups[0].group_id, subbands(found.groups[0])) == (GROUP, [0, 1, 2, 3])
    (problem,) = found.losses
    assert isinstance(problem, CorruptFileError) and problem.path == bad
    with pytest.raises(CorruptFileError, match=says):
        raise problem


def test_a_group_that_is_there_twice_is_used_once(raw):
    """A copy of the store under names that are off by a second."""
    for file in sorted(raw.glob("2026-01-25T22:26:*")):
        second = int(file.name[17:19]) + 1
        shutil.copy(file, raw / f"{file.name[:17]}{second:02d}{file.name[19:]}")
    found = groups.discover(raw)
    assert [len(g.files) for g in found.groups] == [4, 4]
    assert len(found.duplicates) == 4 and not found.losses


def test_too_few_subbands_are_an_error_that_names_the_missing(raw):
    with pytest.raises(IncompleteGroupError, match=r"4 of 16 \(missing sb04, .*sb15\).*at least 12"):
        groups.require_complete(groups.find_group(raw, GROUP), 12)


# ---- length of a group --------------------------------------------------------------------------------------------


def test_five_minutes_are_24_integrations_and_others_in_proportion():
    assert (Chunk().n_integrations, Chunk().tolerance_s) == (24, 30.0)
    assert Chunk().duration_s == pytest.approx(309.2376, abs=1e-3)
    assert (Chunk(10).n_integrations, Chunk(10).tolerance_s) == (48, 60.0)
    assert (Chunk(0.5).n_integrations, Chunk(0.5).tolerance_s) == (2, 3.0)
    for minutes in (0.4, 61, float("nan"), float("inf"), -5):
        with pytest.raises(InputError, match=r"Expected: 0\.5 to 60 min"):
            Chunk(minutes)


def test_files_of_another_length_than_said_are_refused_with_both_lengths(tmp_path):
    for subband in range(3):
        write(tmp_path, subband, n_times=12)
    found = groups.discover(tmp_path)
    (problem,) = found.losses
    assert not found.groups
    assert "Found: 12 integrations of 12.885 s, 154.6 s" in str(problem)
    assert "Expected: 24 integrations, 309.2 s" in str(problem) and "recorded with 2.5 min" in str(problem)
    (group,) = groups.discover(tmp_path, chunk=Chunk(2.5)).groups
    assert group.n_integrations == 12
    assert group.mjd_mid == pytest.approx(mjd_of(START + timedelta(seconds=6 * telescope.INTEGRATION_S)), abs=1e-8)
    # whoever asks for a group by name gets it as it is
    assert groups.find_group(tmp_path, GROUP) == group == groups.discover(tmp_path, any_length=True).groups[0]


def test_an_integration_more_or_less_is_no_contradiction(tmp_path):
    for group, n_times in enumerate((22, 23, 24, 25, 26)):
        write(tmp_path, 0, group=2 * group, n_times=n_times)
    assert [g.n_integrations for g in groups.discover(tmp_path).groups] == [23, 24, 25]


def test_short_groups_are_told_apart_by_a_tolerance_that_is_short_too(tmp_path):
    for number in range(3):
        write(tmp_path, 0, n_times=2, lag_s=number * 2 * telescope.INTEGRATION_S, late_s=number * 26.0)
    assert len(groups.discover(tmp_path, chunk=Chunk(0.5)).groups) == 3
    assert len(groups.discover(tmp_path, any_length=True).groups) < 3


# ---- windows and the index ----------------------------------------------------------------------------------------


def test_only_files_near_the_window_are_opened(raw):
    opened = Opened()
    found = groups.discover(raw, opened, start=START, end=START)
    assert [g.group_id for g in found.groups] == [GROUP]
    assert opened.count == 4
    found = groups.discover(raw, start=groups.moment(NEXT), end=groups.moment("2026-01-26"))
    assert [g.group_id for g in found.groups] == [NEXT]
    with pytest.raises(EmptyInputError, match=r"between 2027-.*Found: 8 subband files outside"):
        groups.discover(raw, start=groups.moment("2027-01-01 12:00:00"))


def test_a_group_whose_names_are_beyond_the_window_is_whole(tmp_path):
    for subband in range(16):
        write(tmp_path, subband, late_s=82.0 * subband / 15)
    assert len(groups.discover(tmp_path, start=START, end=START).groups[0].files) == 16
    late = START + timedelta(seconds=1)
    assert not groups.discover(tmp_path, start=late, end=late).groups


def test_a_second_look_opens_nothing_and_says_the_same(raw, index):
    os.truncate(raw / "2026-01-25T22:26:09_sb01.hdf5", 1000)
    write(raw, 2, late_s=20.0)
    first, second = Opened(), Opened()
    before = groups.discover(raw, first, index=index)
    again = groups.discover(raw, second, index=index)
    assert (first.count, second.count) == (9, 0)
    assert before.groups == again.groups == groups.discover(raw).groups
    assert [str(p) for p in before.problems] == [str(p) for p in again.problems]
    assert [type(p) for p in again.losses] == [CorruptFileError]


def test_a_file_that_changed_is_read_again_and_one_that_vanished_is_gone(raw, index):
    groups.discover(raw, index=index)
    changed, vanished = raw / "2026-01-25T22:26:09_sb01.hdf5", raw / "2026-01-25T22:26:13_sb02.hdf5"
    os.utime(changed, ns=(1, 1))
    vanished.unlink()
    opened = Opened()
    found = groups.discover(raw, opened, index=index)
    assert opened.count == 1
    assert subbands(found.groups[0]) == [0, 1, 3]


def test_what_other_code_said_of_a_file_is_not_taken_over(raw, index):
    groups.discover(raw, index=index)
    known = index.known([raw / f"{NEXT}_sb00.hdf5"])
    (file,) = known.values()
    index.remember(
        [IndexedFile(file.path, file.size_bytes, file.mtime_ns, "older", problem=("InputError", "a", "", ""))]
    )
    opened = Opened()
    assert not groups.discover(raw, opened, index=index).problems
    assert opened.count == 1


def test_a_scan_that_was_interrupted_goes_on_where_it_was(raw, index, monkeypatch):
    monkeypatch.setattr(inventory, "BATCH", 3)

    def stop(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        groups.discover(raw, stop, index=index)
    opened = Opened()
    groups.discover(raw, opened, index=index)
    assert opened.count == 2


def test_one_file_is_one_row_from_wherever_it_is_looked_at(raw, index, monkeypatch):
    monkeypatch.chdir(raw.parent)
    groups.discover(Path("raw"), index=index)
    opened = Opened()
    groups.discover(raw.parent / "state" / ".." / "raw", opened, index=index)
    assert opened.count == 0


def test_a_link_to_nowhere_is_named(raw, index):
    (raw / "2026-01-25T22:26:21_sb04.hdf5").symlink_to(raw / "gone")
    for _ in range(2):
        (problem,) = groups.discover(raw, index=index).losses
        assert "_sb04.hdf5" in str(problem) and "no such file" in str(problem).lower()


# ---- the observatory's store --------------------------------------------------------------------------------------


def store(within_s_of):
    """The inventory of a real store as its headers would be: files whose names follow each other are one group.

    ``within_s_of`` says which name theirs must be within 30 s of: the group's first, or the one before.
    """
    path = load_settings().validation_data.parent / "tables" / "observed_groups.csv.gz"
    if not path.is_file():
        pytest.skip(f"the inventory is not at {path}")
    with gzip.open(path, "rt") as stream:
        rows = [(datetime.fromisoformat(r["timestamp"]), int(r["n_subbands"])) for r in csv.DictReader(stream)]
    files, begin, before, number = [], rows[0][0], rows[0][0], itertools.count()
    for when, n_subbands in rows:
        if (when - (begin if within_s_of == "first" else before)).total_seconds() > groups.GROUP_TOLERANCE_S:
            # the inventory counts subbands without naming them: number them through
            begin, number = when, itertools.count()
        before = when
        for k in itertools.islice(number, n_subbands):
            # two rows count several groups under one name
            path = Path(f"/store/{k // 16}/{when.isoformat()}_sb{k % 16:02d}.hdf5")
            mjd = mjd_of(begin.replace(tzinfo=UTC)) + telescope.INTEGRATION_S / 2 / 86400
            files.append(IndexedFile(path, 145_348_600, 1, "code", k % 16, mjd, 16.64, 24, telescope.INTEGRATION_S))
    return files


@pytest.mark.parametrize(("within_s_of", "n_groups", "n_complete"), [("first", 2431, 2377), ("before", 2415, 2389)])
def test_the_real_inventory_merges_into_its_groups(within_s_of, n_groups, n_complete):
    """Names within 30 s of the first give 2,431, which cuts 12 complete groups that have names 59 to 82 s apart."""
    found, problems = groups.group_files(store(within_s_of))
    assert len(found) == n_groups
    several = {str(problem.path)[-29:-10] for problem in problems}
    assert len(several) == 2
    whole = [g for g in found if len(g.files) == 16 and not several & {name[:19] for name in names(g)}]
    assert len(whole) == n_complete
    assert len({g.group_id[:10] for g in found} - {"2025-01-01"}) == 13
    split = [g for g in found if len({name[:19] for name in names(g)}) > 1]
    assert len(split) > n_groups / 2, "names that split a group are the rule"


def test_the_index_gives_back_a_whole_store(index):
    files = store("before")
    for start in range(0, len(files), inventory.BATCH):
        index.remember(files[start : start + inventory.BATCH])
    known = index.known([file.path for file in files])
    assert known == {file.path: file for file in files}
    assert groups.group_files(known.values())[0] == groups.group_files(files)[0]
    assert index.known([Path("/store/2026-01-25T00:00:11_sb00.hdf5")]) == {}


# ---- invariants ---------------------------------------------------------------------------------------------------


@st.composite
def fabricated(draw):
    """Files of a few groups: late, doubled, disagreeing, unusable."""
    files = []
    for number in range(draw(st.integers(1, 24))):
        subband, group = draw(st.integers(0, 15)), draw(st.integers(0, 2))
        lag = draw(st.sampled_from([0.0, 0.0, 0.0, 1.0, 13.0, 29.0]))
        late = draw(st.integers(0, 82))
        when = START + timedelta(seconds=309.2376 * group)
        path = Path(
            f"/raw/{number}/{(when + timedelta(seconds=late)).strftime('%Y-%m-%dT%H:%M:%S')}_sb{subband:02d}.hdf5"
        )
        if draw(st.integers(0, 5)) == 0:
            files.append(IndexedFile(path, 1, 1, "code", problem=("CorruptFileError", "bad", "", "")))
        else:
            mjd = mjd_of(when) + (lag + telescope.INTEGRATION_S / 2) / 86400
            layout = draw(st.sampled_from(["as ever", "as ever", "another"]))
            files.append(IndexedFile(path, 10, 1, "code", subband, mjd, 16.64, 24, telescope.INTEGRATION_S, layout))
    return files


@settings(max_examples=200, deadline=None)
@given(files=fabricated(), order=st.randoms())
def test_every_file_is_used_once_or_named_once_in_whatever_order_they_come(files, order):
    found, problems = groups.group_files(files)
    used = [file.path for group in found for file in group.files]
    assert sorted([*used, *(problem.path for problem in problems)]) == sorted(file.path for file in files)
    bad = {file.path for file in files if file.problem}
    assert not bad & set(used)
    layouts = {file.path: file.layout for file in files}
    for group in found:
        assert subbands(group) == sorted(set(subbands(group)))
        assert len({layouts[file.path] for file in group.files}) == 1
        starts = [file.mjd_first for file in group.files]
        assert (max(starts) - min(starts)) * 86400 <= telescope.INTEGRATION_S
        assert group.group_id == group_id(min(starts))
    assert len({group.group_id for group in found}) == len(found)
    mixed = list(files)
    order.shuffle(mixed)
    again, the_same = groups.group_files(mixed)
    assert again == found
    assert sorted(map(str, the_same)) == sorted(map(str, problems))

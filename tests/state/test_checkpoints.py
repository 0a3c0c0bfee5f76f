"""Checkpoints: found again only if everything they depend on is the same and their products are still there."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from dsa110_contimg.exceptions import CorruptFileError, StateError
from dsa110_contimg.records import CalTableSet, FlagSummary
from dsa110_contimg.state import tables
from dsa110_contimg.state.checkpoints import Checkpoints, checkpoint_key, code_version
from dsa110_contimg.state.database import Database

GROUP = "2026-01-25T22:26:05"


@pytest.fixture
def checkpoints(database: Database) -> Checkpoints:
    return Checkpoints(database)


def test_a_result_comes_back_with_its_records(checkpoints: Checkpoints, make_caltable) -> None:
    record = CalTableSet((make_caltable("a.B"), make_caltable("a.G", kind="G")), 0.01)
    checkpoints.put("key", record, group_id=GROUP, step="calibrate", seconds=12.5, run_label="mine")
    found = checkpoints.get("key")
    assert found.record == record
    assert (found.step, found.group_id, found.run_label, found.seconds) == ("calibrate", GROUP, "mine", 12.5)
    assert checkpoints.get("another key") is None


def test_a_result_whose_product_is_gone_is_not_found(checkpoints: Checkpoints, make_ms) -> None:
    ms = make_ms()
    ms.path.mkdir()
    record = FlagSummary(ms, (("rfi", 0.03),), 0.05, ("24",))
    checkpoints.put("key", record, group_id=GROUP, step="flag", seconds=1.0)
    assert checkpoints.get("key").record == record
    ms.path.rmdir()
    assert checkpoints.get("key") is None, "the path is inside a record inside the record"


def test_putting_again_replaces(checkpoints: Checkpoints, make_ms) -> None:
    for n_antennas in (48, 96):
        ms = make_ms(n_antennas=n_antennas)
        ms.path.mkdir(exist_ok=True)
        checkpoints.put("key", ms, group_id=GROUP, step="convert", seconds=1.0)
    assert checkpoints.get("key").record.n_antennas == 96


def test_a_forgotten_group_is_done_again(checkpoints: Checkpoints, make_ms) -> None:
    make_ms().path.mkdir()
    for key, label in (("a", ""), ("b", ""), ("c", "mine")):
        checkpoints.put(key, make_ms(), group_id=GROUP, step="convert", seconds=1.0, run_label=label)
    checkpoints.put("d", make_ms(), group_id=GROUP, step="flag", seconds=1.0)
    assert checkpoints.forget(GROUP, step="flag") == 1
    assert checkpoints.forget(GROUP) == 2
    assert checkpoints.get("a") is None
    assert checkpoints.get("c") is not None


def _store_text(database: Database, text: str) -> None:
    row = {"key": "key", "group_id": GROUP, "run_label": "", "step": "convert", "record": text, "seconds": 1.0}
    with database.write() as connection:
        connection.execute(sa.insert(tables.checkpoints).values(**row, created_at=tables.now()))


@pytest.mark.parametrize("text", ['{"record": "Retired"}', '{"record": "SubbandFile", "colour": 1}'])
def test_a_record_of_another_version_is_done_again(database: Database, text: str) -> None:
    _store_text(database, text)
    assert Checkpoints(database).get("key") is None


def test_a_checkpoint_that_is_no_record_is_an_error(database: Database) -> None:
    _store_text(database, "{half")
    with pytest.raises(StateError, match=f"convert of {GROUP}"):
        Checkpoints(database).get("key")


def test_the_key_depends_on_everything() -> None:
    steps, inputs = ("flag", "image"), (["a"], ["a", "b"], ["b", "a"], ["ab"])
    keys = {
        checkpoint_key(step, inputs=given, options_digest=options, code=code, run_label=label)
        for step, given, options, code, label in itertools.product(steps, inputs, "xy", "12", ("", "mine"))
    }
    assert len(keys) == 2 * 4 * 2 * 2 * 2


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_keys_of_different_inputs_differ(one: list[str], other: list[str]) -> None:
    keys = [checkpoint_key("s", inputs=given, options_digest="o", code="c") for given in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_the_code_version_is_stable() -> None:
    assert code_version() == code_version()
    assert len(code_version()) == 16


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    files = [tmp_path / name for name in ("sb00", "sb01")]
    for file in files:
        file.write_bytes(file.name.encode())
    return files


def test_the_fingerprint_is_of_content_and_order(checkpoints: Checkpoints, files: list[Path], tmp_path: Path) -> None:
    before = checkpoints.fingerprint(files)
    assert checkpoints.fingerprint(files[::-1]) != before
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert checkpoints.fingerprint([file.rename(moved / file.name) for file in files]) == before


def test_a_changed_file_has_another_fingerprint(checkpoints: Checkpoints, files: list[Path]) -> None:
    before = checkpoints.fingerprint(files)
    files[0].write_bytes(b"SB00")
    changed = files[0].stat().st_mtime_ns + 1_000_000
    os.utime(files[0], ns=(changed, changed))
    assert checkpoints.fingerprint(files) != before


def test_a_file_is_read_once_while_it_stays_the_same(checkpoints: Checkpoints, files: list[Path]) -> None:
    before = checkpoints.fingerprint(files)
    stamp = files[0].stat().st_mtime_ns
    files[0].write_bytes(b"SB00")
    os.utime(files[0], ns=(stamp, stamp))
    # same size and time: taken to be unread since, which is what makes a repeated run fast
    assert checkpoints.fingerprint(files) == before


def test_a_directory_counts_as_its_files_by_name(checkpoints: Checkpoints, tmp_path: Path) -> None:
    table = tmp_path / "a.B"
    (table / "keywords").mkdir(parents=True)
    (table / "keywords" / "x").write_bytes(b"1")
    before = checkpoints.fingerprint([table])
    (table / "keywords" / "x").rename(table / "keywords" / "y")
    assert checkpoints.fingerprint([table]) != before


def test_a_file_that_cannot_be_read_is_named(checkpoints: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="none"):
        checkpoints.fingerprint([tmp_path / "none"])

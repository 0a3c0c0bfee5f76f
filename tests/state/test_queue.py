"""The queue: every group in one state, worked on by one owner, and none lost."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dsa110_contimg.exceptions import StateError
from dsa110_contimg.state.database import Database
from dsa110_contimg.state.queue import Queue, process_is_gone, this_process

LATER = "2026-01-25T22:31:14"
LATEST = "2026-01-25T22:36:23"


@pytest.fixture
def queue(database: Database) -> Queue:
    return Queue(database)


def test_a_group_comes_back_as_it_was_registered(queue: Queue, make_group) -> None:
    group = make_group(subbands=range(1, 16))
    entry = queue.register(group, is_calibrator=True)
    assert (entry.state, entry.is_calibrator, entry.attempts) == ("pending", True, 0)
    assert queue.group(group.group_id) == group
    assert queue.group(group.group_id).missing == (0,)


def test_work_goes_from_pending_to_completed(queue: Queue, make_group) -> None:
    group_id = queue.register(make_group()).group_id
    claimed = queue.claim(group_id)
    assert (claimed.state, claimed.attempts, claimed.owner) == ("in_progress", 1, this_process())
    done = queue.complete(group_id)
    assert done.state == "completed"
    assert claimed.started_at <= done.finished_at
    assert queue.claim() is None


def test_calibrators_are_claimed_first_then_the_oldest(queue: Queue, make_group) -> None:
    queue.register(make_group(LATER))
    queue.register(make_group())
    queue.register(make_group(LATEST), is_calibrator=True)
    order = [queue.claim().group_id for _ in range(3)]
    assert order == [LATEST, make_group().group_id, LATER]


def test_a_group_still_collecting_is_not_claimed(queue: Queue, make_group) -> None:
    queue.register(make_group(subbands=range(5)), collecting=True)
    assert queue.claim() is None
    queue.register(make_group())
    assert queue.claim().group_id == make_group().group_id


def test_a_collecting_group_may_be_closed_without_more_files(queue: Queue, make_group) -> None:
    queue.register(make_group(subbands=range(14)), collecting=True)
    assert queue.register(make_group(subbands=range(14))).state == "pending"


def test_a_group_that_is_done_stays_done_while_its_files_stay(queue: Queue, make_group) -> None:
    group = make_group()
    for file in group.files:
        file.path.write_bytes(b"data")
    queue.register(group)
    queue.claim()
    queue.complete(group.group_id)
    assert queue.register(group).state == "completed"
    # another content under the same name and size: DSA-110 files are all of one size
    os.utime(group.files[3].path, ns=(1, 1))
    assert queue.register(group).state == "pending"


def test_a_late_subband_makes_the_group_pending_again(queue: Queue, make_group) -> None:
    queue.register(make_group(subbands=range(15)))
    queue.claim()
    queue.fail(make_group().group_id, "too few subbands")
    entry = queue.register(make_group())
    assert (entry.state, entry.error, entry.attempts) == ("pending", "", 0)
    assert len(queue.group(entry.group_id).files) == 16


def test_registering_does_not_disturb_work_in_progress(queue: Queue, make_group) -> None:
    group = make_group(subbands=range(15))
    queue.register(group)
    queue.claim()
    assert queue.register(make_group()).state == "in_progress"
    assert queue.group(group.group_id) == group
    queue.complete(group.group_id)
    assert queue.register(make_group()).state == "pending"


def test_a_file_moves_to_the_group_that_holds_it_now(queue: Queue, make_group) -> None:
    wrong = make_group(subbands=range(16))
    queue.register(wrong)
    right = dataclasses.replace(make_group(LATER), files=wrong.files[:8])
    queue.register(right)
    assert len(queue.group(wrong.group_id).files) == 8
    assert queue.group(LATER) == right


def test_one_group_is_claimed_by_one_worker_only(database: Database, make_group) -> None:
    queue = Queue(database)
    for minute in range(8):
        queue.register(make_group(f"2026-01-25T22:{minute:02d}:00"))
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda i: Queue(database, owner=f"worker {i}").claim(), range(16)))
    claimed = [claim.group_id for claim in claims if claim is not None]
    assert len(claimed) == len(set(claimed)) == 8


def test_only_the_owner_may_finish(database: Database, make_group) -> None:
    group_id = Queue(database).register(make_group()).group_id
    Queue(database, owner="first").claim()
    with pytest.raises(StateError, match=r"in_progress, owned by first.*owned by second"):
        Queue(database, owner="second").complete(group_id)
    assert Queue(database).entry(group_id).state == "in_progress"


def test_failure_keeps_its_reason_until_the_next_try(queue: Queue, make_group) -> None:
    group_id = queue.register(make_group()).group_id
    queue.claim()
    assert queue.fail(group_id, "CASA stopped").error == "CASA stopped"
    assert queue.list_groups(["failed"])[0]["error"] == "CASA stopped"
    assert queue.retry(group_id).error == ""
    assert queue.claim().attempts == 2
    with pytest.raises(StateError, match="in_progress"):
        queue.retry(group_id)


def test_work_of_a_process_that_died_is_given_back(database: Database, make_group) -> None:
    mine, theirs = Queue(database), Queue(database, owner=_of_a_dead_process())
    mine.register(make_group())
    mine.register(make_group(LATER))
    mine.claim(make_group().group_id)
    theirs.claim(LATER)
    assert mine.release_abandoned() == (LATER,)
    assert mine.entry(LATER).state == "pending"
    assert mine.entry(make_group().group_id).state == "in_progress"


def _of_a_dead_process() -> str:
    code = "from dsa110_contimg.state.queue import this_process as p; import sys; sys.stdout.write(p())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_process_is_known_by_its_start_and_not_by_its_number_alone() -> None:
    host, pid, start = this_process().rsplit("/", 2)
    assert not process_is_gone(this_process())
    assert process_is_gone(f"{host}/{pid}/{int(start) - 1}")
    assert not process_is_gone(f"elsewhere/{pid}/{int(start) - 1}"), "another host's processes cannot be seen"


def test_a_group_that_is_not_there_is_an_error(queue: Queue) -> None:
    for act in (queue.entry, queue.group, queue.complete, queue.retry):
        with pytest.raises(StateError, match="2020-01-01"):
            act("2020-01-01T00:00:00")
    assert queue.claim("2020-01-01T00:00:00") is None


def test_lists_are_ready_for_json(queue: Queue, make_group) -> None:
    queue.register(make_group(subbands=range(3)))
    (row,) = queue.list_groups()
    assert row["group"] == make_group().group_id
    assert row["n_files"] == 3
    assert row["created_at"].endswith("Z")
    assert row["started_at"] is None

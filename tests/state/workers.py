"""Processes that write to a database until they end or are killed. A program: run by test_database.

Imports once and forks a child for each line ``<job> <directory>`` on its input; answers with the child's process id,
and the child with ``ready`` when it begins. The line ``wait`` is answered with the exit status of every child, when all
have ended.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from dsa110_contimg.records import CalTable, SubbandFile, SubbandGroup
from dsa110_contimg.state import tables
from dsa110_contimg.state.checkpoints import Checkpoints
from dsa110_contimg.state.database import open_database, upsert
from dsa110_contimg.state.queue import Queue
from dsa110_contimg.state.registry import Registry

N_FILES = 16


def write(directory: Path) -> None:
    """Change as the pipeline does: each transaction leaves every group with all its files and every set complete."""
    database = open_database(directory)
    queue, registry, checkpoints = Queue(database), Registry(database), Checkpoints(database)
    say("ready")
    for i in range(1_000_000):
        group_id = f"{os.getpid()}-{i % 20}"
        files = tuple(SubbandFile(Path(f"/{group_id}/{i}_{sb}"), sb, float(i), i) for sb in range(N_FILES))
        group = SubbandGroup(group_id, float(i), 16.0, files)
        queue.register(group)
        if queue.claim(group_id) is not None:
            queue.complete(group_id)
        paths = {k: directory / "tables" / f"{group_id}.{k}" for k in ("B", "G")}
        for path in paths.values():
            path.mkdir(parents=True, exist_ok=True)
            (path / "table.dat").write_text(str(i))
        solved = [
            CalTable(path, k, group_id, 0, group_id, "1", float(i), i - 1.0, i + 1.0, 0.0, 9.0)
            for k, path in paths.items()
        ]
        registry.register(solved)
        checkpoints.put(group_id, group, group_id=group_id, step="convert", seconds=1.0)


def create(directory: Path) -> None:
    say("ready")
    open_database(directory)


def create_together(directory: Path) -> None:
    """Open when the file ``go`` appears beside the directory, and leave a row."""
    say("ready")
    while not (directory.parent / "go").exists():
        time.sleep(0.001)
    with open_database(directory).write() as connection:
        row = {"path": f"/{os.getpid()}", "size_bytes": 1, "mtime_ns": 0, "sha256": ""}
        upsert(connection, tables.file_fingerprints, row)


def say(words: str) -> None:
    # one system call, so that lines of several processes do not mix
    os.write(1, f"{words}\n".encode())


def main() -> None:
    jobs = {job.__name__: job for job in (write, create, create_together)}
    children = []
    for line in sys.stdin:
        if line == "wait\n":
            say(" ".join(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children))
            children.clear()
            continue
        name, directory = line.rstrip("\n").split(" ", 1)
        child = os.fork()
        if child == 0:
            jobs[name](Path(directory))
            return
        children.append(child)
        say(str(child))


if __name__ == "__main__":
    main()

"""Checkpoints: what has been done already, so that a killed run resumes and a repeated run does nothing.

A step's result is found again under a key made of everything it depends on: the step, its inputs, its options, the
code, and the run label. Inputs are named by content. For the raw files that is a hash of the bytes (`fingerprint`); for
the product of an earlier step it is that step's own key, because a Measurement Set goes on changing after it is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dsa110_contimg import records
from dsa110_contimg.exceptions import CorruptFileError, StateError
from dsa110_contimg.state.database import Database, upsert
from dsa110_contimg.state.tables import checkpoints, file_fingerprints, now

_HASHERS = 2
"""Files hashed at a time; hashing leaves the interpreter to others."""
_ROOMS = ("science", "io", "stages")
_NO_RESULTS = ("__init__.py", "accessor.py", "cli.py", "opening.py", "reference.py", "settings.py")
"""Top modules that decide what is run and how it is shown, never what comes out."""
_FEW = 400
"""Paths asked for in one query; engines limit the number of parameters."""


@dataclass(frozen=True)
class Checkpoint:
    """The result of a step that was done.

    Attributes
    ----------
    record : what the step returned.
    seconds : how long it took.
    created_at : when it was done (UTC).
    """

    key: str
    group_id: str
    run_label: str
    step: str
    record: Any
    created_at: datetime
    seconds: float


def checkpoint_key(step: str, *, inputs: Iterable[str], options_digest: str, code: str, run_label: str = "") -> str:
    """The name under which a step's result is kept; different if anything it depends on is.

    Parameters
    ----------
    inputs : iterable of str
        In order: keys of the steps before, fingerprints of files.
    options_digest : str
        `Options.digest` of the step's options.
    code : str
        `code_version`, or whatever stands for the code.
    """
    body = json.dumps([step, list(inputs), options_digest, code, run_label])
    return hashlib.sha256(body.encode()).hexdigest()


@cache
def code_version() -> str:
    """Hash of what decides results: vocabulary, pipeline, science, io, stages, and the packaged catalogues."""
    package = Path(__file__).parent.parent
    sources = sorted(file for file in package.glob("*.py") if file.name not in _NO_RESULTS)
    sources += sorted(file for room in _ROOMS for file in (package / room).glob("*.py"))
    sources += sorted((package / "data").glob("*.csv*"))
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.relative_to(package)}\0".encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


class Checkpoints:
    """The checkpoints in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, key: str) -> Checkpoint | None:
        """The result kept under a key, if all the products it names are still there.

        None also if the record is of a kind that this code no longer knows: the step is then done again.

        Raises
        ------
        StateError
            If what is stored is not a record at all.
        """
        with self.database.read() as connection:
            row = connection.execute(sa.select(checkpoints).where(checkpoints.c.key == key)).mappings().first()
        if row is None:
            return None
        try:
            body = json.loads(row["record"])
        except json.JSONDecodeError as error:
            raise StateError(
                "A checkpoint cannot be read", path=self.database.path, found=f"{row['step']} of {row['group_id']}"
            ) from error
        if not all(path.exists() for path in product_paths(body)):
            return None
        try:
            record = records.from_dict(body)
        except (KeyError, TypeError):
            return None
        return Checkpoint(**{**row, "record": record})

    def put(self, key: str, record: Any, *, group_id: str, step: str, seconds: float, run_label: str = "") -> None:
        """Keep the result of a step, a record, under its key. Call it when the products are complete on disk."""
        values = {"key": key, "group_id": group_id, "run_label": run_label, "step": step, "seconds": seconds}
        with self.database.write() as connection:
            upsert(connection, checkpoints, values | {"record": record.to_json(), "created_at": now()})

    def forget(self, group_id: str, *, step: str | None = None, run_label: str = "") -> int:
        """Drop the checkpoints of a group, so that all its steps, or this one, are done again; returns how many.

        A step forgets itself before it runs: it writes over what it made with other options.
        """
        query = sa.delete(checkpoints).where(checkpoints.c.group_id == group_id, checkpoints.c.run_label == run_label)
        if step is not None:
            query = query.where(checkpoints.c.step == step)
        with self.database.write() as connection:
            return connection.execute(query).rowcount

    def fingerprint(self, paths: Iterable[Path]) -> str:
        """Hash of the content of files, in the order given; a directory counts as its files by relative name.

        A file is read once: as long as its size and time of modification stay, its hash is taken from the database.

        Raises
        ------
        CorruptFileError
            If a file cannot be read.
        """
        found: list[tuple[str, Path]] = []
        for path in paths:
            members = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
            found += [(str(f.relative_to(path)), f) for f in members]
        hashes = self._hashes([file for _, file in found])
        digest = hashlib.sha256()
        for name, file in found:
            digest.update(f"{name}\0{hashes[file]}\n".encode())
        return digest.hexdigest()

    def _hashes(self, files: list[Path]) -> dict[Path, str]:
        known = self._known(files)
        hashes: dict[Path, str] = {}
        fresh: dict[Path, dict[str, Any]] = {}
        for file in files:
            try:
                stat = file.stat()
            except OSError as error:
                raise CorruptFileError("A file cannot be read", path=file, found=error.strerror) from error
            seen = known.get(file)
            if seen is not None and seen[:2] == (stat.st_size, stat.st_mtime_ns):
                hashes[file] = seen[2]
            else:
                fresh[file] = {"path": file, "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        with ThreadPoolExecutor(_HASHERS) as pool:
            for file, digest in zip(fresh, pool.map(_sha256, fresh), strict=True):
                hashes[file] = fresh[file]["sha256"] = digest
        if fresh:
            with self.database.write() as connection:
                for values in fresh.values():
                    upsert(connection, file_fingerprints, values)
        return hashes

    def _known(self, files: list[Path]) -> dict[Path, tuple[int, int, str]]:
        table = file_fingerprints.c
        known = {}
        with self.database.read() as connection:
            for first in range(0, len(files), _FEW):
                query = sa.select(file_fingerprints).where(table.path.in_(files[first : first + _FEW]))
                for row in connection.execute(query).mappings():
                    known[row["path"]] = (row["size_bytes"], row["mtime_ns"], row["sha256"])
        return known


def product_paths(body: Any) -> Iterator[Path]:
    """All paths in what a record's ``to_dict`` gave."""
    if isinstance(body, dict):
        if set(body) == {"path"}:
            yield Path(body["path"])
        else:
            for value in body.values():
                yield from product_paths(value)
    elif isinstance(body, list):
        for value in body:
            yield from product_paths(value)


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CorruptFileError("A file cannot be read", path=file, found=error.strerror) from error

"""Products appear whole or not at all: written beside, fsynced, renamed."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsa110_contimg.exceptions import OutputError


def make_directory(path: Path) -> Path:
    """Create a directory (and parents).

    Raises
    ------
    OutputError
        It cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "The output directory cannot be made", path=path, found=error, expected="a writable place"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(
            "The output directory is read-only", path=path, found="no permission to write", expected="a writable place"
        )
    return path


@contextmanager
def beside(path: Path, staging: Path | None = None) -> Iterator[Path]:
    """A temporary name beside ``path``; on success it is fsynced and takes the name, on failure it is removed.

    Works for files and for directories (Measurement Sets, calibration tables), which are replaced whole.

    Parameters
    ----------
    path : Path
    staging : Path, optional
        A directory to work in instead, in memory perhaps; what was made is copied beside ``path`` before it is renamed.

    Raises
    ------
    OutputError
        The place cannot be written, or is full.
    """
    make_directory(path.parent)
    host = platform.node() or "localhost"
    partial = path.with_name(f".{path.name}.{host}.{os.getpid()}.partial")
    work = partial if staging is None else staging / partial.name
    for folder in {partial.parent, work.parent}:
        _remove_abandoned(folder, f".{path.name}.{host}.")
    try:
        yield work
        if not work.exists():
            return
        if work != partial:
            copy = shutil.copytree if work.is_dir() else shutil.copyfile
            copy(work, partial)
            remove(work)
        sync(partial)
        if path.is_dir():
            remove(path)
        partial.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise OutputError(
            "The product cannot be written", path=path, found=error, expected="room and permission"
        ) from error
    finally:
        for unfinished in {partial, work}:
            remove(unfinished)


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove what killed processes of this host left of a product, and what this process did."""
    for left in folder.iterdir():
        if left.name.startswith(prefix) and left.suffix == ".partial":
            process = left.name.removeprefix(prefix).removesuffix(".partial")
            if process.isdigit() and (int(process) == os.getpid() or not _is_alive(int(process))):
                remove(left)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


_SHARED_MEMORY = Path("/dev/shm")
_MEMORY = Path("/proc/meminfo")


def shared_memory(n_bytes: int) -> Path | None:
    """The directory of shared memory (tmpfs), if it has room for so many bytes; None if not, or if there is none."""
    if not (_SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK) and _MEMORY.is_file()):
        return None
    room = shutil.disk_usage(_SHARED_MEMORY).free
    # a tmpfs may be larger than the memory it lives in
    return _SHARED_MEMORY if min(room, available_memory() or 0) >= n_bytes else None


def available_memory() -> int | None:
    """Bytes that can be had without swapping, as Linux reckons; None where it does not say."""
    if not _MEMORY.is_file():
        return None
    lines = (line.split() for line in _MEMORY.read_text().splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), None)


def remove(path: Path) -> None:
    """Delete a file or a directory tree, if there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_room(place: Path, n_bytes: int) -> None:
    """Raise `OutputError` unless a directory's file system has room for so many bytes.

    Asked beforehand, because a casacore table that meets a full disk can end the process.
    """
    free = shutil.disk_usage(make_directory(place)).free
    if free < n_bytes:
        raise OutputError(
            "There is no room for the product",
            path=place,
            found=f"{free / 2**20:.0f} MB free",
            expected=f"{n_bytes / 2**20:.0f} MB",
        )


def sync(path: Path) -> None:
    """fsync a file, or every file and directory of a tree."""
    if path.is_dir():
        for child in path.iterdir():
            sync(child)
        sync_directory(path)
        return
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """fsync a directory, so that a rename in it lasts."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fingerprint(path: Path) -> str:
    """Hash of the content of a file or of a tree; lock files, which readers rewrite, are left out."""
    digest = hashlib.sha256()
    for item in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if item.is_file() and item.name != "table.lock":
            digest.update(f"{item.relative_to(path.parent)}\0".encode())
            digest.update(item.read_bytes())
    return digest.hexdigest()[:16]

"""What the calibrator search asks of the store and of the pipeline: which groups there are, and a solution on one.

Plain functions of a path or a group, so that a notebook can hand them to a widget, which knows neither.
"""

from __future__ import annotations

import atexit
import codecs
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.io import groups
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.settings import Settings, load_settings
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.subbands import SubbandIndex

_GRACE_S = 15.0
"""How long a process that is told to stop may take to stop what it has started (CASA), before it is killed."""
_LINES = 12
"""Most lines of output that are shown."""
# an interrupt is what makes a command stop cleanly, and kernels have their children ignore it
_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from dsa110_contimg.cli import main; main()"
)
# progress as on a terminal, though it goes into a pipe
_AS_TERMINAL = ("env", "TTY_COMPATIBLE=1", "NO_COLOR=1", "COLUMNS=100")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def groups_in(directory: str | Path, settings: Settings | None = None) -> tuple[SubbandGroup, ...]:
    """The groups of a directory, oldest first.

    Headers that the state database remembers are not read again; where there is no database, none is made.

    Raises
    ------
    EmptyInputError
        No subband files, or none that can be used.
    """
    settings = load_settings() if settings is None else settings
    index = SubbandIndex(open_database(settings.state_dir)) if settings.database.is_file() else None
    chunk = groups.Chunk(settings.chunk_duration)
    return groups.discover(Path(directory).expanduser(), chunk=chunk, index=index).groups


class Solving:
    """``dsa110 calibrate solve`` of one group, under way in a process of its own.

    It ends with this process at the latest.

    Attributes
    ----------
    command : what a person would type for the same.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.command = shlex.join(["dsa110", *arguments])
        self._cancelled = False
        self._result = tempfile.TemporaryFile()  # noqa: SIM115 (closed when it has been read)
        self._output, there = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*_AS_TERMINAL, sys.executable, "-c", _PROGRAM, *arguments, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=self._result,
                stderr=there,
                start_new_session=True,
            )
        finally:
            os.close(there)
        atexit.register(self.cancel)

    def follow(self, tell: Callable[[str], None]) -> list[dict[str, Any]]:
        """Wait for the end, and tell whenever there is more to see.

        Parameters
        ----------
        tell : is given the last lines of what a terminal would show.

        Returns
        -------
        The tables that were solved and registered: ``kind``, ``calibrator``, ``refant``, ``path``,
        ``flagged_fraction``, ``median_snr``.

        Raises
        ------
        CalibrationError
            It failed, or was cancelled; nothing is registered then.
        """
        shown = ""
        for shown in _screens(self._pieces()):
            tell(shown)
        status = self._process.wait()
        atexit.unregister(self.cancel)
        with self._result as stream:
            stream.seek(0)
            written = stream.read()
        if self._cancelled:
            raise CalibrationError("The solution was cancelled; what was registered before is as it was")
        if status:
            raise CalibrationError(shown.rpartition("error ")[2].strip() or f"The solution ended with status {status}")
        rows: list[dict[str, Any]] = json.loads(written)
        return rows

    def cancel(self) -> None:
        """Interrupt it, and kill what has not stopped after a while."""
        if self._process.poll() is not None:
            return
        self._cancelled = True
        for number, grace in ((signal.SIGINT, _GRACE_S), (signal.SIGKILL, None)):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(grace)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue
            else:
                return

    def _pieces(self) -> Iterator[str]:
        """Output as it comes."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with os.fdopen(self._output, "rb", buffering=0) as stream:
            while piece := stream.read(65536):
                yield decoder.decode(piece)


def _screens(pieces: Iterator[str]) -> Iterator[str]:
    """What a terminal would show after each piece of output: lines, the last of which is written over and over."""
    kept: list[str] = []
    line = ""
    for piece in pieces:
        for part in re.split(r"(\r?\n|\r)", _CONTROL.sub("", piece)):
            if part.endswith("\n"):
                kept, line = [*kept, line][-_LINES:], ""
            elif part == "\r":
                line = ""
            else:
                line += part
        yield "\n".join(text.rstrip() for text in [*kept, line] if text.strip())


def solve(group: SubbandGroup, settings: Settings | None = None) -> Solving:
    """Begin to convert, flag and solve one group, and register its tables; what is done already is not done again.

    Parameters
    ----------
    group : SubbandGroup
        One in which a calibrator crosses the meridian.
    settings : Settings, optional
        Whose directories to use; by default, as for everything else, those of the environment and `dsa110.toml`.

    Raises
    ------
    InputError
        The group has no files.
    """
    if not group.files:
        raise InputError("The group has no files to solve on", found=group.group_id)
    arguments = ["calibrate", "solve", group.group_id, "--input", str(Path(group.files[0].path).parent)]
    if settings is not None:
        places = {
            "--out": settings.output_dir,
            "--state-dir": settings.state_dir,
            "--scratch-dir": settings.scratch_dir,
        }
        arguments += [word for flag, place in places.items() for word in (flag, str(place))]
    return Solving(arguments)

"""The one door to CASA.

casatasks and casatools share a process badly: with python-casacore, with each other's log, with threads, and with a
home directory that they write to. Here a list of tasks is a value; it runs in one spawned child with its own working
directory, log, configuration and data, single-threaded, under a time limit, and dies with its parent. What goes wrong
inside comes back as `ExternalToolError`: exceptions, but also SEVERE messages, because several tasks swallow their own
exceptions and return as if nothing had happened.

Products are made under a temporary name beside their final one and renamed only after every task has succeeded, so a
table that was cut short never passes for a good one.

Run as a module, this file is the child.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dsa110_contimg.exceptions import CorruptFileError, ExternalToolError, InputError, OutputError
from dsa110_contimg.io import files
from dsa110_contimg.io.measures import measures_directory

HARMLESS_SEVERE: tuple[tuple[str, str], ...] = ()
"""SEVERE messages that are not failures: (regular expression of the message, why it is harmless)."""

_LOG_TAIL_LINES = 5
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class CasaTask:
    """One call of a CASA task, as a value.

    Attributes
    ----------
    name : str
        Name in casatasks, or one of `QUERIES`.
    kwargs : mapping
        Arguments. Files are `Path` (made absolute; those that the tasks do not make must exist); all else must be
        JSON. A prefix of several products, such as ``imagename``, is text, and absolute: the child works elsewhere.
    product : str
        Name of the argument whose path the task creates (``caltable``, ``outputvis``, ...); empty if none.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    product: str = ""

    @property
    def product_path(self) -> Path | None:
        """Final, absolute path of the product."""
        return Path(self.kwargs[self.product]).absolute() if self.product else None


def run_tasks(
    tasks: Sequence[CasaTask],
    *,
    workdir: Path,
    timeout_s: float = 1800.0,
    threads: int = 1,
    measures_cache: Path | None = None,
) -> list[Any]:
    """Run CASA tasks in order, all in one child process.

    Parameters
    ----------
    tasks : sequence of CasaTask
        A later task may use the product of an earlier one by its final path.
    workdir : Path
        Directory for the child's scratch and its log, which stays as ``casa-<first task>.log``; created if absent.
    timeout_s : float
        Limit for all tasks together (s). After it the child and what it started are killed.
    threads : int
        OpenMP threads of the child.
    measures_cache : Path, optional
        Where `measures_directory` keeps CASA's data; by default a directory of the user in temporary space.

    Returns
    -------
    list
        What each task returned: None, bool, numbers, text, lists and dicts; arrays as nested lists, a complex number
        as [real, imaginary].

    Raises
    ------
    InputError
        If an input does not exist; CorruptFileError if it exists and is not a CASA table where one is needed.
    OutputError
        If ``workdir`` or the directory of a product cannot be written.
    ExternalToolError
        If CASA is not installed, a task raises, logs a SEVERE message that is not in `HARMLESS_SEVERE`, makes no
        product, or the time is over. No product is left then, and earlier ones of the same name are untouched.
    """
    if not tasks:
        return []
    files.make_directory(workdir)
    _check_inputs(tasks)
    cache = measures_directory(measures_cache or _default_cache())
    rundir = Path(tempfile.mkdtemp(prefix=".casa-", dir=workdir.absolute()))
    partial = {final: _partial(final) for task in tasks if (final := task.product_path) is not None}
    try:
        for path in partial.values():
            files.remove(path)
        request = [{"name": t.name, "kwargs": _plain(t.kwargs, partial), "product": t.product} for t in tasks]
        (rundir / "request.json").write_text(json.dumps(request))
        (rundir / "casasiteconfig.py").write_text(_site_config(rundir, cache))
        (rundir / "home").mkdir()
        status = _run_child(tasks, rundir, timeout_s, threads)
        results = _read_answer(tasks, rundir, status)
        for final, path in partial.items():
            _put_in_place(path, final)
        return results
    finally:
        for path in partial.values():
            files.remove(path)
        _keep_log(rundir, tasks)


def import_uvfits(
    uvfits: Path, ms: Path, *, workdir: Path, timeout_s: float = 1800.0, measures_cache: Path | None = None
) -> None:
    """Convert a UVFITS file to a Measurement Set with CASA's ``importuvfits``.

    Raises
    ------
    ContimgError
        As `run_tasks`.
    """
    task = CasaTask("importuvfits", {"fitsfile": uvfits, "vis": ms}, product="vis")
    run_tasks([task], workdir=workdir, timeout_s=timeout_s, measures_cache=measures_cache)


# --------------------------------------------------------------------------------------------- before the child runs


def _partial(final: Path) -> Path:
    """Temporary name of a product, in the same directory."""
    return final.with_name(f".{final.name}.partial")


def _final_names(text: str) -> str:
    """Text of CASA's with the products' final names."""
    return re.sub(r"/\.([^/\"]+)\.partial\b", r"/\1", text)


def _check_inputs(tasks: Sequence[CasaTask]) -> None:
    """Seconds of start-up are saved, and a better message given, if what is not there is found here."""
    made: set[Path] = set()
    for task in tasks:
        product = task.product_path
        for name, value in task.kwargs.items():
            for path in _paths(value):
                if path.absolute() in made or path.absolute() == product:
                    continue
                if not path.exists():
                    raise InputError(f"CASA's {task.name} needs {name}", path=path, found="nothing")
                if name in ("vis", "gaintable") and not (path / "table.dat").is_file():
                    raise CorruptFileError(
                        f"CASA's {task.name} needs {name}",
                        path=path,
                        found="a directory without table.dat" if path.is_dir() else "a file",
                        expected="a CASA table (a directory with table.dat)",
                    )
        if product is not None:
            if not product.parent.is_dir() or not os.access(product.parent, os.W_OK):
                raise OutputError(
                    "CASA's product cannot be written",
                    path=product,
                    found="a directory that is not writable" if product.parent.is_dir() else "no such directory",
                    expected="a writable directory",
                )
            made.add(product)


def _paths(value: Any) -> list[Path]:
    if isinstance(value, Path):
        return [value]
    if isinstance(value, (list, tuple)):
        return [path for item in value for path in _paths(item)]
    return []


def _plain(value: Any, renamed: Mapping[Path, Path]) -> Any:
    """Arguments for JSON; paths absolute, products under their temporary names."""
    if isinstance(value, Path):
        return str(renamed.get(value.absolute(), value.absolute()))
    if isinstance(value, Mapping):
        return {key: _plain(item, renamed) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, renamed) for item in value]
    return value


def _default_cache() -> Path:
    """A directory of this user alone in temporary space; never the home directory."""
    directory = Path(tempfile.gettempdir()) / f"dsa110_contimg-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise OutputError("The data directory for CASA belongs to someone else", path=directory)
    return directory


def _site_config(rundir: Path, measures: Path) -> str:
    """What casaconfig executes at import; without it CASA asks for downloads and looks into the home directory."""
    values: dict[str, Any] = {
        "datapath": [str(measures)],
        "measurespath": str(measures),
        "measures_auto_update": False,
        "data_auto_update": False,
        "nogui": True,
        "nologger": True,
        "agg": True,
        "logfile": str(rundir / "casa.log"),
        "cachedir": str(rundir / "home"),
        "casaconfig_verbose": 0,
    }
    return "".join(f"{name} = {value!r}\n" for name, value in values.items())


# --------------------------------------------------------------------------------------------- around the child


def _environment(rundir: Path, threads: int) -> dict[str, str]:
    """The whole environment of the child: nothing of the caller's gets in, so that a run can be repeated elsewhere."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "PATH": os.defpath,
        "HOME": str(rundir / "home"),
        "TMPDIR": str(rundir),
        "LANG": "C.UTF-8",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry),
        "CASASITECONFIG": str(rundir / "casasiteconfig.py"),
        **{name: str(threads) for name in names},
    }


def _run_child(tasks: Sequence[CasaTask], rundir: Path, timeout_s: float, threads: int) -> int:
    """Start the child in a session of its own, wait for its exit status, and leave nothing of it behind."""
    command = [sys.executable, "-P", "-m", "dsa110_contimg.io.casa", str(rundir), str(os.getpid())]
    with (rundir / "output.txt").open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=rundir,
            env=_environment(rundir, threads),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            running = tasks[min(len(_results(rundir)), len(tasks) - 1)]
            found = f"{timeout_s:g} s without an end; {_log_tail(rundir)}"
            raise _failure(running, "ran out of time and was killed", found=found) from error
        finally:
            # the group outlives its leader if a task left a process of its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _results(rundir: Path) -> list[dict[str, Any]]:
    """What the child has left so far, one entry a finished task."""
    path = rundir / "answer.json"
    return list(json.loads(_final_names(path.read_text()))) if path.is_file() else []


def _read_answer(tasks: Sequence[CasaTask], rundir: Path, status: int) -> list[Any]:
    """What the tasks returned, or the error that the first failed one stands for."""
    done = _results(rundir)
    for task, entry in zip(tasks, done, strict=False):
        if entry["severe"]:
            raise _failure(task, "failed", found="; ".join(entry["severe"]))
        if not entry["made"]:
            raise _failure(task, "made no product", found=_log_tail(rundir), path=task.product_path)
    if status != 0 or len(done) < len(tasks):
        output = (rundir / "output.txt").read_text(errors="replace")
        if "No module named 'casa" in output:
            raise ExternalToolError("CASA is not installed", expected="pip install 'dsa110_contimg[casa]'")
        # the last unindented lines of a traceback are the exception; a crash has no traceback
        _, _, traceback = output.rpartition("Traceback (most recent call last):")
        message = " ".join(line.strip() for line in traceback.splitlines() if line[:1].strip())
        reason = f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else message or f"status {status}"
        raise _failure(tasks[min(len(done), len(tasks) - 1)], "failed", found=reason)
    return [entry["result"] for entry in done]


def _failure(task: CasaTask, what: str, *, found: str, path: Path | None = None) -> ExternalToolError:
    """An error that names the task and its own file."""
    if path is None:
        path = next((p for value in task.kwargs.values() for p in _paths(value)), None)
    return ExternalToolError(f"CASA's {task.name} {what}", path=path, found=_final_names(found[-1500:]))


def _log_tail(rundir: Path) -> str:
    """The last messages of the log, for errors that come without one."""
    log = rundir / "casa.log"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    told = [" ".join(line.split("\t")[1:]).strip() for line in lines if "####" not in line and line.count("\t") >= 3]
    return "the log ends with: " + " | ".join(told[-_LOG_TAIL_LINES:]) if told else "nothing in the log"


def _put_in_place(partial: Path, final: Path) -> None:
    """Rename a finished product over an earlier one. Its content reaches the disk before its name does."""
    files.sync(partial)
    if final.is_dir():
        # a directory cannot be renamed over another; the gap between the two renames has no product, never a half one
        old = final.with_name(f".{final.name}.old")
        files.remove(old)
        final.rename(old)
        partial.rename(final)
        files.remove(old)
    else:
        partial.rename(final)
    files.sync_directory(final.parent)


def _keep_log(rundir: Path, tasks: Sequence[CasaTask]) -> None:
    if (rundir / "casa.log").is_file():
        (rundir / "casa.log").replace(rundir.parent / f"casa-{tasks[0].name}.log")
    shutil.rmtree(rundir, ignore_errors=True)


# --------------------------------------------------------------------------------------------- inside the child


def _ut1_minus_utc(mjd_utc: float) -> float:
    """UT1 - UTC (s) by CASA's measures at a UTC date (MJD)."""
    from casatools import measures

    tool = measures()
    ut1 = tool.measure(tool.epoch("UTC", {"value": mjd_utc, "unit": "d"}), "UT1")
    return float((ut1["m0"]["value"] - mjd_utc) * 86400.0)


def _observatory(name: str) -> list[float]:
    """Longitude (deg), latitude (deg) and height (m, WGS84) of an observatory that CASA knows."""
    from casatools import measures

    tool = measures()
    where = tool.measure(tool.observatory(name), "WGS84")
    longitude, latitude = np.degrees([where["m0"]["value"], where["m1"]["value"]])
    return [float(longitude), float(latitude), float(where["m2"]["value"])]


def _summary(vis: str) -> dict[str, Any]:
    """What CASA reads from a Measurement Set: fields, directions (deg), channels (Hz), antennas, rows."""
    from casatools import msmetadata

    reader = msmetadata()
    reader.open(vis)
    try:
        n_fields = reader.nfields()
        directions = [reader.phasecenter(i) for i in range(n_fields)]
        return {
            "fields": reader.fieldnames(),
            "phase_centers_deg": [[float(np.degrees(d[k]["value"])) for k in ("m0", "m1")] for d in directions],
            "frames": [d["refer"] for d in directions],
            "frequencies_hz": [reader.chanfreqs(spw) for spw in range(reader.nspw())],
            "antennas": reader.antennanames(),
            "telescopes": reader.observatorynames(),
            "rows": int(reader.nrows()),
            "scans": reader.scannumbers(),
            "exposure_s": float(reader.exposuretime(int(reader.scannumbers()[0]))["value"]),
        }
    finally:
        reader.done()


QUERIES: dict[str, Callable[..., Any]] = {
    "measures.ut1_minus_utc": _ut1_minus_utc,
    "measures.observatory": _observatory,
    "msmetadata.summary": _summary,
}
"""Questions that CASA's tools answer and no task does; called like tasks."""


def _die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the thread that started us ends, however it ends; Linux only."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent ended before the child began")


def _json_safe(value: Any) -> Any:
    """What a task returned, in terms of JSON."""
    if isinstance(value, np.ndarray):
        return _json_safe(value.tolist())
    if isinstance(value, np.generic):
        return _json_safe(value.item())
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, Mapping):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_json_safe(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def severe_lines(log: str) -> list[str]:
    """SEVERE messages in a CASA log that are not in `HARMLESS_SEVERE`.

    Parameters
    ----------
    log : str
        Lines of ``time<TAB>priority<TAB>origin<TAB>message``.
    """
    severe = []
    for line in log.splitlines():
        parts = line.split("\t")
        if len(parts) >= 4 and parts[1].strip() == "SEVERE":
            message = " ".join(" ".join(parts[2:]).split())
            if not any(re.search(pattern, message) for pattern, _ in HARMLESS_SEVERE):
                severe.append(message)
    return severe


def _child(rundir: Path) -> None:
    """Run the tasks up to the first that fails. An exception ends the process; its traceback is the answer."""
    request = json.loads((rundir / "request.json").read_text())
    log = rundir / "casa.log"
    casatasks = importlib.import_module("casatasks")
    done = []
    for task in request:
        start = log.stat().st_size
        call = QUERIES.get(task["name"]) or getattr(casatasks, task["name"])
        result = _json_safe(call(**task["kwargs"]))
        with log.open("rb") as handle:
            handle.seek(start)
            severe = severe_lines(handle.read().decode(errors="replace"))
        made = not task["product"] or Path(task["kwargs"][task["product"]]).exists()
        done.append({"result": result, "severe": severe, "made": made})
        unfinished = rundir / "answer.json.partial"
        unfinished.write_text(json.dumps(done))
        unfinished.replace(rundir / "answer.json")
        if severe or not made:
            break


if __name__ == "__main__":
    _die_with_parent(int(sys.argv[2]))
    _child(Path(sys.argv[1]))

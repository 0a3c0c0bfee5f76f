"""The one door to shadeMS: its plots of a Measurement Set, where the program is installed.

A command is a value, built first and run after; each makes one picture of a known name.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dsa110_contimg.exceptions import ExternalToolError
from dsa110_contimg.io import files

PROGRAM = "shadems"
_AXES = (
    ("amplitude-uv", "Amplitude against uv distance", "UV", "amp"),
    ("phase-uv", "Phase against uv distance", "UV", "phase"),
    ("amplitude-frequency", "Amplitude against frequency", "FREQ", "amp"),
    ("amplitude-time", "Amplitude against time", "TIME", "amp"),
    ("real-imaginary", "Real against imaginary part", "real", "imag"),
)
_TAIL = 1500


@dataclass(frozen=True)
class Command:
    """One run of shadeMS.

    Attributes
    ----------
    arguments : all that follows the program's name.
    image : the PNG that it must make.
    title : of the picture.
    """

    arguments: tuple[str, ...]
    image: Path
    title: str


def is_installed() -> bool:
    """Whether the program is on the path."""
    return shutil.which(PROGRAM) is not None


def commands(path: Path, folder: Path, column: str = "DATA") -> tuple[Command, ...]:
    """The commands that plot a Measurement Set into a folder.

    Amplitude and phase against uv distance, amplitude against frequency and time, and the complex plane; coloured by
    the first antenna, cross-correlations that are not flagged.

    Parameters
    ----------
    path : Measurement Set
    folder : of the pictures
    column : DATA, CORRECTED_DATA or MODEL_DATA
    """
    made = []
    for name, title, x, y in _AXES:
        across = x if x.isupper() else f"{column}:{x}"
        axes = ("--xaxis", across, "--yaxis", f"{column}:{y}", "--colour-by", "ANTENNA1", "--no-lim-save")
        image = folder / f"shadems-{name}.png"
        made.append(Command((*axes, "--dir", str(folder), "--png", image.name, str(path)), image, title))
    return tuple(made)


def run(command: Command, *, timeout_s: float = 1800.0) -> Path:
    """Run it and return the picture.

    Raises
    ------
    ExternalToolError
        It is not installed, failed, ran out of time, or made no picture.
    """
    if not is_installed():
        raise ExternalToolError("shadeMS is not installed", expected="shadems of PyPI on the path")
    folder = files.make_directory(command.image.parent)
    files.remove(command.image)
    try:
        # it leaves a log file where it is started
        done = subprocess.run(
            [PROGRAM, *command.arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise ExternalToolError("shadeMS ran out of time", found=f"{timeout_s:.0f} s", expected="a picture") from error
    if done.returncode or not command.image.is_file():
        told = (done.stdout + done.stderr)[-_TAIL:].strip()
        raise ExternalToolError("shadeMS made no picture", path=command.image, found=f"{done.returncode}: {told}")
    return command.image

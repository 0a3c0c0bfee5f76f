"""The one door to WSClean: a command is a value, built first and run after.

What is known of it is put into the command, so that nobody has to remember: WSClean images and predicts field 0 alone
by default, a 24th of a drifting Measurement Set, and its ``-field all`` needs one phase centre; its temporary files go
next to the Measurement Set unless told otherwise; Debian's 3.1 spells the w-gridder ``-use-wgridder``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsa110_contimg.exceptions import ExternalToolError, InputError
from dsa110_contimg.io import files, ms

PROGRAM = "wsclean"
_SAME_DIRECTION_RAD = 5e-8  # 0.01 arcsec
_TAIL = 1500


@dataclass(frozen=True)
class Command:
    """One run of WSClean.

    Attributes
    ----------
    arguments : all that follows the program's name.
    images : FITS files that it must make.
    """

    arguments: tuple[str, ...]
    images: tuple[Path, ...]


def version() -> tuple[int, int]:
    """Major and minor version of the program on the path.

    Raises
    ------
    ExternalToolError
        It is not installed, or does not say its version.
    """
    if shutil.which(PROGRAM) is None:
        raise ExternalToolError("WSClean is not installed", expected="make system, or Debian's package wsclean")
    told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False, timeout=60).stdout
    found = re.search(r"WSClean version (\d+)\.(\d+)", told)
    if found is None:
        raise ExternalToolError("WSClean does not say its version", found=told[:200])
    return int(found.group(1)), int(found.group(2))


def require_one_center(path: Path) -> None:
    """Refuse a Measurement Set with several phase centres.

    Raises
    ------
    InputError
        WSClean would image the first field alone, 1 of 24, without a word.
    """
    with ms.opened(path / "FIELD") as sub:
        directions = np.asarray(sub.getcol("PHASE_DIR")).reshape(sub.nrows(), 2)
    apart = np.hypot(np.angle(np.exp(1j * (directions[:, 0] - directions[0, 0]))), directions[:, 1] - directions[0, 1])
    if (apart > _SAME_DIRECTION_RAD).any():
        raise InputError(
            "WSClean images one phase centre, and of several fields the first alone; rephase to one centre first",
            path=path,
            found=f"{len(directions)} fields, up to {np.degrees(apart.max()):.3f} deg apart",
            expected="one phase centre (convert with phase_center midpoint)",
        )


def dirty_command(
    path: Path, name: Path, *, n_pixels: int, cell_arcsec: float, column: str = "DATA", more: Sequence[str] = ()
) -> Command:
    """The command that makes a dirty Stokes I image with natural weights.

    Parameters
    ----------
    path : Path
        Measurement Set.
    name : Path
        What the images' names begin with.
    more : further arguments of WSClean.

    Raises
    ------
    InputError
        As `require_one_center`.
    ExternalToolError
        As `version`.
    """
    require_one_center(path)
    gridder = ("-use-wgridder",) if version() < (3, 2) else ("-gridder", "wgridder")
    arguments = ("-name", str(name), "-size", str(n_pixels), str(n_pixels), "-scale", f"{cell_arcsec}asec")
    fixed = ("-pol", "I", "-weight", "natural", "-niter", "0", "-data-column", column, "-temp-dir", str(name.parent))
    return Command((*arguments, *fixed, *gridder, *more, str(path)), (Path(f"{name}-dirty.fits"),))


def run(command: Command, *, threads: int = 2, timeout_s: float = 3600.0) -> tuple[Path, ...]:
    """Run it.

    Returns
    -------
    The images that it promised.

    Raises
    ------
    ExternalToolError
        It is not installed, failed, ran out of time, or did not make its images.
    """
    version()
    for image in command.images:
        files.make_directory(image.parent)
        files.remove(image)
    line = [PROGRAM, "-j", str(threads), *command.arguments]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ExternalToolError("WSClean ran out of time", found=f"{timeout_s:.0f} s", expected="an image") from error
    absent = [image for image in command.images if not image.is_file()]
    if done.returncode or absent:
        told = (done.stdout + done.stderr)[-_TAIL:].strip()
        raise ExternalToolError("WSClean failed", path=Path(command.arguments[-1]), found=f"{done.returncode}: {told}")
    return command.images

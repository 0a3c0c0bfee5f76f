"""The one door to WSClean: a command is a value, built first and run after.

What is known of it is put into the command, so that nobody has to remember: WSClean images and predicts field 0 alone
by default, a 24th of a drifting Measurement Set, and its ``-field all`` needs one phase centre; its temporary files go
next to the Measurement Set unless told otherwise; Debian's 3.1 spells the w-gridder ``-use-wgridder``.

`image` cleans. It asks for no padding and no inversion at a lower resolution: with the w-gridder neither is needed, a
robustness then means what CASA and `science.weighting` mean by it, and the image is right up to its edges, where
WSClean's defaults leave sources 4 % wrong (`tests/io/test_wsclean_imaging.py`). Data are reordered into a temporary
directory, so that the Measurement Set is read and not changed.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ExternalToolError, ImagingError, InputError, OutputError
from dsa110_contimg.io import files, ms
from dsa110_contimg.io.imagers import (
    SAFER_GAINS,
    Planes,
    Request,
    divergence,
    ended_early,
    has_diverged,
    noise,
    read_plane,
    require_sane,
)
from dsa110_contimg.options import ImageOptions

PROGRAM = "wsclean"
_SAME_DIRECTION_RAD = 5e-8  # 0.01 arcsec
_TAIL = 1500
_NOISE = re.compile(r"standard deviation of background noise: ([\d.e+-]+) (\S*Jy)")
_UNITS = {"KJy": 1e3, "Jy": 1.0, "mJy": 1e-3, "µJy": 1e-6, "nJy": 1e-9}
_PLANES_ON_DISK = 10
_REORDERED_BYTES = 8 + 8 + 4
"""Of each visibility: data, model and weight."""


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
    arguments = ("-name", str(name), "-size", str(n_pixels), str(n_pixels), "-scale", f"{cell_arcsec}asec")
    fixed = ("-pol", "I", "-weight", "natural", "-niter", "0", "-data-column", column, "-temp-dir", str(name.parent))
    return Command((*arguments, *fixed, *_gridder(), *more, str(path)), (Path(f"{name}-dirty.fits"),))


def clean_command(request: Request, name: Path, *, gains: tuple[float, float] | None = None) -> Command:
    """The command that makes the image of a request.

    Parameters
    ----------
    request : Request
    name : Path
        What the images' names begin with. Its directory takes the temporary files.
    gains : float, float
        Minor and major gain, instead of the options'.

    Raises
    ------
    InputError
        Several phase centres (`require_one_center`).
    ExternalToolError
        As `version`.
    """
    for path in request.paths:
        require_one_center(path)
    options = request.options
    size, kinds, joint = str(options.n_pixels), ["dirty", "psf"], options.spectral_terms > 1
    arguments = ["-name", str(name), "-size", size, size, "-scale", f"{options.cell_arcsec}asec", "-padding", "1"]
    arguments += ["-no-small-inversion", *_gridder(), "-wgridder-accuracy", f"{options.accuracy:g}", "-pol"]
    arguments += [options.stokes, "-data-column", request.column, *_weighting(request)]
    arguments += ["-reorder", "-no-update-model-required", "-temp-dir", str(name.parent)]
    if request.memory_gb is not None:
        arguments += ["-abs-mem", f"{request.memory_gb:g}"]
    if options.max_iterations:
        arguments += _deconvolution(request, gains or (options.minor_gain, options.major_gain))
        kinds += ["model", "residual"]
    else:
        arguments += ["-niter", "0", "-make-psf"]
    images = tuple(Path(f"{name}{'-MFS' if joint else ''}-{kind}.fits") for kind in kinds)
    if joint:
        arguments += ["-channels-out", str(options.channel_groups), "-join-channels"]
    return Command((*arguments, *(str(path) for path in request.paths)), images)


def _gridder() -> tuple[str, ...]:
    return ("-use-wgridder",) if version() < (3, 2) else ("-gridder", "wgridder")


def _weighting(request: Request) -> list[str]:
    """Weights, cut and taper; a limit that is not set is not named."""
    options, (shortest, longest) = request.options, request.uv_lambda
    arguments = ["-weight", options.weighting]
    if options.weighting == "briggs":
        arguments.append(f"{options.robust:g}")
    if shortest > 0.0:
        arguments += ["-minuv-l", f"{shortest:g}"]
    if np.isfinite(longest):
        arguments += ["-maxuv-l", f"{longest:g}"]
    if options.uv_taper_arcsec:
        arguments += ["-taper-gaussian", f"{options.uv_taper_arcsec:g}asec"]
    return arguments


def _deconvolution(request: Request, gains: tuple[float, float]) -> list[str]:
    options = request.options
    cycles = options.max_major_cycles * (2 if gains == SAFER_GAINS else 1)
    arguments = ["-niter", str(options.max_iterations), "-nmiter", str(cycles)]
    arguments += ["-gain", f"{gains[0]:g}", "-mgain", f"{gains[1]:g}"]
    arguments += ["-auto-threshold", f"{options.threshold_sigma:g}"]
    if options.threshold_jy:
        arguments += ["-threshold", f"{options.threshold_jy:g}"]
    if options.spectral_terms > 1:
        arguments += ["-fit-spectral-pol", str(options.spectral_terms)]
    if options.deconvolver == "hogbom":
        arguments.append("-no-fast-subminor")
    if options.deconvolver == "multiscale":
        arguments.append("-multiscale")
        if options.scales_arcsec:
            pixels = (f"{scale / options.cell_arcsec:g}" for scale in options.scales_arcsec)
            arguments += ["-multiscale-scales", ",".join(pixels)]
    if request.mask is not None:
        arguments += ["-fits-mask", str(request.mask)]
    if options.mask == "auto":
        arguments += ["-auto-mask", f"{options.mask_sigma:g}"]
    return arguments


def image(request: Request, workdir: Path) -> Planes:
    """Make an image with WSClean.

    A deconvolution that diverges, or ends early (`io.imagers.ended_early`), is tried once more, with smaller gains.

    Parameters
    ----------
    request : Request
    workdir : Path
        A temporary directory is made in it and removed, whatever happens.

    Raises
    ------
    ImagingError
        Deconvolution diverged twice, or what was made is no image (`io.imagers.require_sane`).
    InputError
        Several phase centres.
    OutputError
        The disk is full, or must not be written.
    ExternalToolError
        WSClean is not installed, failed, was killed, or ran out of time.
    """
    version()
    options = request.options
    files.require_room(workdir, _room(request))
    try:
        with tempfile.TemporaryDirectory(prefix=".wsclean-", dir=workdir) as temporary:
            planes, dirty_peak, noise_then = _attempt(request, Path(temporary) / "first", None)
            if has_diverged(planes, dirty_peak) or ended_early(planes, noise_then):
                again, dirty_peak, _ = _attempt(request, Path(temporary) / "second", SAFER_GAINS)
                if has_diverged(planes, dirty_peak) or noise(again) < noise(planes):
                    planes = again
    except OSError as error:
        raise OutputError("WSClean's temporary directory cannot be made", path=workdir, found=error) from error
    if has_diverged(planes, dirty_peak):
        raise divergence(planes, dirty_peak, request.paths[0])
    require_sane(planes, options)
    return planes


def _attempt(request: Request, name: Path, gains: tuple[float, float] | None) -> tuple[Planes, float, float]:
    """The planes, the peak of the dirty image, and the noise that the last thresholds were computed from."""
    command = clean_command(request, name, gains=gains)
    told = _told(command, request.options.threads, request.timeout_s)
    images = dict(zip(("dirty", "psf", "model", "residual"), command.images, strict=False))
    estimates = _NOISE.findall(told)
    noise_then = float(estimates[-1][0]) * _UNITS[estimates[-1][1]] if estimates else 0.0
    planes, dirty_peak = _read(images, request.options)
    if request.options.spectral_terms > 1:
        planes = replace(planes, slope=_slope(name, request.options))
    return planes, dirty_peak, noise_then


def _slope(name: Path, options: ImageOptions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least-squares slopes through the models and the residuals of the channel groups, by their weights."""
    kinds = ("model", "residual") if options.max_iterations else ("dirty", "dirty")
    numbers = range(options.channel_groups)
    headers = [fits.getheader(_existing(Path(f"{name}-{k:04d}-psf.fits"))) for k in numbers]
    weights = np.array([float(header["WSCIMGWG"]) for header in headers])
    used = np.flatnonzero(weights > 0.0)
    if len(used) < options.spectral_terms:
        raise ImagingError(
            "Too little of the band has data for so many spectral terms",
            found=f"{len(used)} of {options.channel_groups} channel groups",
            expected=f"{options.spectral_terms} (spectral_terms), or fewer terms",
        )
    frequencies = np.array([float(headers[k]["CRVAL3"]) for k in used])
    x = frequencies / np.average(frequencies, weights=weights[used]) - 1.0
    factors = weights[used] * x / (weights[used] * x**2).sum()
    out = []
    for kind in kinds:
        total = np.zeros((options.n_pixels, options.n_pixels), np.float32)
        for k, factor in zip(used, factors, strict=True):
            total += np.float32(factor) * read_plane(Path(f"{name}-{k:04d}-{kind}.fits"), options.n_pixels)
        out.append(total)
    if not options.max_iterations:
        out[0] = np.zeros_like(out[0])
    return out[0], out[1]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ExternalToolError("WSClean did not make the image of a channel group", path=path, expected="a file")
    return path


def _room(request: Request) -> int:
    """Bytes that the images and the reordered data take, about."""
    values = 0
    for path in request.paths:
        with ms.opened(path) as main:
            values += main.nrows() * int(np.prod(main.getcell(request.column, 0).shape)) if main.nrows() else 0
    options = request.options
    images = options.channel_groups + 1 if options.spectral_terms > 1 else 1
    return images * _PLANES_ON_DISK * 4 * options.n_pixels**2 + _REORDERED_BYTES * values


def _read(paths: dict[str, Path], options: ImageOptions) -> tuple[Planes, float]:
    """The planes, and the peak of the dirty image."""
    header = fits.getheader(paths["psf"])
    dirty, psf = (read_plane(paths[kind], options.n_pixels) for kind in ("dirty", "psf"))
    model, residual, minor, major = np.zeros_like(dirty), dirty, 0, 0
    if "model" in paths:
        model, residual = (read_plane(paths[kind], options.n_pixels) for kind in ("model", "residual"))
        last = fits.getheader(paths["residual"])
        minor, major = int(last.get("WSCMINOR", 0)), int(last.get("WSCMAJOR", 0))
    beam = (float(header.get("BMAJ", 0.0)), float(header.get("BMIN", 0.0)), float(header.get("BPA", 0.0)))
    program = "WSClean " + ".".join(str(number) for number in version())
    return Planes(model, residual, psf, beam, minor, major, program), float(np.abs(dirty).max())


def run(command: Command, *, threads: int = 2, timeout_s: float = 3600.0) -> tuple[Path, ...]:
    """Run it.

    Returns
    -------
    The images that it promised.

    Raises
    ------
    ExternalToolError
        It is not installed, failed, was killed, ran out of time, or did not make its images.
    OutputError
        The disk is full.
    """
    _told(command, threads, timeout_s)
    return command.images


def _told(command: Command, threads: int, timeout_s: float) -> str:
    """Run it, and return what it printed."""
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
        if "No space left" in told:
            raise OutputError("WSClean has no room on the disk", path=command.images[0].parent, found=told)
        if done.returncode < 0:
            number = signal.Signals(-done.returncode)
            raise ExternalToolError(
                "WSClean was killed",
                path=Path(command.arguments[-1]),
                found=f"signal {number.value} ({number.name})",
                expected="an end of its own; a SIGKILL that nobody sent is memory that ran out: set a limit for it",
            )
        raise ExternalToolError("WSClean failed", path=Path(command.arguments[-1]), found=f"{done.returncode}: {told}")
    return done.stdout

"""CASA's tclean, asked as the other imagers are.

What is known of it is put into the call:

- It takes frequencies of the frame TOPO to LSRK before it grids, whatever ``outframe`` says, and stretches the sky by
  the velocity of the observatory, 1e-4. It is shown a copy of links whose frequencies say LSRK, and grids them as
  they are; so it cannot change the Measurement Set either.
- Its w-projection takes the nearest of the few places at which it has sampled its kernel, a phase error of a
  visibility that goes as the offset of a source in images. It loses 2 % of a source at four fifths of the way to the
  edge, and strews 6 mJy over the image of five sources of 0.3 to 1 Jy; 3 and 2 mJy in an image two and two and a half
  times as wide (`tests/stages/test_imagers.py`). The image is made two and a
  quarter times as wide and cut.
- It counts the density of weights in the cells of that image. Where its noise and beam are to be those of the others,
  it is given imaging weights as natural ones (`science.weighting.weighed`).
- Its threshold in sigma holds for the whole run: first down to where the mask is made, all over the image that is
  kept, then inside the components that were found, as the others do. Its sigma is that of the wider image, a seventh
  less where the noise is of a bright source's errors: the threshold is scaled.
- Its Clark deconvolution diverges where sidelobes are high, as those of arms of antennas are: components are found by
  Hogbom's.
- Its primary beam is not asked for.
- Its Taylor terms (mtmfs) are those of a polynomial about the reference frequency. What is handed on is the mean over
  the band and the least-squares slope, as the other imagers give them, by the moments of the band that stand in the
  peaks of the spectral point spread functions.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy import fft
from scipy.constants import speed_of_light

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError, InputError, OutputError
from dsa110_contimg.io import casa, files, ms
from dsa110_contimg.io.imagers import (
    SAFER_GAINS,
    Planes,
    Request,
    divergence,
    has_diverged,
    read_plane,
    require_sane,
    robust_noise,
)
from dsa110_contimg.options import ImageOptions

_COLUMNS = {"DATA": "data", "CORRECTED_DATA": "corrected", "MODEL_DATA": "model"}
_WIDER = 2.25
_W_LIMIT_RAD = 0.3
"""Phase that a w-term may have in the corner of an image that is gridded without: a few per cent of a source there."""
_LSRK = 1
_SCALES = (0.0, 1.0, 3.0)
"""Of multiscale, in beams, where none are given."""
_ROUNDS = 4
_SETTLED = 0.03
"""The noise of what is kept over that of the whole, found again this well, is taken as known."""
_PLANES_ON_DISK = 16
_NO_BEAM = {"mosaic", "awproject"}


def image(request: Request, workdir: Path) -> Planes:
    """Make an image with tclean.

    A deconvolution that diverges is tried once more, with smaller gains.

    Parameters
    ----------
    request : Request
    workdir : Path
        A temporary directory is made in it and removed, whatever happens.

    Raises
    ------
    ImagingError
        The gridder does not serve these data (`require_gridder`), deconvolution diverged twice, or what was made is no
        image (`io.imagers.require_sane`).
    OutputError
        The disk is full, or must not be written.
    ExternalToolError
        CASA is not installed, failed, or ran out of time.
    """
    options = request.options
    require_gridder(request)
    files.require_room(workdir, options.spectral_terms * _PLANES_ON_DISK * 4 * wider(options.n_pixels) ** 2)
    try:
        with tempfile.TemporaryDirectory(prefix=".tclean-", dir=workdir.absolute()) as temporary:
            shown = [_linked(path.absolute(), Path(temporary)) for path in request.paths]
            for attempt, gains in enumerate(((options.minor_gain, options.major_gain), SAFER_GAINS)):
                prefix = Path(temporary) / f"image{attempt}"
                planes, dirty_peak = _make(request, shown, prefix, gains)
                if not has_diverged(planes, dirty_peak):
                    require_sane(planes, options)
                    return planes
    except OSError as error:
        raise OutputError("There is no room to image in", path=workdir, found=error) from error
    raise divergence(planes, dirty_peak, request.paths[0])


def wider(n_pixels: int) -> int:
    """The even size that tclean is asked for, a product of small primes."""
    size = int(np.ceil(_WIDER * n_pixels))
    while size % 2 or fft.next_fast_len(size, real=True) != size:
        size += 1
    return size


def require_gridder(request: Request) -> None:
    """Refuse a gridder that does not serve these data.

    Raises
    ------
    ImagingError
        A gridder without w-terms where they matter, or one that needs a primary beam that CASA does not have.
    """
    gridder, options = request.options.tclean_gridder, request.options
    names = set()
    for path in request.paths:
        with ms.opened(path / "OBSERVATION") as sub:
            names |= {str(name) for name in sub.getcol("TELESCOPE_NAME")}
    if gridder in _NO_BEAM and telescope.TELESCOPE_NAME in names:
        raise ImagingError(
            f"tclean's gridder {gridder} needs a primary beam that CASA does not have",
            found=f"telescope {telescope.TELESCOPE_NAME}, for which mosaic takes an Airy disk at the phase centre, "
            "which the drifting beam is not, and awproject ends",
            expected="tclean_gridder wproject: the beam is corrected afterwards",
        )
    if gridder in ("standard", "mosaic"):
        corner = np.hypot(1.0, 1.0) * np.radians(options.n_pixels * options.cell_arcsec / 3600.0) / 2.0
        phase = 2.0 * np.pi * max(_longest_w(path) for path in request.paths) * (1.0 - np.sqrt(1.0 - corner**2))
        if phase > _W_LIMIT_RAD:
            raise ImagingError(
                f"tclean's gridder {gridder} leaves out w-terms, which matter here",
                found=f"a phase of up to {phase:.2g} rad in the corner of the image",
                expected=f"at most {_W_LIMIT_RAD} rad: a smaller image, or tclean_gridder wproject",
            )


def _longest_w(path: Path) -> float:
    """Largest w (wavelengths)."""
    with ms.opened(path / "SPECTRAL_WINDOW") as sub:
        highest = max(float(np.max(sub.getcell("CHAN_FREQ", row))) for row in range(sub.nrows()))
    with ms.opened(path) as main:
        w = np.asarray(main.getcol("UVW"))[:, 2] if main.nrows() else np.zeros(1)
    return float(np.abs(w).max() * highest / speed_of_light)


def _linked(path: Path, directory: Path) -> Path:
    """A Measurement Set of links to another, but for its spectral windows, which say LSRK."""
    copy = directory / f"{len(list(directory.iterdir()))}.ms"
    copy.mkdir()
    for item in path.iterdir():
        if item.name == "SPECTRAL_WINDOW":
            shutil.copytree(item, copy / item.name)
        else:
            (copy / item.name).symlink_to(item)
    with ms.opened(copy / "SPECTRAL_WINDOW", writable=True) as sub:
        sub.putcol("MEAS_FREQ_REF", np.full(sub.nrows(), _LSRK, np.int32))
    return copy


def _make(request: Request, shown: list[Path], prefix: Path, gains: tuple[float, float]) -> tuple[Planes, float]:
    """The planes, and the peak of the dirty image."""
    options, terms = request.options, request.options.spectral_terms
    call = arguments(request, shown, prefix)
    psfs = [f"psf{_term(k, terms)}" for k in range(2 * terms - 1)]
    residuals, models = ([f"{kind}{_term(k, terms)}" for k in range(terms)] for kind in ("residual", "model"))
    made = _run(request, [casa.CasaTask("tclean", {**call, "niter": 0})], prefix, (*psfs, *residuals)).planes
    psf, dirty = made[psfs[0]], made[residuals[0]]
    header = fits.getheader(_fits(prefix, psfs[0]))
    beam = (float(header.get("BMAJ", 0.0)), float(header.get("BMIN", 0.0)), float(header.get("BPA", 0.0)))
    moments = [float(made[name][options.n_pixels // 2, options.n_pixels // 2]) for name in psfs]
    made |= {name: np.zeros_like(dirty) for name in models}
    minor, major = 0, 0
    if options.max_iterations:
        steps = _clean(request, _depthless(request, call, gains, beam[0]), prefix, (*models, *residuals))
        made |= steps[-1].planes
        minor, major = (sum(getattr(step, kind) for step in steps) for kind in ("minor", "major"))
    model, residual, slope = made[models[0]], made[residuals[0]], None
    if terms > 1:
        taylor = np.stack([made[name] for name in models])
        model, along = _mean_and_slope(taylor, moments)
        left = (made[residuals[1]] - np.float32(moments[1]) * residual) / np.float32(_spread(moments))
        slope = along, np.asarray(left, np.float32)
    program = f"CASA {version('casatasks')} tclean"
    return Planes(model, residual, psf, beam, minor, major, program, slope), float(np.abs(dirty).max())


def _term(k: int, terms: int) -> str:
    """What CASA appends to the name of a Taylor term."""
    return f".tt{k}" if terms > 1 else ""


def _spread(moments: list[float]) -> float:
    """Variance of x = f / f0 - 1 over the band, from the means of 1, x and x^2."""
    return moments[2] - moments[1] ** 2


def _mean_and_slope(
    taylor: NDArray[np.float32], moments: list[float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean over the band, and slope of the least-squares line, of sum T_k x^k; ``moments`` are the means of x^k."""
    mean = [moments[k] for k in range(len(taylor))]
    along = [(moments[k + 1] - moments[1] * moments[k]) / _spread(moments) for k in range(len(taylor))]
    first, second = (np.tensordot(np.array(f, np.float32), taylor, axes=1) for f in (mean, along))
    return np.asarray(first, np.float32), np.asarray(second, np.float32)


def arguments(request: Request, paths: list[Path], prefix: Path) -> dict[str, Any]:
    """What every call of tclean has, but for how deep it cleans.

    Parameters
    ----------
    request : Request
    paths : Measurement Sets as tclean is to see them.
    prefix : Path
        What the images' names begin with.
    """
    options, size = request.options, wider(request.options.n_pixels)
    if request.column not in _COLUMNS:
        raise InputError("tclean does not image this column", found=request.column, expected=sorted(_COLUMNS))
    given: dict[str, Any] = {
        "vis": paths,
        "imagename": str(prefix.absolute()),
        "datacolumn": _COLUMNS[request.column],
        "imsize": [size, size],
        "cell": [f"{options.cell_arcsec}arcsec"],
        "stokes": options.stokes,
        "specmode": "mfs",
        "gridder": options.tclean_gridder,
        "weighting": options.weighting,
        "robust": options.robust,
        "uvrange": options.uvrange,
        "pblimit": -0.1,
        "restoration": False,
        "savemodel": "none",
        "interactive": False,
    }
    if options.spectral_terms > 1:
        given |= {"deconvolver": "mtmfs", "nterms": options.spectral_terms}
        # of our scale of frequencies, which tclean is told are LSRK
        given["reffreq"] = f"{request.reference_hz!r}Hz"
    if options.tclean_gridder in ("wproject", "awproject"):
        given["wprojplanes"] = -1
    if options.uv_taper_arcsec:
        given["uvtaper"] = [f"{options.uv_taper_arcsec}arcsec"]
    return given


def _depthless(
    request: Request, call: Mapping[str, Any], gains: tuple[float, float], beam_deg: float
) -> dict[str, Any]:
    """The call of a tclean that cleans after a dirty image was made, but for mask, depth and how long it may take."""
    options = request.options
    multiscale = options.deconvolver == "multiscale"
    base = {
        **call,
        "calcres": False,
        "calcpsf": False,
        "gain": gains[0],
        "threshold": options.threshold_jy,
        # a major cycle ends at this fraction of the peak, or at the sidelobes of the peak where they are higher
        "minpsffraction": 1.0 - gains[1],
        "usemask": "user",
    }
    if options.spectral_terms == 1:
        base["deconvolver"] = "multiscale" if multiscale else "hogbom"
    if multiscale:
        scales = options.scales_arcsec or tuple(times * beam_deg * 3600.0 for times in _SCALES)
        base["scales"] = [round(scale / options.cell_arcsec) for scale in scales]
    return base


def _clean(request: Request, base: Mapping[str, Any], prefix: Path, kinds: tuple[str, ...]) -> list[_Step]:
    """Clean, as deep as the options say in terms of the noise of what is kept of the image.

    CASA's sigma is of the whole of its wider image. What that is in ours is known of a residual that is there; it
    changes while sidelobes go, so the first depth is gone for until it stays.
    """
    options, first_term = request.options, _term(0, request.options.spectral_terms)
    given, found, residual = f"{prefix}.given", f"{prefix}.auto", _fits(prefix, f"residual{first_term}")
    _write_mask(request.mask, options, prefix)
    before = [casa.CasaTask("importfits", {"fitsimage": f"{given}.fits", "imagename": given})]
    afresh = casa.CasaTask("rmtables", {"tablenames": [f"{prefix}.mask"]})
    first = options.mask_sigma if options.mask == "auto" else options.threshold_sigma
    steps: list[_Step] = []
    excess = _excess(residual, options)
    for _ in range(_ROUNDS):
        if (left := _left(options, steps)) is None:
            return steps
        step = casa.CasaTask("tclean", {**base, **left, "mask": given, "nsigma": first * excess})
        steps.append(_run(request, [*before, step], prefix, kinds))
        last, excess = excess, _excess(residual, options)
        if abs(excess / last - 1.0) < _SETTLED:
            break
        before = [afresh]
    if options.mask == "auto" and (left := _left(options, steps)):
        model, marked = f"{prefix}.model{first_term}", "iif(IM0==0.0,0.0,1.0)"
        what = {"imagename": [model], "mode": "evalexpr", "expr": marked, "outfile": found}
        depth = {"mask": found, "nsigma": options.threshold_sigma * excess}
        deeper = casa.CasaTask("tclean", {**base, **left, **depth})
        steps.append(_run(request, [casa.CasaTask("immath", what), afresh, deeper], prefix, kinds))
    return steps


def _left(options: ImageOptions, steps: list[_Step]) -> dict[str, int] | None:
    """Iterations and major cycles that a further step may take, as tclean calls them; None if there are none."""
    minor = options.max_iterations - sum(step.minor for step in steps)
    major = options.max_major_cycles - sum(step.major for step in steps)
    return {"niter": minor, "nmajor": major} if min(minor, major) > 0 else None


def _excess(residual: Path, options: ImageOptions) -> float:
    """Noise of what is kept of a residual over that of the whole."""
    whole = read_plane(residual, wider(options.n_pixels))
    noise = robust_noise(whole)
    return robust_noise(_cut(whole, options)) / noise if noise > 0.0 else 1.0


def _write_mask(mask: Path | None, options: ImageOptions, prefix: Path) -> None:
    """The mask, or all of the image that is kept, on tclean's own, wider grid: what lies beyond nobody else cleans."""
    n, size = options.n_pixels, wider(options.n_pixels)
    inside = slice((size - n) // 2, (size - n) // 2 + n)
    whole = np.zeros((1, 1, size, size), np.float32)
    whole[0, 0, inside, inside] = True if mask is None else read_plane(mask, n) != 0.0
    header = fits.getheader(_fits(prefix, f"psf{_term(0, options.spectral_terms)}"))
    fits.writeto(f"{prefix}.given.fits", whole, header)


@dataclass(frozen=True)
class _Step:
    """Some of the planes that tclean left, cut to the size that was asked for, and the cycles that it took."""

    planes: dict[str, NDArray[np.float32]]
    minor: int
    major: int


def _run(request: Request, tasks: list[casa.CasaTask], prefix: Path, kinds: tuple[str, ...]) -> _Step:
    options = request.options
    export = [
        casa.CasaTask(
            "exportfits",
            {"imagename": f"{prefix}.{kind}", "fitsimage": str(_fits(prefix, kind)), "overwrite": True},
        )
        for kind in kinds
    ]
    results = casa.run_tasks(
        [*tasks, *export], workdir=prefix.parent, timeout_s=request.timeout_s, threads=options.threads
    )
    planes = {kind: _cut(read_plane(_fits(prefix, kind), wider(options.n_pixels)), options) for kind in kinds}
    done = [result for result in results if isinstance(result, dict)]
    minor, major = (sum(int(result.get(name, 0)) for result in done) for name in ("iterdone", "nmajordone"))
    return _Step(planes, minor, major)


def _fits(prefix: Path, kind: str) -> Path:
    return Path(f"{prefix}.{kind}.fits")


def _cut(plane: NDArray[np.float32], options: ImageOptions) -> NDArray[np.float32]:
    first = (len(plane) - options.n_pixels) // 2
    return np.ascontiguousarray(plane[first : first + options.n_pixels, first : first + options.n_pixels])

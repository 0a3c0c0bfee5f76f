"""What imagers outside this package are asked, and what they give: one question and one answer for all of them.

The answer holds no beam and no restored image: the stage fits the one and makes the other in the same way for all
imagers, so that a flux does not depend on whose Gaussian was fitted to the point spread function.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ExternalToolError, ImagingError
from dsa110_contimg.options import ImageOptions

SAFER_GAINS = (0.05, 0.5)
"""Minor and major gain of the second try of a deconvolution that diverged, or ended early."""
_SETTLED = 0.9
"""Noise that is below this times what it was when thresholds were computed has not settled."""
_MAD_TO_SIGMA = 1.482602218505602


@dataclass(frozen=True)
class Request:
    """One image, of Measurement Sets of one phase centre.

    Attributes
    ----------
    paths : Measurement Sets; the spectral windows of an observation may stand in one each.
    options : size, pixels, weights and depth.
    column : of the data.
    mask : FITS image of the same grid, not 0 where components may be; None where the imager makes its own.
    uv_lambda : shortest and longest projected baseline (wavelengths).
    memory_gb : about what the program may use; None where it may use all.
    timeout_s : after which it is ended.
    reference_hz : weighted mean frequency, about which tclean expands spectra; 0 where they are not asked for.
    """

    paths: tuple[Path, ...]
    options: ImageOptions
    column: str = "DATA"
    mask: Path | None = None
    uv_lambda: tuple[float, float] = (0.0, float("inf"))
    memory_gb: float | None = None
    timeout_s: float = 7200.0
    reference_hz: float = 0.0


@dataclass(frozen=True)
class Planes:
    """What an imager made; planes are ``[y, x]``, y north and x west, phase centre at pixel n // 2.

    Attributes
    ----------
    model : (n, n) Jy/pixel.
    residual : (n, n) Jy/beam; the dirty image where nothing was deconvolved.
    psf : (n, n), peak 1.
    beam_deg : FWHM of the major and minor axis, position angle (deg), as the program fitted it.
    iterations, major_cycles : what deconvolution took.
    program : name and version.
    slope : model (Jy/pixel) and residual (Jy/beam) of the least-squares slope over (f - f0) / f0, f0 the weighted mean
        frequency; None where spectra were not asked for. Model and residual are then means over the band, too.
    """

    model: NDArray[np.float32]
    residual: NDArray[np.float32]
    psf: NDArray[np.float32]
    beam_deg: tuple[float, float, float]
    iterations: int
    major_cycles: int
    program: str
    slope: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


def read_plane(path: Path, n_pixels: int) -> NDArray[np.float32]:
    """The one plane of a FITS image.

    Raises
    ------
    ExternalToolError
        It cannot be read, or is of another size.
    """
    try:
        plane = np.squeeze(np.asarray(fits.getdata(path), np.float32))
    except (OSError, ValueError, TypeError) as error:
        raise ExternalToolError("The imager left an image that cannot be read", path=path, found=error) from error
    if plane.shape != (n_pixels, n_pixels):
        raise ExternalToolError(
            "The imager made an image of another size", path=path, found=plane.shape, expected=(n_pixels, n_pixels)
        )
    return np.ascontiguousarray(plane)


def require_sane(planes: Planes, options: ImageOptions) -> None:
    """Refuse planes that hold no image.

    Raises
    ------
    ImagingError
        Pixels that are not finite, a point spread function that does not peak in the centre, or a beam that is no
        beam, is smaller than a pixel or larger than the image.
    """
    for name in ("psf", "residual", "model"):
        strange = int((~np.isfinite(getattr(planes, name))).sum())
        if strange:
            raise ImagingError(
                f"{planes.program} made an image with pixels that are not finite",
                found=f"{strange} in the {name}",
                expected="none: look for visibilities that are NaN, or all flagged",
            )
    n = options.n_pixels
    peak = float(planes.psf[n // 2, n // 2])
    if not abs(peak - 1.0) < 0.01 or planes.psf.max() > peak * 1.01:
        raise ImagingError(
            f"{planes.program} made a point spread function without its peak in the centre",
            found=f"{peak:.4g} there, at most {planes.psf.max():.4g}",
            expected="1",
        )
    major, minor, _ = planes.beam_deg
    cell, size = options.cell_arcsec / 3600.0, n * options.cell_arcsec / 3600.0
    if not cell < minor <= major < size:
        raise ImagingError(
            f"{planes.program} found no sane beam",
            found=f"{major * 3600:.4g} x {minor * 3600:.4g} arcsec",
            expected=f"between a pixel of {options.cell_arcsec:g} arcsec and the image of {size:.3g} deg",
        )


def has_diverged(planes: Planes, dirty_peak_jy: float) -> bool:
    """Whether deconvolution left a residual with a peak above that of the dirty image, or no numbers."""
    if not planes.iterations:
        return False
    return not (np.isfinite(planes.model).all() and float(np.abs(planes.residual).max()) <= dirty_peak_jy)


def ended_early(planes: Planes, noise_then_jy: float) -> bool:
    """Whether deconvolution ended at thresholds that were computed from much more than the noise that is left.

    A threshold in sigma of a residual full of sidelobes is far above the noise that is left when these are gone.
    WSClean ends for good at the first such threshold that a major cycle reaches.

    Parameters
    ----------
    planes : Planes
    noise_then_jy : robust rms of the residual that the last thresholds were computed from; 0 if not known.
    """
    return bool(planes.iterations) and noise(planes) < _SETTLED * noise_then_jy


def noise(planes: Planes) -> float:
    """Robust rms of the residual (Jy/beam)."""
    return robust_noise(planes.residual)


def robust_noise(plane: NDArray[np.float32]) -> float:
    """1.4826 times the median absolute deviation from the median."""
    return float(_MAD_TO_SIGMA * np.median(np.abs(plane - np.median(plane))))


def divergence(planes: Planes, dirty_peak_jy: float, path: Path) -> ImagingError:
    """The error of a deconvolution that diverged with smaller gains too."""
    return ImagingError(
        f"Deconvolution by {planes.program} diverged, and again with smaller gains",
        path=path,
        found=f"residual peak {float(np.abs(planes.residual).max()):.4g} Jy/beam, dirty {dirty_peak_jy:.4g}",
        expected="a residual that falls: look for bad calibration or interference",
    )

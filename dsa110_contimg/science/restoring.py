"""The restoring beam, and the restored image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, optimize

from dsa110_contimg.exceptions import ImagingError

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_FIT_ABOVE = 0.5
"""The fit takes the part of the main lobe above this: the core decides a point source's peak, the skirts do not."""


@dataclass(frozen=True)
class Beam:
    """A Gaussian beam.

    Attributes
    ----------
    major, minor : FWHM (rad).
    angle : position angle of the major axis, north through east (rad), in [0, pi).
    """

    major: float
    minor: float
    angle: float

    def quadratic(self) -> NDArray[np.float64]:
        """(2, 2) matrix Q of exp(-d^T Q d), d = (east, north) offset (rad)."""
        axis = np.array([np.sin(self.angle), np.cos(self.angle)])
        across = np.array([axis[1], -axis[0]])
        k = 4.0 * np.log(2.0)
        return np.asarray(k * (np.outer(axis, axis) / self.major**2 + np.outer(across, across) / self.minor**2))

    def value(self, east: NDArray[np.float64], north: NDArray[np.float64]) -> NDArray[np.float64]:
        """Response at an offset (rad); 1 at the centre."""
        q = self.quadratic()
        return np.asarray(np.exp(-(q[0, 0] * east**2 + 2 * q[0, 1] * east * north + q[1, 1] * north**2)))


def fit_beam(psf: NDArray[np.float32], cell_rad: float) -> Beam:
    """Gaussian fitted to the main lobe of a point spread function.

    Least squares over the connected pixels about the centre that are above half of the peak; the amplitude is held
    at 1, so the restored peak of a point source is its flux density.

    Parameters
    ----------
    psf : (n, n)
        ``[y, x]`` (north, west), peak 1 at pixel n // 2.
    cell_rad : float

    Raises
    ------
    ImagingError
        The main lobe covers fewer pixels than a fit needs, or is not a peak.
    """
    n = len(psf)
    half = min(n // 2 - 1, 200)
    centre = slice(n // 2 - half, n // 2 + half + 1)
    cut = psf[centre, centre].astype(np.float64)
    labels, _ = ndimage.label(cut > _FIT_ABOVE)
    lobe = labels == labels[half, half]
    if not cut[half, half] > _FIT_ABOVE or lobe.sum() < 5:
        raise ImagingError(
            "The main lobe of the point spread function cannot be fitted",
            found=f"{int(lobe.sum())} pixels above half of the peak",
            expected="at least 5: a smaller cell",
        )
    y, x = np.nonzero(lobe)
    north, east = (y - half).astype(float), -(x - half).astype(float)
    values = cut[lobe]

    def misfit(q: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.exp(-(q[0] * east**2 + 2 * q[1] * east * north + q[2] * north**2)) - values)

    start = np.log(2.0) * np.pi / lobe.sum()
    q_ee, q_en, q_nn = optimize.least_squares(misfit, [start, 0.0, start], x_scale=start).x
    curvature, axes = np.linalg.eigh(np.array([[q_ee, q_en], [q_en, q_nn]]))
    if not curvature[0] > 0.0:
        raise ImagingError("The point spread function has no peak", found=f"curvatures {curvature}")
    minor, major = 2.0 * np.sqrt(np.log(2.0) / curvature[::-1]) * cell_rad
    return Beam(float(major), float(minor), float(np.arctan2(axes[0, 0], axes[1, 0]) % np.pi))


def add_points(
    image: NDArray[np.float32],
    beam: Beam,
    cell_rad: float,
    places: tuple[NDArray[np.float64], NDArray[np.float64]],
    flux_jy: NDArray[np.float64],
) -> None:
    """Add point sources to a restored image in place: a beam of peak ``flux_jy`` at each (x, y), between pixels or not.

    Parameters
    ----------
    image : (n, n) ``[y, x]``
    places : x and y (source,), pixels from 0
    """
    half = int(np.ceil(5.0 * beam.major / FWHM_PER_SIGMA / cell_rad)) + 1
    n = len(image)
    for x, y, flux in zip(*places, flux_jy, strict=True):
        columns = np.arange(max(0, int(x) - half), min(n, int(x) + half + 2))
        rows = np.arange(max(0, int(y) - half), min(n, int(y) + half + 2))
        if columns.size and rows.size:
            east, north = -(columns[None, :] - x) * cell_rad, (rows[:, None] - y) * cell_rad
            image[np.ix_(rows, columns)] += (flux * beam.value(east, north)).astype(np.float32)


def restore(
    model: NDArray[np.float32], residual: NDArray[np.float32], beam: Beam, cell_rad: float, threads: int = 1
) -> NDArray[np.float32]:
    """Model (Jy/pixel) convolved with the beam (peak 1), plus residual (Jy/beam)."""
    half = int(np.ceil(5.0 * beam.major / FWHM_PER_SIGMA / cell_rad)) + 1
    offset = np.arange(-half, half + 1, dtype=np.float64) * cell_rad
    kernel = beam.value(-offset[None, :], offset[:, None])
    n = fft.next_fast_len(len(model) + 2 * half, real=True)
    product = fft.rfft2(model, s=(n, n), workers=threads)
    product *= fft.rfft2(kernel.astype(np.float32), s=(n, n), workers=threads)
    smooth = fft.irfft2(product, s=(n, n), workers=threads)[half : half + len(model), half : half + len(model)]
    return np.asarray(smooth + residual, dtype=np.float32)

"""What an image is worth: a few figures of its planes and of the fluxes in it, held against bounds.

A figure answers one question, so that a fault moves the figure it should: interference or a poor calibration the noise,
an unfinished deconvolution the peak of the residual, a wrong model the negative holes, a lost arm the beam, a wrong
scale the flux ratio, a wrong phase or frame the offset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from dsa110_contimg import telescope
from dsa110_contimg.bounds import ImageBounds
from dsa110_contimg.science.deconvolution import robust_rms
from dsa110_contimg.science.judging import LEVELS, Figure, Verdict
from dsa110_contimg.science.restoring import Beam

N_ANNULI = 6
"""Equal steps of radius from the centre to the edge; what is left in the corners is the seventh."""
HOLE_SIGMA = 6.0
"""Gaussian noise reaches this once in 10^9: never in the 2e5 beams of an image."""
NEAR_BEAMS = 10.0
"""Half the side of the box about the brightest source in which its artefacts are looked for (beams)."""
BRIGHT_SNR = 20.0
"""Signal to noise of the sources that tell scale and position, inside the half-power radius, not confused."""

_CONFUSED = 2
_FIT_DEC_DEG = 16.6
_EXPECTED_ARCSEC: Mapping[str, tuple[tuple[float, float], ...]] = {
    "natural": ((0.0, 69.9),),
    "uniform": ((0.0, 20.2),),
    "briggs": ((-2.0, 20.2), (0.0, 24.4), (0.5, 29.7), (2.0, 69.9)),
}
"""Geometric mean beam by weighting, and robustness, of the whole array at the declination above and 1.4 GHz."""


@dataclass(frozen=True)
class ImagePlanes:
    """What is judged.

    Attributes
    ----------
    restored, residual : (n, n) Jy/beam, ``[y, x]``, not beam corrected.
    beam : restoring beam (rad).
    cell : rad.
    thermal_noise_jy : radiometer equation for the weights used (Jy/beam); NaN if not known.
    expected_beam_rad : geometric mean FWHM (`expected_beam`); None where it is not known, and not asked for.
    """

    restored: NDArray[np.float32]
    residual: NDArray[np.float32]
    beam: Beam
    cell: float
    thermal_noise_jy: float
    expected_beam_rad: float | None


def expected_beam(weighting: str, robust: float, dec: float, frequency_hz: float) -> float | None:
    """Geometric mean FWHM (rad) that the whole array makes on the meridian; None for other weights, or too far south.

    Measured with all antennas at Dec 16.6 and 1.4 GHz (natural 74 by 66 arcsec, Briggs +0.5 44 by 20, Briggs 0 35 by
    17, uniform 29 by 14), between them linear in the logarithm. The array is flat: elsewhere its north-south extent is
    seen under the zenith distance z, and the beam is longer in that direction by 1 / cos z.

    Parameters
    ----------
    weighting : natural, uniform or briggs
    robust : of Briggs
    dec : rad
    frequency_hz : effective frequency
    """
    if weighting not in _EXPECTED_ARCSEC:
        return None
    at, arcsec = np.array(_EXPECTED_ARCSEC[weighting]).T
    size = math.exp(float(np.interp(robust, at, np.log(arcsec))))
    here, there = (math.cos(d - math.radians(telescope.LATITUDE_DEG)) for d in (dec, math.radians(_FIT_DEC_DEG)))
    if not here > 0.0:
        return None
    return math.radians(size / 3600.0) * math.sqrt(there / here) * telescope.REFERENCE_FREQUENCY_HZ / frequency_hz


def noise_by_annulus(residual: NDArray[np.float32]) -> NDArray[np.float64]:
    """Robust rms (Jy/beam) of the residual in `N_ANNULI` annuli from the centre to the edge, and in the corners."""
    n = len(residual)
    offset = (np.arange(n) - n // 2) / (n / 2)
    ring = np.minimum((np.hypot(offset[:, None], offset) * N_ANNULI).astype(np.int64), N_ANNULI)
    return np.array([robust_rms(residual[ring == k]) for k in range(N_ANNULI + 1)])


def image_figures(planes: ImagePlanes) -> dict[str, float]:
    """Figures of the planes alone; NaN where there is nothing to tell from.

    Returns
    -------
    dict
        ``noise_over_thermal`` (median of the annuli), ``noise_worst_annulus`` and ``noise_near_brightest`` (over that
        median), ``dynamic_range`` (peak over noise), ``beam_axis_ratio``, ``beam_size_ratio`` (geometric mean FWHM over
        the expected one), ``peak_residual_sigma``, ``deepest_negative_sigma`` (of the restored image), and
        ``negative_holes``, how many regions of it lie beyond `HOLE_SIGMA`.
    """
    rings, beam = noise_by_annulus(planes.residual), planes.beam
    noise = float(np.median(rings))
    found = {"noise_over_thermal": _ratio(noise, planes.thermal_noise_jy)}
    found |= {"noise_worst_annulus": _ratio(float(rings.max()), noise)}
    size = math.sqrt(beam.major * beam.minor)
    found |= {"beam_axis_ratio": _ratio(beam.major, beam.minor)}
    if planes.expected_beam_rad is not None:
        found |= {"beam_size_ratio": _ratio(size, planes.expected_beam_rad)}
    restored = np.nan_to_num(planes.restored)
    y, x = np.unravel_index(int(restored.argmax()), restored.shape)
    reach = math.ceil(NEAR_BEAMS * size / planes.cell)
    near = planes.residual[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
    found |= {
        "noise_near_brightest": _ratio(robust_rms(near), noise),
        "dynamic_range": _ratio(float(restored.max()), noise),
        "peak_residual_sigma": _ratio(float(np.nanmax(planes.residual)), noise),
        "deepest_negative_sigma": _ratio(float(-restored.min()), noise),
        "negative_holes": float(ndimage.label(restored < -HOLE_SIGMA * noise)[1]) if noise > 0 else math.nan,
    }
    return found


def flux_figures(photometry: pd.DataFrame, beam: Beam) -> dict[str, float]:
    """Figures of the fluxes measured in an image, medians over its bright sources; NaN without any.

    Parameters
    ----------
    photometry : DataFrame
        Columns of `stages.measure`.
    beam : of the image (rad)

    Returns
    -------
    dict
        ``median_flux_ratio`` to the catalogue, ``astrometric_offset_beams`` of the median offset vector.
    """
    signal = photometry["flux_raw_jy"] / photometry["local_noise_jy"]
    clear = (photometry["quality"].astype(int) & _CONFUSED) == 0
    bright = photometry.loc[(signal > BRIGHT_SNR) & (photometry["beam_response"] >= 0.5) & clear]
    beam_arcsec = math.degrees(math.sqrt(beam.major * beam.minor)) * 3600.0
    east, north = (float(bright[f"offset_{axis}_arcsec"].median()) for axis in ("ra", "dec"))
    return {
        "median_flux_ratio": float(bright["ratio"].median()),
        "astrometric_offset_beams": math.hypot(east, north) / beam_arcsec,
    }


def judge_image(
    planes: ImagePlanes,
    bounds: ImageBounds,
    *,
    photometry: pd.DataFrame | None = None,
    flagged_fraction: float | None = None,
) -> Verdict:
    """Hold an image against bounds.

    Parameters
    ----------
    planes : ImagePlanes
    bounds : ImageBounds
    photometry : DataFrame, optional
        Fluxes measured in it; without them neither scale nor positions are asked.
    flagged_fraction : float, optional
        Of the visibilities that it was made from; not asked without.

    Returns
    -------
    Verdict
        A figure that was asked and cannot be had is unknown, and an unknown image is not good.
    """
    values: Mapping[str, float] = image_figures(planes)
    if photometry is not None:
        values = {**values, **flux_figures(photometry, planes.beam)}
    if flagged_fraction is not None:
        values = {**values, "flagged_fraction": flagged_fraction}
    figures = tuple(_figure(name, value, bounds) for name, value in values.items())
    level = max((figure.level for figure in figures), key=LEVELS.index)
    return Verdict(level, figures, bounds.date.isoformat())


def _figure(name: str, value: float, bounds: ImageBounds) -> Figure:
    bound = bounds.image[name]
    return Figure("image", name, value, bound.level(value), bound)


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan

"""Fluxes at known positions, fitted to the visibilities themselves: no image, no deconvolution, no pixels.

The model of a field of N point sources is linear in their fluxes, V_k = sum_s S_s a_ks, with a the visibility of a
source of 1 Jy through the drifting beam, with its spectrum and with all that averaging loses. So the best fluxes are
those of one linear system, S = Re(A^H W A)^-1 Re(A^H W V), whose matrix holds what sidelobes of each source do to every
other and whose inverse is their covariance. It shares neither gridding nor CLEAN nor beam maps with the photometry of
images, which makes it a check on that.

The matrix is summed over blocks of visibilities by BLAS: N^2 real products for each of two parts of a sample. Conjugate
gradients with predictions would need no matrix, but each step costs two predictions, about twenty are needed, and the
covariance would be missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numba import njit, prange
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import InputError, MeasurementError
from dsa110_contimg.science.apparent import INDEX_PRIOR, MIN_RESPONSE, predict_sources
from dsa110_contimg.science.averaging import ImagingData, from_dataset
from dsa110_contimg.science.beam import half_power_radius
from dsa110_contimg.science.predict import EARTH_RATE, apparent_fluxes, pole, source_geometry
from dsa110_contimg.science.smearing import sinc
from dsa110_contimg.science.subtraction import PointSources, point_sources
from dsa110_contimg.science.threads import one_blas_thread

MAX_SOURCES = 500
"""More are better measured in an image: the cost goes with the square of the number."""

_BIN_HZ = 1.0e6
_EVEN_HZ = 100.0
_BLOCK_BYTES = 64_000_000
_PIECE = 2048
"""Parts of samples that are summed in single precision. Sums of a million are true to 1e-5, and chi-square, which is
the small difference of two of them, to 1e-4 where sources of Janskys are in the field."""
_SAME = 1e-4
"""Eigenvalues of the correlation matrix below this are of positions that the data do not tell apart."""


@dataclass(frozen=True)
class FluxFits:
    """Fluxes and how far they are to be believed.

    Attributes
    ----------
    table : DataFrame
        The columns of the positions, and: ``flux_jy`` (Jy at 1.4 GHz, corrected for beam and smearing),
        ``flux_error_jy`` (1 sigma, of noise alone), ``beam_response`` (rms over the data, with spectrum and smearing),
        ``correlation`` (the largest, of sign, of its flux's error with another's). NaN where the response is less than
        5 %, and the source is not fitted.
    covariance : (source, source) Jy^2; NaN where not fitted.
    chi_square : reduced, for the thermal noise of the telescope: above 1 by whatever the sources do not explain. The
        errors are scaled to 1. NaN for a telescope whose noise is not known.
    """

    table: pd.DataFrame
    covariance: NDArray[np.float64]
    chi_square: float


def fit_fluxes(
    visibilities: xr.Dataset | ImagingData,
    positions: pd.DataFrame,
    *,
    others: pd.DataFrame | None = None,
    averaging_loss: float = 0.003,
) -> FluxFits:
    """Fluxes of point sources at given positions by weighted least squares in the visibilities, all at once.

    Parameters
    ----------
    visibilities : corrected Visibilities view of one phase centre, or what imaging makes of it
        Stokes I is fitted, with natural weights.
    positions : DataFrame
        ``ra_deg``, ``dec_deg`` (ICRS); ``spectral_index``, or -0.7. A catalogue (`io.catalogs.COLUMNS`) will do. At
        most `MAX_SOURCES`.
    others : DataFrame, optional
        A catalogue of sources that are there besides, subtracted at their catalogued fluxes.
    averaging_loss : float
        Budget of channel averaging before the fit (`averaging.averaging_factors`). The model has the same loss, so the
        fluxes do not; more is faster.

    Raises
    ------
    InputError
        No positions, too many, or a column is missing.
    ImagingError
        Everything is flagged, or not finite.
    MeasurementError
        The beam sees none of the positions.
    """
    _require_positions(positions)
    data = visibilities if isinstance(visibilities, ImagingData) else _averaged(visibilities, averaging_loss)
    values = data.visibilities
    if others is not None:
        values = values - predict_sources(data, point_sources(others))
    index = positions["spectral_index"] if "spectral_index" in positions else np.full(len(positions), INDEX_PRIOR[0])
    ra, dec, alpha = (np.asarray(a, np.float64) for a in (positions["ra_deg"], positions["dec_deg"], index))
    unit = PointSources(np.radians(ra), np.radians(dec), np.ones(len(ra)), np.nan_to_num(alpha, nan=INDEX_PRIOR[0]))
    normal, along, energy, used = _normal_equations(data, values, unit)
    response = np.sqrt(np.diag(normal) / data.weights.sum(dtype=np.float64))
    seen = response >= MIN_RESPONSE
    if not seen.any():
        raise MeasurementError(
            "The beam sees none of the positions", found=f"responses up to {response.max():.3f}", expected=MIN_RESPONSE
        )
    inverse = _inverse(normal[np.ix_(seen, seen)])
    flux = inverse @ along[seen]
    variance = (energy - float(flux @ along[seen])) / max(2 * used - len(flux), 1)
    return _told(positions, (seen, response), flux, max(variance, 0.0) * inverse, variance / data.unit_variance)


def _require_positions(positions: pd.DataFrame) -> None:
    missing = [name for name in ("ra_deg", "dec_deg") if name not in positions]
    if missing:
        raise InputError("Positions lack a column", found=list(positions.columns), expected=missing)
    if not 0 < len(positions) <= MAX_SOURCES:
        raise InputError(
            "Fluxes cannot be fitted at so many positions", found=len(positions), expected=f"1 to {MAX_SOURCES}"
        )
    where = positions[["ra_deg", "dec_deg"]].to_numpy(np.float64)
    if not np.isfinite(where).all():
        raise InputError("A position is not finite", found=int((~np.isfinite(where)).any(axis=1).sum()), expected=0)


def _averaged(dataset: xr.Dataset, loss: float) -> ImagingData:
    diameter = float(dataset.attrs.get("dish_diameter", telescope.DISH_DIAMETER_M))
    return from_dataset(dataset, loss, half_power_radius(float(dataset["frequency"].mean()), diameter))


def _told(
    positions: pd.DataFrame,
    where: tuple[NDArray[np.bool_], NDArray[np.float64]],
    flux: NDArray[np.float64],
    covariance: NDArray[np.float64],
    chi_square: float,
) -> FluxFits:
    seen, response = where
    n = len(seen)
    whole = np.full((n, n), np.nan)
    whole[np.ix_(seen, seen)] = covariance
    error = np.sqrt(np.clip(np.diag(whole), 0.0, None))
    fluxes, strongest = np.full(n, np.nan), np.full(n, np.nan)
    fluxes[seen] = flux
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = whole / error[:, None] / error
    np.fill_diagonal(correlation, 0.0)
    correlation = np.nan_to_num(correlation)
    strongest[seen] = correlation[np.arange(n), np.abs(correlation).argmax(axis=1)][seen]
    table = positions.reset_index(drop=True).assign(
        flux_jy=fluxes, flux_error_jy=error, beam_response=response, correlation=strongest
    )
    return FluxFits(table, whole, float(chi_square))


def _inverse(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a positive matrix; positions that cannot be told apart share their flux (pseudo-inverse)."""
    size = np.sqrt(np.diag(normal))
    correlation = normal / size[:, None] / size
    return np.asarray(
        np.linalg.pinv((correlation + correlation.T) / 2, rcond=_SAME, hermitian=True) / size[:, None] / size
    )


# ---- normal equations ---------------------------------------------------------------------------------------------


def _normal_equations(
    data: ImagingData, values: NDArray[np.complex64], sources: PointSources
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, int]:
    """Re(A^H W A) (source, source), Re(A^H W V) (source,), sum w |V|^2, and how many samples have weight."""
    n = len(sources)
    centre, track = (data.phase_center_ra, data.phase_center_dec), data.track
    pointing = track.pointing_ra, track.pointing_dec
    lmn, offset = source_geometry(sources.ra, sources.dec, centre, pointing, float(track.mjd.mean()))
    lists = [c.frequencies for c in data.channels]
    frequencies, first = np.concatenate(lists), np.cumsum([0, *map(len, lists)])
    bins = np.linspace(frequencies.min(), frequencies.max(), max(2, round(float(np.ptp(frequencies)) / _BIN_HZ)))
    amplitude = apparent_fluxes(
        sources.flux_jy, sources.spectral_index, (sources.ra, sources.dec), pointing, bins,
        telescope.REFERENCE_FREQUENCY_HZ, track.primary_beam,
    )  # fmt: skip
    widths = np.array([[c.native_width_hz, c.factor] for c in data.channels])
    nearest = np.abs(frequencies[:, None] - bins).argmin(axis=1)
    normal, along, energy, used = np.zeros((n, n)), np.zeros(n), 0.0, 0
    for begin, end in _blocks(data.offsets, _BLOCK_BYTES // (8 * n)):
        low, high = int(data.offsets[begin]), int(data.offsets[end])
        columns = np.empty((high - low, 2, n), np.float32)
        root = np.sqrt(data.weights[low:high])
        _columns(
            (data.uvw[begin:end], data.time_index[begin:end], data.channels_index[begin:end]),
            data.offsets[begin : end + 1] - low,
            (frequencies, first, nearest, widths),
            (lmn, offset, amplitude),
            (pole(centre[1]), track.integration_s),
            root,
            columns,
        )
        flat = columns.reshape(-1, n)
        seen = (root * values[low:high]).view(np.float32)
        with one_blas_thread():
            for piece in range(0, len(flat), _PIECE):
                part = flat[piece : piece + _PIECE]
                normal += part.T @ part
                along += part.T @ seen[piece : piece + _PIECE]
        energy += float(np.square(seen, dtype=np.float64).sum())
        used += int(np.count_nonzero(root))
    return normal, along, energy, used


def _blocks(offsets: NDArray[np.int64], samples: int) -> list[tuple[int, int]]:
    """Runs of rows of about so many samples."""
    cuts = np.searchsorted(offsets, np.arange(0, offsets[-1], max(samples, 1)))
    edges = np.unique([*cuts, len(offsets) - 1])
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


@njit(cache=True, fastmath=True)
def _phasors(delay: NDArray[np.float64], frequency: float, re: NDArray[np.float32], im: NDArray[np.float32]) -> None:
    for s in range(len(delay)):
        turns = delay[s] * frequency
        angle = 2.0 * np.pi * (turns - np.floor(turns))
        re[s], im[s] = np.cos(angle), np.sin(angle)


@njit(cache=True, fastmath=True)
def _write_and_step(
    root: float,
    here: NDArray[np.float32],
    phasor: tuple[NDArray[np.float32], NDArray[np.float32]],
    step: tuple[NDArray[np.float32], NDArray[np.float32]],
    left: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Both parts of one sample of every source; the phasors move on to the next channel."""
    (re, im), (step_re, step_im) = phasor, step
    for s in range(len(re)):
        a = np.float32(root) * here[s] * left[s]
        out[0, s] = a * re[s]
        out[1, s] = a * im[s]
        turned = re[s] * step_re[s] - im[s] * step_im[s]
        im[s] = re[s] * step_im[s] + im[s] * step_re[s]
        re[s] = turned


@njit(parallel=True, cache=True, fastmath=True)
def _columns(
    rows: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]],
    offsets: NDArray[np.int64],
    channels: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
    sources: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]],
    turning: tuple[NDArray[np.float64], float],
    root: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Visibilities of sources of 1 Jy times the roots of the weights, into ``out`` (sample, part, source).

    ``rows``: uvw (m), time, list of channels; ``channels``: all lists one after the other, where each begins, bins of
    the amplitudes, native width (Hz) and factor by list; ``sources``: l m n - 1, offset from the pointing (time,
    source, 3), amplitude (time, bin, source); ``turning``: the pole, and the length of an integration (s).
    """
    uvw, time, which = rows
    frequencies, first, bins, widths = channels
    lmn, offset, amplitude = sources
    axis, seconds = turning
    n = len(lmn)
    for row in prange(len(time)):
        left, delay = np.empty(n, np.float32), np.empty(n)
        re, im, step_re, step_im = np.empty((4, n), np.float32)
        t, base, end = time[row], first[which[row]], first[which[row] + 1]
        u, v, w = uvw[row]
        rate = (axis[1] * w - axis[2] * v, axis[2] * u - axis[0] * w, axis[0] * v - axis[1] * u)
        width, factor = widths[which[row]]
        middle = 0.5 * (frequencies[base] + frequencies[end - 1])
        for s in range(n):
            dl, dm, dn = offset[t, s]
            delay[s] = (u * lmn[s, 0] + v * lmn[s, 1] + w * lmn[s, 2]) / speed_of_light
            turn = EARTH_RATE * (rate[0] * dl + rate[1] * dm + rate[2] * dn) * middle / speed_of_light * seconds
            kept = sinc(turn) * sinc((u * dl + v * dm + w * dn) / speed_of_light * width)
            left[s] = kept * sinc(factor * delay[s] * width) / sinc(delay[s] * width)
        step = frequencies[base + 1] - frequencies[base] if end - base > 1 else 0.0
        _phasors(delay, frequencies[base], re, im)
        _phasors(delay, step, step_re, step_im)
        for k in range(offsets[row + 1] - offsets[row]):
            if k > 0 and abs(frequencies[base + k] - frequencies[base + k - 1] - step) > _EVEN_HZ:
                _phasors(delay, frequencies[base + k], re, im)
            sample = offsets[row] + k
            here = amplitude[t, bins[base + k]]
            _write_and_step(root[sample], here, (re, im), (step_re, step_im), left, out[sample])

"""Model visibilities of point sources seen through a beam that drifts, averaged as the correlator averages.

V = sum_s A_s(t, f) exp(+2 pi i (u l + v m + w (n - 1)) f / c) sinc(nu_s tau) sinc(d_s df / c)

in the sense of our Measurement Sets (`io.ms`). A_s is the apparent flux; nu_s is the fringe rate of the source with
respect to the pointing of that integration, d_s its path with respect to it: the correlator follows the sky point
that is on the meridian at mid-integration, and sums.
"""

from __future__ import annotations

from math import factorial

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.science import beam, coordinates
from dsa110_contimg.science.aberration import aberration_scale

EARTH_RATE = 7.292115e-5
"""Rotation rate of the earth (rad/s)."""

_LANES = 32
_TURN = 2.0 * np.pi
_TERMS = 10
_COSINE = tuple((-1.0) ** k / factorial(2 * k) for k in reversed(range(_TERMS)))
_SINE = tuple((-1.0) ** k / factorial(2 * k + 1) for k in reversed(range(_TERMS)))


def apparent_fluxes(
    flux_jy: NDArray[np.float64],
    spectral_index: NDArray[np.float64],
    ra_dec: tuple[NDArray[np.float64], NDArray[np.float64]],
    pointing: tuple[NDArray[np.float64], NDArray[np.float64]],
    frequencies_hz: NDArray[np.float64],
    reference_hz: float,
    primary: beam.PrimaryBeam = beam.AIRY,
) -> NDArray[np.float32]:
    """S (f / f0)^alpha B(theta_t, f), (time, frequency, source), in Jy; angles in rad, ICRS."""
    spectra = flux_jy * (frequencies_hz[:, None] / reference_hz) ** spectral_index
    return through_beam(spectra, ra_dec, pointing, frequencies_hz, primary)


def through_beam(
    spectra: NDArray[np.float64],
    ra_dec: tuple[NDArray[np.float64], NDArray[np.float64]],
    pointing: tuple[NDArray[np.float64], NDArray[np.float64]],
    frequencies_hz: NDArray[np.float64],
    primary: beam.PrimaryBeam = beam.AIRY,
) -> NDArray[np.float32]:
    """Flux densities (frequency, source) of any spectrum times B(theta_t, f): (time, frequency, source), in Jy."""
    theta = beam.separation(ra_dec[0][None], ra_dec[1][None], pointing[0][:, None], pointing[1][:, None])
    return (spectra[None] * primary.power(theta[:, None, :], frequencies_hz[None, :, None])).astype(np.float32)


def source_geometry(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    centre: tuple[float, float],
    pointing: tuple[NDArray[np.float64], NDArray[np.float64]],
    mjd_utc: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions for `predict`, as they appear: annual aberration scales the field (`science.aberration`).

    Parameters
    ----------
    ra, dec : (source,) rad, ICRS
    centre : phase centre (rad, ICRS)
    pointing : (time,) right ascensions and declinations of the beam centre (rad, ICRS)
    mjd_utc : of the observation

    Returns
    -------
    lmn : (source, 3)
        l, m, n - 1 about the phase centre.
    offset : (time, source, 3)
        (l, m, n) of the source minus that of the pointing, in the same axes.
    """
    scale = aberration_scale(*centre, mjd_utc)
    lmn = _shrunk(coordinates.direction_cosines(ra, dec, *centre), scale)
    beam_lmn = _shrunk(coordinates.direction_cosines(pointing[0], pointing[1], *centre), scale)
    return lmn - np.array([0.0, 0.0, 1.0]), lmn[None] - beam_lmn[:, None]


def _shrunk(lmn: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Apparent direction cosines of true ones; on the far side of the sky, where nothing is predicted, unchanged."""
    l, m = lmn[..., 0] / scale, lmn[..., 1] / scale
    n = np.sqrt(np.maximum(1.0 - l**2 - m**2, 0.0))
    return np.asarray(np.where(lmn[..., 2:] > 0, np.stack([l, m, n], axis=-1), lmn))


def pole(dec0: float) -> NDArray[np.float64]:
    """The celestial pole in the (u, v, w) axes of a phase centre at declination ``dec0`` (rad)."""
    return np.array([0.0, np.cos(dec0), np.sin(dec0)])


# functions of their own, with nothing around their loops, are what the compiler turns into vector instructions
@njit(cache=True, fastmath=True)
def phasors(turns: NDArray[np.float64], re: NDArray[np.float32], im: NDArray[np.float32]) -> None:
    """cos and sin of 2 pi turns, to 1e-6: Taylor's series over half a turn to either side."""
    for s in range(len(turns)):
        x = np.float32(_TURN * (turns[s] - np.rint(turns[s])))
        y = x * x
        c, d = np.float32(_COSINE[0]), np.float32(_SINE[0])
        for k in range(1, _TERMS):
            c = c * y + np.float32(_COSINE[k])
            d = d * y + np.float32(_SINE[k])
        re[s], im[s] = c, d * x


@njit(cache=True, fastmath=True)
def _smear(half_turns: NDArray[np.float64], sine: NDArray[np.float32], loss: NDArray[np.float32]) -> None:
    """Multiply ``loss`` by sinc(2 half_turns); ``sine`` is of 2 pi half_turns."""
    for s in range(len(half_turns)):
        x = np.float32(_TURN * half_turns[s])
        near = np.abs(x) < np.float32(1e-3)
        loss[s] *= np.float32(1.0) if near else sine[s] / (x if not near else np.float32(1.0))


@njit(cache=True, fastmath=True)
def paths(u: float, v: float, w: float, lmn: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Fill ``out`` (source,) with u l + v m + w (n - 1)."""
    for s in range(len(lmn)):
        out[s] = u * lmn[s, 0] + v * lmn[s, 1] + w * lmn[s, 2]


@njit(cache=True, fastmath=True)
def _sum_and_step(
    amplitude: NDArray[np.float32],
    re: NDArray[np.float32],
    im: NDArray[np.float32],
    step_re: NDArray[np.float32],
    step_im: NDArray[np.float32],
) -> complex:
    """Sum of the sources at one frequency; their phasors move on to the next."""
    real, imaginary = np.float32(0.0), np.float32(0.0)
    for s in range(len(re)):
        real += amplitude[s] * re[s]
        imaginary += amplitude[s] * im[s]
        turned = re[s] * step_re[s] - im[s] * step_im[s]
        im[s] = re[s] * step_im[s] + im[s] * step_re[s]
        re[s] = turned
    return complex(real, imaginary)


@njit(parallel=True, nogil=True, cache=True, fastmath=True)
def predict(
    uvw: NDArray[np.float64],
    time_index: NDArray[np.int64],
    frequencies_hz: NDArray[np.float64],
    lmn: NDArray[np.float64],
    offset: NDArray[np.float64],
    apparent: NDArray[np.float32],
    pole_uvw: NDArray[np.float64],
    integration_s: float,
    width_hz: float,
) -> NDArray[np.complex64]:
    """Model visibilities of a run of equally spaced channels, or frequencies (`bandlimited`).

    Parameters
    ----------
    uvw : (row, 3) m
    time_index : (row,)
    frequencies_hz : (channel,) ascending
    lmn, offset : as from `source_geometry`
    apparent : (time, channel, source) Jy
    pole_uvw : (3,) from `pole`
    integration_s : float
    width_hz : of a channel

    Returns
    -------
    (row, channel) complex64
    """
    n_rows, n_channels, n_sources = uvw.shape[0], frequencies_hz.size, lmn.shape[0]
    out = np.empty((n_rows, n_channels), np.complex64)
    step = frequencies_hz[1] - frequencies_hz[0] if n_channels > 1 else 0.0
    middle = 0.5 * (frequencies_hz[0] + frequencies_hz[-1])
    lanes = min(_LANES, n_rows)
    for lane in prange(lanes):
        turns, path = np.empty(n_sources), np.empty(n_sources)
        memory = np.empty((5, n_sources), np.float32)
        re, im, loss, step_re, step_im = memory[0], memory[1], memory[2], memory[3], memory[4]
        for row in range(lane * n_rows // lanes, (lane + 1) * n_rows // lanes):
            t = time_index[row]
            u, v, w = uvw[row, 0] / speed_of_light, uvw[row, 1] / speed_of_light, uvw[row, 2] / speed_of_light
            # d(baseline)/dt = omega (pole x baseline), in the axes of uvw
            speed, half = 0.5 * EARTH_RATE * middle * integration_s, 0.5 * width_hz
            rate = (
                pole_uvw[1] * w - pole_uvw[2] * v,
                pole_uvw[2] * u - pole_uvw[0] * w,
                pole_uvw[0] * v - pole_uvw[1] * u,
            )
            loss[:] = np.float32(1.0)
            paths(rate[0] * speed, rate[1] * speed, rate[2] * speed, offset[t], turns)
            phasors(turns, re, im)
            _smear(turns, im, loss)
            paths(u * half, v * half, w * half, offset[t], turns)
            phasors(turns, re, im)
            _smear(turns, im, loss)
            paths(u, v, w, lmn, path)
            turns[:] = path * step
            phasors(turns, step_re, step_im)
            turns[:] = path * frequencies_hz[0]
            phasors(turns, re, im)
            re *= loss
            im *= loss
            for channel in range(n_channels):
                out[row, channel] = _sum_and_step(apparent[t, channel], re, im, step_re, step_im)
    return out

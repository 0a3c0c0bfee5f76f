"""Model visibilities of point sources seen through a beam that drifts, averaged as the correlator averages.

V = sum_s A_s(t, f) exp(+2 pi i (u l + v m + w (n - 1)) f / c) sinc(nu_s tau) sinc(d_s df / c)

in the sense of our Measurement Sets (`io.ms`). A_s is the apparent flux; nu_s is the fringe rate of the source with
respect to the pointing of that integration, d_s its path with respect to it: the correlator follows the sky point
that is on the meridian at mid-integration, and sums.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.constants import speed_of_light

from dsa110_contimg.science import beam, coordinates
from dsa110_contimg.science.aberration import aberration_scale

EARTH_RATE = 7.292115e-5
"""Rotation rate of the earth (rad/s)."""


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


@njit(parallel=True, cache=True, fastmath=True)
def predict(
    uvw: NDArray[np.float64],
    time_index: NDArray[np.int64],
    frequencies_hz: NDArray[np.float64],
    lmn: NDArray[np.float64],
    offset: NDArray[np.float64],
    apparent: NDArray[np.float32],
    pole_uvw: NDArray[np.float64],
    integration_s: float,
) -> NDArray[np.complex64]:
    """Model visibilities of a run of equally spaced channels.

    Parameters
    ----------
    uvw : (row, 3) m
    time_index : (row,)
    frequencies_hz : (channel,) ascending
    lmn, offset : as from `source_geometry`
    apparent : (time, channel, source) Jy
    pole_uvw : (3,) from `pole`
    integration_s : float

    Returns
    -------
    (row, channel) complex64
    """
    n_rows, n_channels, n_sources = uvw.shape[0], frequencies_hz.size, lmn.shape[0]
    out = np.empty((n_rows, n_channels), np.complex64)
    width = frequencies_hz[1] - frequencies_hz[0] if n_channels > 1 else 0.0
    middle = 0.5 * (frequencies_hz[0] + frequencies_hz[-1])
    two_pi = 2.0 * np.pi
    for row in prange(n_rows):
        t = time_index[row]
        u, v, w = uvw[row, 0], uvw[row, 1], uvw[row, 2]
        # d(baseline)/dt = omega (pole x baseline), in the axes of uvw
        du = EARTH_RATE * (pole_uvw[1] * w - pole_uvw[2] * v)
        dv = EARTH_RATE * (pole_uvw[2] * u - pole_uvw[0] * w)
        dw = EARTH_RATE * (pole_uvw[0] * v - pole_uvw[1] * u)
        re = np.empty(n_sources, np.float32)
        im = np.empty(n_sources, np.float32)
        step_re = np.empty(n_sources, np.float32)
        step_im = np.empty(n_sources, np.float32)
        for s in range(n_sources):
            path = (u * lmn[s, 0] + v * lmn[s, 1] + w * lmn[s, 2]) / speed_of_light
            turns = path * frequencies_hz[0]
            angle = two_pi * (turns - np.floor(turns))
            rate = (du * offset[t, s, 0] + dv * offset[t, s, 1] + dw * offset[t, s, 2]) * middle / speed_of_light
            delay = (u * offset[t, s, 0] + v * offset[t, s, 1] + w * offset[t, s, 2]) / speed_of_light
            loss = np.sinc(rate * integration_s) * np.sinc(delay * width)
            re[s] = loss * np.cos(angle)
            im[s] = loss * np.sin(angle)
            step_re[s] = np.cos(two_pi * path * width)
            step_im[s] = np.sin(two_pi * path * width)
        for channel in range(n_channels):
            total_re, total_im = np.float32(0.0), np.float32(0.0)
            for s in range(n_sources):
                total_re += apparent[t, channel, s] * re[s]
                total_im += apparent[t, channel, s] * im[s]
                turned = re[s] * step_re[s] - im[s] * step_im[s]
                im[s] = re[s] * step_im[s] + im[s] * step_re[s]
                re[s] = turned
            out[row, channel] = complex(total_re, total_im)
    return out

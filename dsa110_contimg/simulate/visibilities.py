"""Kernels: point sources to visibilities, and visibilities to what a correlator with gains and noise records."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.constants import speed_of_light


@numba.njit(fastmath=True, inline="always")
def _unit(turns: float) -> tuple[float, float]:
    """Cosine and sine of an angle in turns, to 1e-9.

    The series of a quarter of the reduced angle, then the double angle twice: no branch and no call, so that the
    loop over sources becomes vector instructions (the kernel takes two thirds of the time it takes with the library's).
    """
    x = 0.5 * math.pi * (turns - math.floor(turns + 0.5))
    x2 = x * x
    sine = x * (1.0 - x2 / 6.0 * (1.0 - x2 / 20.0 * (1.0 - x2 / 42.0 * (1.0 - x2 / 72.0 * (1.0 - x2 / 110.0)))))
    cosine = 1.0 - x2 / 2.0 * (1.0 - x2 / 12.0 * (1.0 - x2 / 30.0 * (1.0 - x2 / 56.0 * (1.0 - x2 / 90.0))))
    sine, cosine = 2.0 * sine * cosine, 1.0 - 2.0 * sine * sine
    return 1.0 - 2.0 * sine * sine, 2.0 * sine * cosine


@numba.njit(fastmath=True, inline="always")
def _sinc(x: float) -> float:
    """sin(pi x) / (pi x)."""
    safe = x if abs(x) > 1e-5 else 1e-5
    return _unit(0.5 * safe)[1] / (math.pi * safe)


@numba.njit(parallel=True, fastmath=True, cache=True)
def predict(baselines, offset, rate, flux, first_hz, step_hz, integration_s, out):  # type: ignore[no-untyped-def]
    """Visibilities of point sources over one subband, averaged over integrations and channels.

    V(t, b, f) = sum_s A(t, f, s) exp(+2 pi i f tau) sinc(f dtau/dt T) sinc(tau df),  tau = b . (s - p) / c,
    the response of an averaging correlator (Thompson, Moran & Swenson 2017, sections 6.3 and 6.4); b = position
    (ant2) - position(ant1), s and p the directions of source and phase centre.

    Parameters
    ----------
    baselines : (baseline, 3) float64, m
    offset, rate : (time, source, 3) float64
        s - p, and its rate of change (1/s).
    flux : (time, frequency, source) float32, Jy
        With the primary beam applied.
    first_hz, step_hz : float
        Centre of the first channel and signed channel step. Phases start in double precision, in turns modulo one,
        and go from channel to channel by multiplication: 48 single precision steps add 3e-6.
    integration_s : float
    out : (time, baseline, frequency) complex64
        Overwritten.
    """
    n_times, n_channels, n_sources = flux.shape
    n_baselines = baselines.shape[0]
    last_hz = first_hz + (n_channels - 1) * step_hz
    for row in numba.prange(n_times * n_baselines):
        t, b = row // n_baselines, row % n_baselines
        real, imag = np.empty(n_sources, np.float32), np.empty(n_sources, np.float32)
        turn_real, turn_imag = np.empty(n_sources, np.float32), np.empty(n_sources, np.float32)
        slope = np.empty(n_sources, np.float32)
        kept = np.empty(n_sources, np.float32)
        for s in range(n_sources):
            delay, drift = 0.0, 0.0
            for k in range(3):
                delay += baselines[b, k] * offset[t, s, k]
                drift += baselines[b, k] * rate[t, s, k]
            delay /= speed_of_light
            drift *= integration_s / speed_of_light
            real[s], imag[s] = _unit(first_hz * delay)
            turn_real[s], turn_imag[s] = _unit(step_hz * delay)
            channel_loss = _sinc(step_hz * delay)
            # the loss within an integration depends on frequency: over a subband (0.8 %) a line is exact to 2e-5
            kept[s] = channel_loss * _sinc(first_hz * drift)
            slope[s] = (channel_loss * _sinc(last_hz * drift) - kept[s]) / max(n_channels - 1, 1)
        for f in range(n_channels):
            sum_real, sum_imag = np.float32(0.0), np.float32(0.0)
            for s in range(n_sources):
                amplitude = flux[t, f, s] * kept[s]
                x, y = real[s], imag[s]
                sum_real += amplitude * x
                sum_imag += amplitude * y
                real[s] = x * turn_real[s] - y * turn_imag[s]
                imag[s] = x * turn_imag[s] + y * turn_real[s]
                kept[s] += slope[s]
            out[t, b, f] = complex(sum_real, sum_imag)


@numba.njit(parallel=True, cache=True)
def corrupt(sky, first, second, gains, alive, levels, vis):  # type: ignore[no-untyped-def]
    """What the correlator records of a sky: conj(g1) g2 (sky + noise).

    Parameters
    ----------
    sky : (time, baseline, frequency) complex64, Jy
        Of each parallel hand; cross hands of an unpolarised sky hold noise only.
    first, second : (baseline,) int
        Antennas, as indices into ``gains``.
    gains : (time, antenna, feed, frequency) complex64
    alive : (antenna,) float32
        1, or for a dead antenna the small fraction of its noise that still arrives.
    levels : (3,) float32
        Noise of the real and of the imaginary part of a cross-correlation (Jy); system power (Jy) and relative noise
        of an autocorrelation.
    vis : (time, baseline, frequency, polarization) complex64
        In: independent unit normals in both parts, or zeros. Out: raw visibilities. Polarisations are XX, YY or
        XX, XY, YX, YY.
    """
    n_times, n_baselines, n_channels, n_pol = vis.shape
    sigma, system, auto_sigma = levels
    for row in numba.prange(n_times * n_baselines):
        t, b = row // n_baselines, row % n_baselines
        i, j = first[b], second[b]
        fraction = np.float32(alive[i] * alive[j]) if i != j else alive[i]
        dead = fraction < np.float32(1.0)
        for f in range(n_channels):
            signal = np.complex64(0.0) if dead else sky[t, b, f]
            for p in range(n_pol):
                feed1, feed2 = (p, p) if n_pol == 2 else (p // 2, p % 2)
                noise = vis[t, b, f, p]
                if i != j:
                    value = sigma * fraction * noise
                elif feed1 == feed2:
                    value = np.complex64(system * fraction * (np.float32(1.0) + auto_sigma * noise.real))
                else:
                    value = system * fraction * auto_sigma * np.float32(math.sqrt(0.5)) * noise
                if feed1 == feed2:
                    value += signal
                vis[t, b, f, p] = np.conj(gains[t, i, feed1, f]) * gains[t, j, feed2, f] * value
                if i == j and feed1 == feed2:
                    vis[t, b, f, p] = np.complex64(vis[t, b, f, p].real)


def unit_noise(shape: tuple[int, int, int, int], key: list[int], threads: int) -> NDArray[np.complex64]:
    """Complex unit normals, one random stream per integration, so that the threads' number does not matter.

    Parameters
    ----------
    shape : (time, baseline, frequency, polarization)
    key : list of int
        Seed of the stream family.
    threads : int
    """
    noise = np.empty(shape, np.complex64)

    def fill(t: int) -> None:
        rng = np.random.Generator(np.random.SFC64([*key, t]))
        rng.standard_normal(out=noise[t].reshape(-1).view(np.float32), dtype=np.float32)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(shape[0])))
    return noise

"""Sources far outside the beam: fitted in the visibilities and subtracted, because no model of the beam reaches there.

The quiet Sun has 500,000 Jy at 1.4 GHz and the brightest radio sources 1,000 to 2,000. Tens of degrees off, the
response is 30 to 50 dB down and nobody knows it better: struts, surface and spillover make it, not the aperture of
an Airy pattern. Predicting is therefore out of the question; but the direction is known, so the apparent flux can be
fitted: for each integration a complex function of frequency, smooth over 40 MHz, which follows any far sidelobe as it
drifts through.

Long baselines do not see such a source: an integration and a channel smear it away, and the Sun is resolved. That is in
the fit (as sinc functions, and a disk), so what is subtracted is what was there. Antennas share one number: the part of
the far response in which they differ stays in the data. Within `NEAREST_DEG` of the pointing the catalogue and the beam
are used instead (`subtraction`). Peeling is the same with gains for each antenna; this is its linear, cheap part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import HADec, SkyCoord, get_body
from astropy.time import Time
from numba import njit, prange
from numpy.typing import NDArray
from scipy.constants import speed_of_light
from scipy.interpolate import BSpline
from scipy.special import j1

from dsa110_contimg import telescope
from dsa110_contimg.science.averaging import ImagingData
from dsa110_contimg.science.coordinates import apparent_hadec, direction_cosines, earth_fixed, uvw_frame
from dsa110_contimg.science.smearing import EARTH_ROTATION, sinc

NEAREST_DEG = 6.0
"""From here on the Airy pattern (first null at 3.2 deg) is a guess, and the catalogue is not subtracted (5 deg)."""

_KNOT_HZ = 40.0e6
"""Between knots of the splines: paths across a dish differ by at most 5 m, which is a turn in 60 MHz."""
_BIN_HZ = 3.0e6
"""Visibilities are summed over so much, within which fringes are exact and all else hardly changes."""
_LANES = 8
_LEAST_LEFT = 1e-3
"""Where a baseline keeps less of every source than this, nothing is subtracted."""
_LEAST_TOLD = 0.1
"""A baseline that keeps less has no say in the fit: a hundredth of what one that keeps all tells, and as much work."""
_LEAST_DELAY_S = 30e-9
"""A source whose delay on a baseline differs by less from that of the field has an amplitude, free as it is in
frequency, that could be the field's: such a baseline has no say in the fit."""
_LONGEST_OWN_S = 20e-9
"""Of the far response itself: what its paths across a dish differ by, and a little."""
_FIELD_RADIUS = 0.05
"""Direction cosine out to which the beam sees the field."""
_DISK_STEP, _DISK_END = 0.01, 30.0


@dataclass(frozen=True)
class FarSource:
    """A direction to fit: ICRS (deg), or a body of the solar system by its name; a disk of so many arcmin."""

    name: str
    ra_deg: float
    dec_deg: float
    diameter_arcmin: float

    def apparent(self, mjd_utc: float) -> NDArray[np.float64]:
        """Earth-fixed unit vector (3,) of the apparent place, without refraction."""
        if np.isfinite(self.ra_deg):
            return earth_fixed(*apparent_hadec(np.radians(self.ra_deg), np.radians(self.dec_deg), mjd_utc))
        when, where = Time(mjd_utc, format="mjd", scale="utc"), telescope.location()
        body = get_body(self.name.lower(), when, where).transform_to(HADec(obstime=when, location=where))
        return earth_fixed(body.ha.rad, body.dec.rad)


SUN = FarSource("Sun", float("nan"), float("nan"), 34.0)
"""The radio Sun: at 1.4 GHz a little larger than the photosphere."""
FAR_SOURCES = (
    SUN,
    FarSource("Cassiopeia A", 350.8500, 58.8150, 4.5),
    FarSource("Cygnus A", 299.8682, 40.7339, 1.7),
    FarSource("Taurus A", 83.6331, 22.0145, 4.5),
    FarSource("Virgo A", 187.7059, 12.3911, 1.0),
    FarSource("Hercules A", 252.7839, 4.9927, 2.0),
    FarSource("Hydra A", 139.5237, -12.0955, 1.0),
)
"""Everything above 40 Jy that rises over the telescope, but for Galactic complexes; sizes serve to some 200 m."""


@dataclass(frozen=True)
class FarFit:
    """What was found of a source.

    Attributes
    ----------
    amplitude : (time, frequency) complex apparent flux density (Jy), every 3 MHz; 0 where there were no data.
    sigma : by how many standard deviations of noise its power exceeds the mean of noise.
    subtracted : bool
    """

    source: FarSource
    amplitude: NDArray[np.complex128]
    sigma: float
    subtracted: bool

    @property
    def apparent_jy(self) -> float:
        """Rms apparent flux density."""
        return float(np.sqrt(np.mean(np.abs(self.amplitude) ** 2)))

    def __str__(self) -> str:
        """A line for a header's HISTORY."""
        done = "subtracted" if self.subtracted else "not subtracted"
        return f"{self.source.name}: {self.apparent_jy:.3g} Jy apparent, {self.sigma:.1f} sigma, {done}"


class _Rows(NamedTuple):
    uvw: NDArray[np.float64]
    time: NDArray[np.int64]
    channels: NDArray[np.int64]
    offsets: NDArray[np.int64]


class _Channels(NamedTuple):
    """All lists of channels one after the other, the bin of each; width and factor are of the lists."""

    frequencies: NDArray[np.float64]
    first: NDArray[np.int64]
    bins: NDArray[np.int64]
    width: NDArray[np.float64]
    factor: NDArray[np.int64]


class _Sky(NamedTuple):
    """Directions (source, 3) and tracking centres (time, 3) as unit vectors in uvw axes; the pole times the
    rotation of the earth (1/s); diameters (rad), and the visibility of a disk in steps of `_DISK_STEP` beams; what each
    response delays besides (time, source) (s).
    """

    lmn: NDArray[np.float64]
    tracking: NDArray[np.float64]
    pole: NDArray[np.float64]
    diameter: NDArray[np.float64]
    disk: NDArray[np.float64]
    integration: float
    middle: NDArray[np.float64]
    own: NDArray[np.float64]


class _Sums(NamedTuple):
    """By time and bin: normal matrix, right-hand side; power (w |V|^2) and number of samples."""

    normal: NDArray[np.complex128]
    right: NDArray[np.complex128]
    power: NDArray[np.float64]
    number: NDArray[np.float64]


def fit_and_subtract(
    data: ImagingData, sources: Sequence[FarSource] = FAR_SOURCES, least_sigma: float = 5.0
) -> list[FarFit]:
    """Fit far sources to visibilities and subtract, in place, those that stand out.

    V(t, b, f) = sum_s A_s(t, f) D_s(b, f) exp(+2 pi i (u l + v m + w (n - 1)) f / c), least squares with the data's
    weights over all baselines of an integration; A_s is a cubic spline in f, and D_s is what integration, channel, the
    averaging of channels and the source's own disk leave. A_s delays, too: what averaging takes by that is in a second
    fit, of those sources that stand out in the first. With c the coefficients and C their covariance, c' C^-1 c is of
    noise the number of coefficients, give or take its root: a source stands out by ``least_sigma`` such roots.

    Parameters
    ----------
    data : ImagingData
        Of a source of the field that is still in it, about a thousandth is taken away.
    sources : those above the horizon and not near the pointing are fitted.
    least_sigma : float

    Returns
    -------
    list of FarFit
        One for each source fitted.
    """
    lmn, here = _directions(data, sources)
    if not here:
        return []
    rows, channels, middle = _layout(data)
    fits: list[FarFit] = []
    own = np.zeros((len(data.track.mjd), len(here)))
    for attempt in (0, 1):
        sky = _sky(data, lmn, here, middle, own)
        sums = _sums(data, rows, channels, sky, len(middle))
        amplitude, sigma = _solved(sums, middle)
        if attempt:
            break
        fits = [FarFit(s, a, float(g), bool(g >= least_sigma)) for s, a, g in zip(here, amplitude, sigma, strict=True)]
        keep = np.array([fit.subtracted for fit in fits])
        if not keep.any():
            return fits
        # those that are not there take nothing from those that are, whose own delays are in what averaging leaves
        lmn, here = lmn[keep], [s for s, kept in zip(here, keep, strict=True) if kept]
        own = _own_delays(amplitude[keep], middle)
    _subtract(rows, channels, sky, np.ascontiguousarray(np.moveaxis(amplitude, 0, -1)), data.weights, data.visibilities)
    final = dict(zip((s.name for s in here), amplitude, strict=True))
    return [FarFit(f.source, final.get(f.source.name, f.amplitude), f.sigma, f.subtracted) for f in fits]


def solar_elongation(ra: float, dec: float, mjd_utc: float) -> float:
    """Angle (deg) between a direction (rad, ICRS) and the Sun's apparent place (astropy's built-in ephemeris)."""
    when, where = Time(mjd_utc, format="mjd", scale="utc"), telescope.location()
    sun = get_body("sun", when, where).transform_to(HADec(obstime=when, location=where))
    there = SkyCoord(ra * u.rad, dec * u.rad).transform_to(HADec(obstime=when, location=where))
    return float(sun.separation(there).deg)


def _directions(data: ImagingData, sources: Sequence[FarSource]) -> tuple[NDArray[np.float64], list[FarSource]]:
    """Those above the horizon and away from the pointing, with their unit vectors (source, 3) in the axes of uvw."""
    mjd = float(data.track.mjd.mean())
    axes = uvw_frame(data.phase_center_ra, data.phase_center_dec, mjd).axes[0]
    zenith = earth_fixed(0.0, np.radians(telescope.LATITUDE_DEG))
    apparent = [source.apparent(mjd) for source in sources]
    lmn = np.array([axes @ vector for vector in apparent]).reshape(-1, 3)
    up = np.array([vector @ zenith > 0.0 for vector in apparent], np.bool_)
    chosen = up & (lmn[:, 2] < np.cos(np.radians(NEAREST_DEG)))
    return lmn[chosen], [source for source, yes in zip(sources, chosen, strict=True) if yes]


def _layout(data: ImagingData) -> tuple[_Rows, _Channels, NDArray[np.float64]]:
    """Rows, channels, and the middle frequency of every bin (Hz)."""
    frequencies = np.concatenate([c.frequencies for c in data.channels])
    edges = np.linspace(frequencies.min(), frequencies.max(), max(1, round(float(np.ptp(frequencies)) / _BIN_HZ)) + 1)
    return (
        _Rows(data.uvw, data.time_index, data.channels_index, data.offsets),
        _Channels(
            frequencies,
            np.cumsum([0] + [len(c.frequencies) for c in data.channels]),
            np.searchsorted(edges[1:-1], frequencies),
            np.array([c.native_width_hz for c in data.channels]),
            np.array([c.factor for c in data.channels]),
        ),
        0.5 * (edges[1:] + edges[:-1]),
    )


def _sky(
    data: ImagingData,
    lmn: NDArray[np.float64],
    sources: Sequence[FarSource],
    middle: NDArray[np.float64],
    own: NDArray[np.float64],
) -> _Sky:
    dec = data.phase_center_dec
    x = np.pi * np.arange(_DISK_STEP, _DISK_END, _DISK_STEP)
    return _Sky(
        lmn=lmn,
        tracking=direction_cosines(
            data.track.pointing_ra, data.track.pointing_dec, data.phase_center_ra, data.phase_center_dec
        ),
        pole=EARTH_ROTATION * np.array([0.0, np.cos(dec), np.sin(dec)]),
        diameter=np.radians([source.diameter_arcmin / 60.0 for source in sources]),
        disk=np.concatenate([[1.0], 2.0 * j1(x) / x]),
        integration=data.track.integration_s,
        middle=middle,
        own=own,
    )


def _own_delays(amplitude: NDArray[np.complex128], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """(time, source) mean delay (s) of responses (source, time, bin), from how their phases run over the band."""
    if len(middle) < 2:
        return np.zeros(amplitude.shape[:2]).T
    turning = (amplitude[..., 1:] * amplitude[..., :-1].conj()).sum(axis=-1)
    delay = np.angle(turning) / (2.0 * np.pi * (middle[1] - middle[0]))
    return np.asarray(np.clip(delay, -_LONGEST_OWN_S, _LONGEST_OWN_S).T)


def _sums(data: ImagingData, rows: _Rows, channels: _Channels, sky: _Sky, n_bins: int) -> _Sums:
    shape, n = (_LANES, len(data.track.mjd), n_bins), len(sky.lmn)
    normal, right = np.zeros((*shape, n, n), np.complex128), np.zeros((*shape, n), np.complex128)
    power = np.zeros((*shape, 2))
    _accumulate(rows, channels, sky, data.visibilities, data.weights, normal, right, power)
    power = power.sum(axis=0)
    return _Sums(normal.sum(axis=0), right.sum(axis=0), power[..., 0], power[..., 1])


def _solved(sums: _Sums, middle: NDArray[np.float64]) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """(source, time, bin) amplitudes, and by how many deviations their power exceeds that of noise (source,)."""
    n_times, _, n = sums.right.shape
    basis = _splines(middle)
    n_splines = basis.shape[1]
    normal = np.einsum("fk,fl,tfsr->tskrl", basis, basis, sums.normal).reshape(n_times, n * n_splines, -1)
    right = np.einsum("fk,tfs->tsk", basis, sums.right).reshape(n_times, -1)
    trace = np.einsum("tii->t", normal).real
    # where directions or frequencies cannot be told apart, amplitudes are made as small as the data allow
    ridge = np.where(trace > 0.0, 1e-7 * trace / normal.shape[1], 1.0)
    inverse = np.linalg.inv(normal + ridge[:, None, None] * np.eye(normal.shape[1]))
    found = np.einsum("tij,tj->ti", inverse, right)
    left = sums.power.sum(axis=1) - np.einsum("ti,ti->t", right.conj(), found).real
    freedom = np.maximum(sums.number.sum(axis=1) - found.shape[1], 1.0)
    variance = np.maximum(left / freedom, 1e-30)
    coefficients = found.reshape(n_times, n, n_splines)
    sigma = np.zeros(n)
    seen = (trace > 0.0).sum() * n_splines
    for s in range(n):
        block = slice(s * n_splines, (s + 1) * n_splines)
        here = coefficients[:, s]
        fisher = np.linalg.inv(inverse[:, block, block])
        power = (np.einsum("ti,tij,tj->t", here.conj(), fisher, here).real / variance)[trace > 0.0].sum()
        sigma[s] = (power - seen) / np.sqrt(max(seen, 1))
    return np.einsum("fk,tsk->stf", basis, coefficients), sigma


def _splines(middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """(bin, coefficient) cubic B-splines over the band."""
    if len(middle) < 4:
        return np.ones((len(middle), 1))
    n = max(1, round(float(middle[-1] - middle[0]) / _KNOT_HZ))
    inner = np.linspace(middle[0], middle[-1], n + 1)
    knots = np.concatenate([np.repeat(inner[0], 3), inner, np.repeat(inner[-1], 3)])
    return np.asarray(BSpline.design_matrix(middle, knots, 3).toarray(), np.float64)


@njit(cache=True, fastmath=True)
def _left(
    rows: _Rows, channels: _Channels, sky: _Sky, row: int, delay: NDArray[np.float64], left: NDArray[np.float64]
) -> float:
    """Fill delays (source,) in s and what is left (bin, source) of each source on one baseline; return the largest."""
    which = rows.channels[row]
    width, n = channels.width[which] / speed_of_light, channels.factor[which]
    u, v, w = rows.uvw[row]
    _, py, pz = sky.pole
    rate = (py * w - pz * v, pz * u, -py * u)
    square, largest = u * u + v * v + w * w, 0.0
    for s in range(len(sky.lmn)):
        l, m, n_s = sky.lmn[s]
        dl, dm, dn = sky.lmn[s] - sky.tracking[rows.time[row]]
        path = u * l + v * m + w * n_s
        across = np.sqrt(max(square - path * path, 0.0)) / speed_of_light
        own = sky.own[rows.time[row], s] * speed_of_light
        plain = (path - w + own) * width
        delay[s] = (path - w) / speed_of_light
        turn = (rate[0] * dl + rate[1] * dm + rate[2] * dn) / speed_of_light * sky.integration
        steady = sinc((u * dl + v * dm + w * dn + own) * width)
        if n > 1:
            whole = sinc(plain)
            steady *= sinc(n * plain) / whole if abs(whole) > 0.01 else 0.0
        for b in range(len(sky.middle)):
            f = sky.middle[b]
            place = across * f * sky.diameter[s] / _DISK_STEP
            k = int(place)
            disk = 0.0
            if k + 1 < len(sky.disk):
                disk = sky.disk[k] + (place - k) * (sky.disk[k + 1] - sky.disk[k])
            left[b, s] = steady * disk * sinc(turn * f)
            largest = max(largest, abs(left[b, s]))
    return largest


@njit(parallel=True, cache=True, fastmath=True)
def _accumulate(
    rows: _Rows,
    channels: _Channels,
    sky: _Sky,
    visibilities: NDArray[np.complex64],
    weights: NDArray[np.float32],
    normal: NDArray[np.complex128],
    right: NDArray[np.complex128],
    power: NDArray[np.float64],
) -> None:
    """Gather by lane, time and bin w conj(K) K, w conj(K) V, and w |V|^2 with the number of samples."""
    n_rows, n = len(rows.time), len(sky.lmn)
    for lane in prange(_LANES):
        left, delay = np.empty((len(sky.middle), n)), np.empty(n)
        fringe = np.empty(n, np.complex128)
        for row in range(lane * n_rows // _LANES, (lane + 1) * n_rows // _LANES):
            if _left(rows, channels, sky, row, delay, left) < _LEAST_TOLD:
                continue
            u, v, _ = rows.uvw[row]
            field = _LEAST_DELAY_S + _FIELD_RADIUS * np.sqrt(u * u + v * v) / speed_of_light
            if np.abs(delay).min() < field:
                continue
            t, first = rows.time[row], channels.first[rows.channels[row]]
            for k in range(rows.offsets[row + 1] - rows.offsets[row]):
                sample = rows.offsets[row] + k
                weight = weights[sample]
                if weight <= 0.0:
                    continue
                b, seen = channels.bins[first + k], visibilities[sample]
                for s in range(n):
                    turns = delay[s] * channels.frequencies[first + k]
                    angle = 2.0 * np.pi * (turns - np.floor(turns))
                    fringe[s] = left[b, s] * complex(np.cos(angle), np.sin(angle))
                for s in range(n):
                    right[lane, t, b, s] += weight * np.conj(fringe[s]) * seen
                    for r in range(n):
                        normal[lane, t, b, s, r] += weight * np.conj(fringe[s]) * fringe[r]
                power[lane, t, b, 0] += weight * (seen.real**2 + seen.imag**2)
                power[lane, t, b, 1] += 1.0


@njit(parallel=True, cache=True, fastmath=True)
def _subtract(
    rows: _Rows,
    channels: _Channels,
    sky: _Sky,
    amplitude: NDArray[np.complex128],
    weights: NDArray[np.float32],
    visibilities: NDArray[np.complex64],
) -> None:
    """Take ``amplitude`` (time, bin, source) out of the visibilities (sample,) that have weight."""
    n_rows, n = len(rows.time), len(sky.lmn)
    for lane in prange(_LANES):
        left, delay = np.empty((len(sky.middle), n)), np.empty(n)
        for row in range(lane * n_rows // _LANES, (lane + 1) * n_rows // _LANES):
            if _left(rows, channels, sky, row, delay, left) < _LEAST_LEFT:
                continue
            t, first = rows.time[row], channels.first[rows.channels[row]]
            for k in range(rows.offsets[row + 1] - rows.offsets[row]):
                sample = rows.offsets[row] + k
                if weights[sample] <= 0.0:
                    continue
                b, f = channels.bins[first + k], channels.frequencies[first + k]
                # between the middles of bins, linearly
                other = min(max(b + 1 if f > sky.middle[b] else b - 1, 0), len(sky.middle) - 1)
                share = 0.0 if other == b else (f - sky.middle[b]) / (sky.middle[other] - sky.middle[b])
                total = complex(0.0, 0.0)
                for s in range(n):
                    turns = delay[s] * f
                    angle = 2.0 * np.pi * (turns - np.floor(turns))
                    here = (1.0 - share) * amplitude[t, b, s] * left[b, s]
                    here += share * amplitude[t, other, s] * left[other, s]
                    total += here * complex(np.cos(angle), np.sin(angle))
                visibilities[sample] -= total

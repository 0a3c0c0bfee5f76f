"""Far sources in simulated visibilities: their sidelobes go, and nothing else does.

The sky is a sum over moments and sub-channels of exact fringes from astropy's apparent places; none of the sinc
functions that the fit uses are in it.
"""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import xarray as xr
from astropy.coordinates import AltAz, get_body, get_sun
from astropy.time import Time

from dsa110_contimg import telescope
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.coordinates import meridian_icrs, uvw_frame
from dsa110_contimg.science.faraway import FAR_SOURCES, SUN, FarSource, fit_and_subtract, solar_elongation
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.weighting import imaging_weights

LIGHT = 299_792_458.0
DEC = np.radians(16.6)
WIDTH = telescope.CHANNEL_WIDTH_HZ
FREQUENCY = 1.3124e9 + WIDTH * np.arange(384)
N_TIMES, MOMENTS, PARTS = 2, 9, 5
CELL = np.radians(20 / 3600)
CAS_A = FarSource("Cassiopeia A", 350.85, 58.815, 0.0)


def positions(n_antennas):
    """The core, where far sources are seen."""
    table = telescope.stations()
    near = np.linalg.norm(table.itrf - np.median(table.itrf[table.active], axis=0), axis=1)
    active = np.flatnonzero(table.active)
    return table.itrf[active[np.argsort(near[active])[:: len(active) // n_antennas][:n_antennas]]]


def observed(direction_vectors, sources, start, n_antennas=40, noise=0.0, seed=0, where=None):
    """A Visibilities view at ``start`` (MJD): ``sources`` are (ra, dec, function (time, frequency) -> Jy), or
    instead of the right ascension a function (MJD) -> (time, 3)."""
    mjd = start + np.arange(N_TIMES) * telescope.INTEGRATION_S / 86400
    ra, dec = meridian_icrs(mjd, DEC)
    centre = float(ra[N_TIMES // 2]), float(dec[N_TIMES // 2])
    where = positions(n_antennas) if where is None else where
    i, j = np.triu_indices(len(where), 1)
    baselines = where[j] - where[i]
    uvw = uvw_frame(*centre, mjd).uvw(baselines)
    fine = ((np.arange(MOMENTS) + 0.5) / MOMENTS - 0.5) * telescope.INTEGRATION_S / 86400
    part = ((np.arange(PARTS) + 0.5) / PARTS - 0.5) * WIDTH
    data = np.zeros((N_TIMES, len(i), len(FREQUENCY)), complex)
    on_meridian = [direction_vectors(ra[t], dec[t], mjd[t] + fine) for t in range(N_TIMES)]
    for source_ra, source_dec, flux in sources:
        for t in range(N_TIMES):
            when = mjd[t] + fine
            there = source_ra(when) if callable(source_ra) else direction_vectors(source_ra, source_dec, when)
            # the correlator follows what is on the meridian at mid-integration; conversion then shifts the phase centre
            moving = (there - on_meridian[t]) @ baselines.T
            middle = mjd[t : t + 1]
            still = (direction_vectors(ra[t], dec[t], middle) - direction_vectors(*centre, middle)) @ baselines.T
            amplitude = flux(t, FREQUENCY)
            for step in part:
                f = (FREQUENCY + step) / LIGHT
                smeared = np.exp(2j * np.pi * moving[..., None] * f).mean(axis=0)
                data[t] += amplitude * smeared * np.exp(2j * np.pi * still[0][:, None] * FREQUENCY / LIGHT) / PARTS
    rng = np.random.default_rng(seed)
    data = np.repeat(data[..., None], 2, axis=-1)
    data = data + noise * (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape))
    dims = ("time", "baseline_id", "frequency", "polarization")
    return xr.Dataset(
        {
            "VISIBILITY": (dims, data.astype(np.complex64)),
            "FLAG": (dims, np.zeros(data.shape, bool)),
            "WEIGHT": (dims, np.ones(data.shape, np.float32)),
            "UVW": (("time", "baseline_id", "uvw_label"), uvw),
        },
        coords={
            "time": mjd,
            "frequency": FREQUENCY,
            "polarization": ["XX", "YY"],
            "baseline_antenna1_name": ("baseline_id", [str(k) for k in i]),
            "baseline_antenna2_name": ("baseline_id", [str(k) for k in j]),
            "pointing_ra": ("time", ra),
            "pointing_dec": ("time", dec),
        },
        attrs={
            "phase_center_ra": centre[0],
            "phase_center_dec": centre[1],
            "integration_time": telescope.INTEGRATION_S,
            "channel_width": WIDTH,
            "telescope_name": "DSA_110",
            "group_id": "2026-01-26T04:48:00",
        },
    )


def sun_at(mjd):
    sun = get_sun(Time(mjd, format="mjd")).transform_to(
        AltAz(obstime=Time(mjd, format="mjd"), location=telescope.location())
    )
    return sun.alt.deg


def sidelobe(level):
    """An unknown far response: it changes over time and band, in amplitude and phase."""
    return lambda t, f: level * (1 + 0.3 * t) * np.exp(1j * (0.5 * t + 2e-8 * (f - 1.4e9)))


def averaged_band(data):
    """Between the middles of the first and the last channel, as they are after averaging: there amplitudes are told."""
    ends = [f for c in data.channels for f in c.frequencies[[0, -1]]]
    return np.linspace(min(ends), max(ends), 400)


def steady(flux):
    return lambda _, f: np.full(f.shape, flux + 0j)


def dirty(data):
    weights = imaging_weights(data, 512, CELL, "natural", 0.0)
    return Gridder(data, weights, 512, CELL, 1e-4, 2).dirty(data.visibilities)


# the Sun is in Capricornus (RA 309 deg) on this date, and the telescope looks 40 deg from it
SUNNY = 61066.8
NOISE = 5.0


def test_a_far_source_is_found_with_its_amplitude(direction_vectors):
    level = sidelobe(20.0)
    sources = [(np.radians(CAS_A.ra_deg), np.radians(CAS_A.dec_deg), level)]
    data = from_dataset(observed(direction_vectors, sources, SUNNY, noise=0.01), 0.003, 0.0237)
    (fit,) = fit_and_subtract(data, [CAS_A])
    assert fit.subtracted
    assert fit.sigma > 1000
    expected = np.abs([level(t, averaged_band(data)).mean() for t in range(N_TIMES)])
    np.testing.assert_allclose(np.abs(fit.amplitude.mean(axis=1)), expected, rtol=0.005)


def test_sidelobes_fall_to_the_noise_and_the_field_keeps_its_flux(direction_vectors):
    ra, dec = meridian_icrs(np.array([SUNNY]), DEC)
    rest_of_field = [(ra[0] + 0.004, dec[0] + 0.006, steady(2.0))]
    far = [FarSource("a point 60 deg away", 250.0, -10.0, 0.0), CAS_A]
    levels = (10.0, 3.0)
    bodies = [
        (np.radians(s.ra_deg), np.radians(s.dec_deg), sidelobe(level)) for s, level in zip(far, levels, strict=True)
    ]

    def view(sources, noise=0.0):
        return from_dataset(observed(direction_vectors, sources, SUNNY, noise=noise), 0.003, 0.0237)

    noise, field, disturbed = view([], NOISE), view(rest_of_field), view([*rest_of_field, *bodies])
    thermal, reference = dirty(noise).std(), dirty(field)
    sidelobes = (dirty(disturbed) - reference).std()
    disturbed.visibilities[:] += noise.visibilities
    fits = fit_and_subtract(disturbed, far)
    assert all(fit.subtracted and fit.sigma > 100 for fit in fits)
    disturbed.visibilities[:] -= field.visibilities
    assert sidelobes > 5 * thermal
    assert dirty(disturbed).std() == pytest.approx(thermal, rel=0.05)
    # and where nothing is far away, though it is subtracted all the same
    fit_and_subtract(field, far, -np.inf)
    at = np.unravel_index(reference.argmax(), reference.shape)
    assert dirty(field)[at] == pytest.approx(reference[at], rel=0.002)


def around_the_crossing(n_antennas):
    """The antennas of both arms that are nearest to where these cross: 6 to 120 m apart, where the Sun is seen."""
    table = telescope.stations()
    arms = [
        table.itrf[[on and a == arm for a, on in zip(table.arm, table.active, strict=True)]] for arm in ("EW", "NS")
    ]
    apart = np.linalg.norm(arms[0][:, None] - arms[1], axis=-1)
    nearest = (apart.min(axis=1), apart.min(axis=0))
    return np.concatenate([arm[np.argsort(d)[: n_antennas // 2]] for arm, d in zip(arms, nearest, strict=True)])


def sun_in_parts(diameter_arcmin, flux):
    """The Sun as points over a uniform disk: Gauss's places in the square of the radius, even ones in angle.

    The sum is the disk's transform as far as its azimuth resolves it: 2 pi q r < 24, that is to 160 m.
    """
    at, share = np.polynomial.legendre.leggauss(5)
    turn = 2 * np.pi * np.arange(24) / 24
    radius = np.repeat(np.sqrt((at + 1) / 2), 24) * np.radians(diameter_arcmin / 60) / 2
    part = np.repeat(share / 2, 24) / 24
    east, north = radius * np.sin(np.tile(turn, 5)), radius * np.cos(np.tile(turn, 5))

    def toward(mjd, number):
        """(time, 3) earth-fixed unit vectors of a point, from astropy's altitude and azimuth of the Sun's middle."""
        middle = sun_earth_fixed(tuple(mjd))
        across = np.cross([0.0, 0.0, 1.0], middle)
        across /= np.linalg.norm(across, axis=-1, keepdims=True)
        there = middle + east[number] * across + north[number] * np.cross(middle, across)
        return there / np.linalg.norm(there, axis=-1, keepdims=True)

    return [(partial(toward, number=n), None, lambda t, f, n=n: flux(t, f) * part[n]) for n in range(120)]


@cache
def sun_earth_fixed(mjd):
    when, place = Time(mjd, format="mjd"), telescope.location()
    sun = get_body("sun", when, place).transform_to(AltAz(obstime=when, location=place))
    lat, lon = np.radians(telescope.LATITUDE_DEG), np.radians(telescope.LONGITUDE_DEG)
    up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    alt, az = sun.alt.rad[:, None], sun.az.rad[:, None]
    return np.sin(alt) * up + np.cos(alt) * (np.cos(az) * np.cross(up, east) + np.sin(az) * east)


@pytest.fixture(scope="module")
def sunny(direction_vectors):
    """A function (response) -> averaged visibilities of the Sun of 40 Jy and Cassiopeia A of 3 Jy, apparent, and one
    of their noise."""
    point = (np.radians(CAS_A.ra_deg), np.radians(CAS_A.dec_deg))

    def view(response, noise=0.0):
        bodies = [*sun_in_parts(32.0, response(40.0)), (*point, response(3.0))] if response else []
        made = observed(direction_vectors, bodies, SUNNY, noise=noise, where=around_the_crossing(12))
        return from_dataset(made, 0.003, 0.0237)

    return view


def per_sample(data, shortest=0.0, longest=np.inf):
    """Weighted mean power of the visibilities of baselines between two lengths (m)."""
    length = np.repeat(np.linalg.norm(data.uvw, axis=1), np.diff(data.offsets))
    here = (length >= shortest) & (length < longest)
    return float((data.weights[here] * np.abs(data.visibilities[here]) ** 2).sum() / here.sum())


WHOLE_SUN = replace(SUN, diameter_arcmin=32.0)


def test_the_disk_of_the_sun_and_a_point_fall_to_the_noise(sunny):
    noise, data = sunny(None, noise=NOISE), sunny(sidelobe)
    data.visibilities[:] += noise.visibilities
    before = per_sample(data) / per_sample(noise)
    fits = {fit.source.name: fit for fit in fit_and_subtract(data, [WHOLE_SUN, CAS_A])}
    assert all(fit.subtracted for fit in fits.values())
    for name, level, within in (("Sun", 40.0, 0.015), ("Cassiopeia A", 3.0, 0.1)):
        # three times the noise of a mean over 24 channels of some two baselines that see the whole Sun, and of
        # some ten that tell a point that is far
        expected = np.abs([sidelobe(level)(t, averaged_band(noise)).mean() for t in range(N_TIMES)])
        np.testing.assert_allclose(np.abs(fits[name].amplitude.mean(axis=1)), expected, rtol=within)
    assert before > 100
    # the shortest baselines have no say in the fit and get the error of its amplitudes whole: five coefficients to 24
    # channels of some two baselines' worth, a tenth of the noise's power, and what the next test finds; power of 432
    # samples scatters by 0.05
    for shortest, longest, within in ((0, 10, 0.25), (10, 30, 0.1), (30, 300, 0.05)):
        part = per_sample(data, shortest, longest) / per_sample(noise, shortest, longest)
        assert part == pytest.approx(1.0, abs=within)


def test_without_noise_what_is_left_of_the_disk_is_what_the_model_leaves_out(sunny):
    def flat(level):
        return lambda t, f: np.full(f.shape, level * (1 + 0.3 * t) * np.exp(0.5j * t))

    data = sunny(flat)
    before = per_sample(data)
    fits = fit_and_subtract(data, [WHOLE_SUN, CAS_A])
    # the rim is nearer than the middle by half the square of its distance from it, in all 5e-6 of a baseline: 0.005 rad
    for fit, level, within in zip(fits, (40.0, 3.0), (0.004, 0.04), strict=True):
        expected = [flat(level)(t, FREQUENCY)[:1] for t in range(N_TIMES)]
        assert np.abs(fit.amplitude - expected).mean() < within * level
    # the disk changes over an averaged channel by 0.3 % in scale, and is taken for its middle
    assert np.sqrt(per_sample(data) / before) < 0.003
    # a Sun of another size is not what is there: 34 arcmin for 32 leaves a tenth
    other = sunny(flat)
    fit_and_subtract(other, [SUN, CAS_A])
    assert 0.05 < np.sqrt(per_sample(other) / before) < 0.12


def test_a_bright_field_is_not_taken_for_far_sources(direction_vectors):
    ra, dec = meridian_icrs(np.array([SUNNY]), DEC)
    places = [(0.004, 0.006, 5.0), (-0.02, 0.01, 3.0), (0.015, -0.02, 2.0)]
    field = [(ra[0] + east / np.cos(DEC), dec[0] + north, steady(flux)) for east, north, flux in places]
    data = from_dataset(observed(direction_vectors, field, SUNNY, noise=0.5), 0.003, 0.0237)
    assert not any(fit.subtracted for fit in fit_and_subtract(data))


def test_nothing_is_subtracted_where_nothing_is(direction_vectors):
    data = from_dataset(observed(direction_vectors, [], SUNNY, noise=NOISE), 0.003, 0.0237)
    before = data.visibilities.copy()
    fits = fit_and_subtract(data, FAR_SOURCES)
    assert fits
    assert not any(fit.subtracted for fit in fits)
    assert max(abs(fit.sigma) for fit in fits) < 5.0
    np.testing.assert_array_equal(data.visibilities, before)


def test_sources_below_the_horizon_or_near_the_pointing_are_left_alone(direction_vectors):
    data = from_dataset(observed(direction_vectors, [], SUNNY, noise=NOISE), 0.003, 0.0237)
    near = FarSource("near", float(np.degrees(data.phase_center_ra)), 20.0, 0.0)
    down = FarSource("down", (float(np.degrees(data.phase_center_ra)) + 180) % 360, -30.0, 0.0)
    assert fit_and_subtract(data, [near, down]) == []


def test_the_sun_stands_where_astropy_has_it():
    mjd = 61066.8
    sun = get_sun(Time(mjd, format="mjd"))
    # of the geocentre; parallax is 9 arcsec
    assert solar_elongation(sun.ra.rad, sun.dec.rad, mjd) < 0.02
    assert solar_elongation(sun.ra.rad + np.radians(90), 0.0, mjd) == pytest.approx(90.0, abs=0.02)
    up = sun_at(mjd)
    zenith = np.array(SUN.apparent(mjd)) @ np.array(
        [
            np.cos(np.radians(telescope.LATITUDE_DEG)) * np.cos(np.radians(telescope.LONGITUDE_DEG)),
            np.cos(np.radians(telescope.LATITUDE_DEG)) * np.sin(np.radians(telescope.LONGITUDE_DEG)),
            np.sin(np.radians(telescope.LATITUDE_DEG)),
        ]
    )
    assert np.degrees(np.arcsin(zenith)) == pytest.approx(up, abs=0.02)

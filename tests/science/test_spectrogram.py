"""Wide carriers against the whole band: found, and nothing else taken for them. References: Rice, Rayleigh, astropy."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import EarthLocation
from scipy.constants import speed_of_light
from scipy.special import ive, j1

from dsa110_contimg import telescope
from dsa110_contimg.science import flagging, spectrogram

TIMES, CHANNELS, POLS = 24, 768, 2
FREQUENCY = np.linspace(1.3114e9, 1.4986e9, CHANNELS)
NOISE_JY = 2.88
"""Of the real part of one visibility: 6500 Jy, 244 kHz, 12.9 s, efficiency 0.9."""


def rice(strength):
    """Mean amplitude of a signal with noise, of that of noise alone (Laguerre polynomial L_1/2)."""
    z = np.asarray(strength, float) ** 2 / 4
    return (1 + 2 * z) * ive(0, z) + 2 * z * ive(1, z)


def observed(rng, strength, n_baselines, noise=1.0):
    """Baseline-averaged amplitude (time, channel, polarization) of a signal of a strength in sigma a visibility."""
    clean = np.broadcast_to(rice(strength)[..., None] * noise, (TIMES, CHANNELS, POLS))
    scatter = spectrogram.RAYLEIGH_SCATTER / np.sqrt(n_baselines)
    return clean * (1 + scatter * rng.normal(size=clean.shape))


def wide(mean, n_baselines, noise=None, sigma=6.0):
    noise = np.ones(mean.shape[1:]) if noise is None else noise
    return spectrogram.flag_wide(mean, np.full(mean.shape, n_baselines), noise, FREQUENCY, sigma)


def bandpass():
    """(channel, 1) ripple of a subband's filter, its roll-off, and steps of 40 % between subbands."""
    phase = np.arange(CHANNELS) % 48
    edge = 1 - 0.8 * np.exp(-np.minimum(phase, 47 - phase) / 2.0)
    steps = 1 + 0.4 * np.repeat(np.arange(16) % 3 - 1, 48)
    return (edge * steps * (1 + 0.1 * np.sin(phase * 0.9)))[:, None]


@pytest.mark.parametrize("n_baselines", [120, 1128, 4560])
@pytest.mark.parametrize("width", [10, 16, 48, 100, 300])
def test_steady_carriers_of_any_width_are_found_whole_from_the_stated_strength_on(rng, n_baselines, width):
    least = 2 * np.sqrt(6.0 * spectrogram.RAYLEIGH_SCATTER / np.sqrt(n_baselines))  # s^2 / 4 = threshold
    for first in (0, 333, CHANNELS - width):
        on = np.zeros(CHANNELS, bool)
        on[first : first + width] = True
        for strength in (1.15 * least, 3.0, 10.0, 100.0):  # s^2 / 4 holds for s < 1, and to 10 % at 1.2
            found = wide(observed(rng, strength * on, n_baselines), n_baselines)
            np.testing.assert_array_equal(found, np.repeat(on[:, None], POLS, axis=1))
        assert not wide(observed(rng, 0.8 * least * on, n_baselines), n_baselines).any()


def test_several_carriers_in_less_than_half_of_the_band_are_found_at_once(rng):
    on = np.zeros(CHANNELS)
    on[:100], on[200:240], on[500:510], on[650:] = 2.0, 5.0, 0.9, 1.2
    np.testing.assert_array_equal(wide(observed(rng, on, 4560), 4560).all(axis=1), on > 0)


def test_a_bandpass_with_ripple_and_steps_is_not_interference_and_hides_none(rng):
    noise = np.repeat(bandpass(), POLS, axis=1)
    assert not wide(observed(rng, 0.0, 1128, noise), 1128, noise).any()
    on = np.zeros(CHANNELS, bool)
    on[40:150] = True
    found = wide(observed(rng, 1.5 * on, 1128, noise), 1128, noise)
    np.testing.assert_array_equal(found.all(axis=1), on)
    # with the bandpass in it, the same spectrum is useless
    assert (wide(observed(rng, 1.5 * on, 1128, noise), 1128).all(axis=1) != on).mean() > 0.05


def test_noise_is_found_less_often_than_a_normal_deviate_says(rng):
    """At 3 sigma one channel in 740 would be, if the sky's scatter were that of noise; it is sqrt(24) times more."""
    assert not any(wide(observed(rng, 0.0, n), n, sigma=3.0).any() for n in (120, 1128, 4560) for _ in range(5))


# ---- the sky ------------------------------------------------------------------------------------------------------


def sky(n_antennas, fluxes, offsets_deg, index):
    """(channel,) amplitude in sigma of sources in the beam, averaged over real baselines, each a Rice mean.

    Airy beam, positions of the stations. At rest: a sky that drifts differs less from one channel to another.
    """
    table = telescope.stations()
    chosen = np.flatnonzero(table.active)[:: max(1, 96 // n_antennas)][:n_antennas]
    place = EarthLocation.from_geocentric(*table.itrf[chosen].T, unit=u.m)
    east = np.radians((place.lon - place.lon.mean()).deg) * 6.37e6 * np.cos(place.lat.rad.mean())
    north = np.radians((place.lat - place.lat.mean()).deg) * 6.37e6
    i, j = np.triu_indices(len(chosen), 1)
    base = np.stack([east[i] - east[j], north[i] - north[j]], axis=-1)
    total = np.zeros((len(base), CHANNELS), np.complex64)
    for flux, (x, y) in zip(fluxes, np.radians(offsets_deg), strict=True):
        seen = np.pi * 4.65 * np.hypot(x, y) * FREQUENCY / speed_of_light
        apparent = flux * (FREQUENCY / 1.4e9) ** index * (2 * j1(seen) / seen) ** 2
        turns = np.outer(base @ (x, y), FREQUENCY) / speed_of_light
        total += apparent * np.exp(2j * np.pi * (turns % 1).astype(np.float32))
    table = np.linspace(0, 60, 6000)
    return np.interp(np.abs(total) / NOISE_JY, table, rice(table)).mean(axis=0)


@pytest.mark.parametrize("n_antennas", [16, 48, pytest.param(96, marks=pytest.mark.campaign)])
@pytest.mark.parametrize(
    ("fluxes", "offsets"),
    [
        ((15.0,), ((0.3, 0.4),)),  # a calibrator
        ((22.0,), ((-0.2, 1.5),)),  # beyond the half-power radius
        ((10.0, 9.0), ((0.4, 0.1), (-0.5, 0.3))),  # two of them, which beat on short baselines
        ((9.0, 6.0, 5.0, 4.0), ((0.4, 0.1), (-0.9, 0.3), (0.1, -1.0), (0.5, 0.6))),
        ((1600.0,), ((0.0, 3.2),)),  # Cygnus A at the first null, which crosses the band
        ((900.0,), ((0.3, 4.3),)),  # Virgo A and more in the first sidelobe
    ],
    ids=["calibrator", "off-axis", "two", "four", "null", "sidelobe"],
)
def test_a_strong_sky_is_not_interference(rng, n_antennas, fluxes, offsets):
    n_baselines = n_antennas * (n_antennas - 1) // 2
    mean = sky(n_antennas, fluxes, offsets, -0.7)[:, None] * np.ones((TIMES, 1, POLS))
    mean = mean * (1 + spectrogram.RAYLEIGH_SCATTER / np.sqrt(n_baselines) * rng.normal(size=mean.shape))
    assert not wide(mean, n_baselines).any()


def test_a_carrier_beside_a_calibrator_is_found(rng):
    on = np.zeros(CHANNELS, bool)
    on[300:360] = True
    mean = sky(48, (15.0,), ((0.3, 0.4),), -0.7)[:, None] * np.ones((TIMES, 1, POLS))
    mean = mean * np.where(on, 1.3, 1.0)[:, None]
    mean = mean * (1 + spectrogram.RAYLEIGH_SCATTER / np.sqrt(1128) * rng.normal(size=mean.shape))
    np.testing.assert_array_equal(wide(mean, 1128).all(axis=1), on)


# ---- what is missing ----------------------------------------------------------------------------------------------


def test_bursts_that_were_left_out_do_not_make_a_step_where_the_sky_changes(rng):
    """A calibrator grows by a third within the group; without its last integrations a channel is fainter."""
    mean = observed(rng, 0.0, 4560) * np.linspace(1.0, 1.35, TIMES)[:, None, None]
    mean[16:, 200:344] = np.nan
    assert not wide(mean, 4560).any()


def test_missing_subbands_and_channels_without_a_mean_are_no_background(rng):
    on = np.zeros(CHANNELS, bool)
    on[500:560] = True
    mean = observed(rng, 2.0 * on, 1128)
    mean[:, 96:144], mean[:, 510:515] = np.nan, np.nan
    noise = np.ones((CHANNELS, POLS))
    noise[96:144] = np.nan
    np.testing.assert_array_equal(
        wide(mean, 1128, noise).all(axis=1), on & ~np.isin(np.arange(CHANNELS), np.arange(510, 515))
    )


def test_a_narrow_band_or_no_power_says_nothing(rng):
    mean = observed(rng, 3.0 * (np.arange(CHANNELS) < 100), 1128)
    part = spectrogram.flag_wide(mean[:, :180], np.full((24, 180, 2), 1128), np.ones((180, 2)), FREQUENCY[:180], 6.0)
    assert not part.any()
    assert not wide(mean, 1128, np.full((CHANNELS, POLS), np.nan)).any()


def test_the_noise_of_the_mean_baseline_is_that_of_all_pairs(rng):
    power = rng.uniform(0.5, 2.0, (7, 5, 2))
    power[3] = np.nan
    hands = [(0, 0), (0, 1), (1, 0), (1, 1)]
    got = spectrogram.noise_amplitude(power, hands)
    alive = [0, 1, 2, 4, 5, 6]
    for pol, (x, y) in enumerate(hands):
        pairs = [np.sqrt(power[i, :, x] * power[j, :, y]) for i in alive for j in alive if i != j]
        np.testing.assert_allclose(got[:, pol], np.mean(pairs, axis=0))
    power[:6] = np.nan
    assert np.isnan(spectrogram.noise_amplitude(power, hands)).all()


@pytest.mark.parametrize("width", [10, 20, 40, 100])
@pytest.mark.parametrize("strength", [3, 6, 30])
def test_carriers_in_visibilities_with_a_bandpass_are_found(rng, width, strength):
    """From visibilities and autocorrelations on, through the outliers, which take some and shift the mean."""
    n_antennas, first = 10, 300
    one, two = np.triu_indices(n_antennas, 1)
    gain = rng.uniform(0.6, 1.5, (n_antennas, 1)) * bandpass()[:, 0]
    shape = (4, one.size, CHANNELS, 1)
    data = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    data[:, :, first : first + width] += strength * np.exp(2j * np.pi * rng.random((one.size, 1, 1)))
    data = (data * (gain[one] * gain[two])[..., None]).astype(np.complex64)
    sums = []
    for low in range(0, CHANNELS, 48):
        part = np.ascontiguousarray(data[:, :, low : low + 48, 0])
        causes = np.empty(part.shape, np.uint8)
        known = np.zeros(one.size, np.uint8)
        sums.append(flagging.examine(part, np.zeros(part.shape, bool), known, 1, 7.0, causes))
    total, count, seen = (np.concatenate([s[k] for s in sums], axis=1)[..., None] for k in range(3))
    noise = spectrogram.noise_amplitude((gain**2)[..., None], [(0, 0)])
    found = spectrogram.common_interference(total, count, seen, 6.0, noise, FREQUENCY)[..., 0]
    assert found[:, first : first + width].all()
    found[:, first : first + width] = False
    assert found.mean() < 0.001

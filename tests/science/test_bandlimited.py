"""Sources summed at few nodes and taken to all channels, against every channel by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg import telescope
from dsa110_contimg.science import bandlimited, predict

WIDTH = telescope.CHANNEL_WIDTH_HZ
POLE = predict.pole(np.radians(16.6))
BAND = 1.3115e9 + WIDTH * np.arange(768)


def directions(radius_deg, n, random):
    angle, place = np.radians(radius_deg) * np.sqrt(random.uniform(0, 1, n)), random.uniform(0, 2 * np.pi, n)
    l, m = np.sin(angle) * np.cos(place), np.sin(angle) * np.sin(place)
    return np.stack([l, m, np.sqrt(1 - l**2 - m**2) - 1], axis=-1)


def rows(n, random):
    length, angle = 10 ** random.uniform(0.8, 3.42, n), random.uniform(0, 2 * np.pi, n)
    return np.stack([length * np.cos(angle), length * np.sin(angle), random.normal(0, 30, n)], axis=-1)


def exact(uvw, time, frequencies, lmn, offset, spectra, seconds):
    """One channel at a time, each with its own rate."""
    out = np.empty((len(uvw), len(frequencies)), np.complex64)
    for k, f in enumerate(frequencies):
        at = np.array([f])
        out[:, k] = predict.predict(uvw, time, at, lmn, offset, spectra(at), POLE, seconds, WIDTH)[:, 0]
    return out


def case(seed, radius_deg, n_sources):
    random = np.random.default_rng(seed)
    lmn, uvw = directions(radius_deg, n_sources, random), rows(80, random)
    shift = np.array([0.002, 0.0, 0.0])
    offset = np.stack([lmn - shift, lmn + shift])
    flux, index = random.exponential(0.1, n_sources), random.normal(-0.7, 0.3, n_sources)
    scale = np.array([1.0, 0.8])[:, None, None]

    def spectra(f):
        return (scale * (flux * (f[:, None] / 1.4e9) ** index)[None]).astype(np.float32)

    return uvw, random.integers(0, 2, 80), lmn, offset, spectra, flux


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from(["whole", "gap", "subband", "few"]))
def test_every_channel_is_true_to_the_accuracy_of_the_fluxes(seed, radius_deg, band):
    keep = {"whole": slice(None), "gap": np.r_[0:192, 288:768], "subband": slice(0, 48), "few": slice(0, 5)}[band]
    uvw, time, lmn, offset, spectra, flux = case(seed, radius_deg, 30)
    # without an integration's length there is no rate to be taken at the middle of a run
    here = BAND[keep], WIDTH, (lmn, offset), spectra, POLE, 0.0
    found = bandlimited.predict_band(uvw, time, *here)
    truth = exact(uvw, time, BAND[keep], lmn, offset, spectra, 0.0)
    # the interpolators, and the spectrum between points of 6 MHz; single precision over 100 nodes
    assert np.abs(found - truth).max() < 3 * bandlimited.ACCURACY * flux.sum()


def test_smearing_is_that_of_the_middle_of_a_run():
    uvw, time, lmn, offset, spectra, flux = case(3, 1.35, 30)
    seconds = telescope.INTEGRATION_S
    found = bandlimited.predict_band(uvw, time, BAND, WIDTH, (lmn, offset), spectra, POLE, seconds)
    truth = exact(uvw, time, BAND, lmn, offset, spectra, seconds)
    # loss (pi x)^2 / 6 with x up to 0.35 turns, the rate wrong by 1.7 % at the ends of a run
    assert np.abs(found - truth).max() < 0.01 * flux.sum()
    assert abs((found / truth).mean() - 1) < 5e-4


@pytest.mark.parametrize(
    ("nodes", "turns", "n"),
    [(nodes, turns, n) for nodes, turns, _ in bandlimited._CLASSES for n in (48, 192) if nodes < 0.7 * n],
)
def test_interpolators_follow_all_delays_of_their_class(nodes, turns, n):
    places, matrix = bandlimited.interpolator(n, nodes)
    delays = np.linspace(-turns, turns, 1001) / n
    got = np.exp(2j * np.pi * np.outer(delays, places)) @ matrix
    wanted = np.exp(2j * np.pi * np.outer(delays, np.arange(n)))
    assert np.abs(got - wanted).max() < bandlimited.ACCURACY

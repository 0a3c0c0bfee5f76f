"""What averaging takes, against the averaging itself done sample by sample."""

import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.beam import airy_power, separation
from dsa110_contimg.science.coordinates import direction_cosines
from dsa110_contimg.science.smearing import surviving_fraction
from dsa110_contimg.science.weighting import imaging_weights

LIGHT = 299_792_458.0
DEC, RA = np.radians(16.6), 1.4
OMEGA = 7.292115e-5


def brute_force(uvw_at, dataset, data, weights, ra, dec):
    """Mean over the image's weights of a source's visibility, averaged in time and frequency, over its true one.

    Every integration is 33 moments whose fringes are stopped at the sky point that is on the meridian at its middle;
    every channel is 9 frequencies.
    """
    seconds = (dataset["time"].to_numpy() - 61066.2) * 86400
    fine_t = np.linspace(-0.5, 0.5, 34)[:-1] + 1 / 66
    fine_f = (np.arange(9) - 4) / 9 * dataset.attrs["channel_width"]
    source = direction_cosines(ra, dec, RA, DEC) - [0, 0, 1]
    channel = np.concatenate([dataset["frequency"].to_numpy()])
    total = norm = 0.0
    n_pairs = dataset["baseline_id"].size
    w4 = np.zeros((len(seconds), n_pairs, len(channel)))
    for row in range(len(data.uvw)):
        here = data.channels[data.channels_index[row]]
        w4[divmod(row, n_pairs)] = np.repeat(
            weights[data.offsets[row] : data.offsets[row + 1]] / here.factor, here.factor
        )
    for t, second in enumerate(seconds):
        pointing = direction_cosines(RA + OMEGA * second, DEC, RA, DEC) - [0, 0, 1]
        beam = airy_power(separation(ra, dec, RA + OMEGA * second, DEC), 1.405e9)
        moments = uvw_at(16, OMEGA * (second + fine_t * telescope.INTEGRATION_S), DEC)
        middle = uvw_at(16, np.array([OMEGA * second]), DEC)[0]
        path = moments @ (source - pointing) - middle @ (source - pointing)
        delay = middle @ (source - pointing) / LIGHT
        in_time = np.exp(2j * np.pi * path[..., None] * channel / LIGHT).mean(axis=0)
        in_band = np.exp(2j * np.pi * delay[:, None] * fine_f).mean(axis=1)[:, None]
        fringe = np.exp(2j * np.pi * (middle @ source)[:, None] * channel / LIGHT)
        smeared = in_time * in_band * fringe
        # imaging's own averaging: channels summed as they stand, then turned back at their mean frequency
        for pair in range(n_pairs):
            n = data.channels[data.channels_index[t * n_pairs + pair]].factor
            mean = smeared[pair].reshape(-1, n).mean(axis=1)
            at = channel.reshape(-1, n).mean(axis=1)
            left = mean * np.exp(-2j * np.pi * (middle[pair] @ source) * at / LIGHT)
            weight = beam * w4[t, pair].reshape(-1, n).sum(axis=1)
            total += (weight * left.real).sum()
            norm += weight.sum()
    return total / norm


@pytest.mark.parametrize(("east", "north"), [(0.0, 0.0), (0.021, 0.0), (-0.012, 0.018), (0.0, -0.024)])
def test_the_fraction_is_that_of_explicit_averaging(observe, uvw_at, east, north):
    dataset = observe([], n_times=6, n_channels=96)
    dataset["time"] = 61066.2 + (dataset["time"] - 61066.2) * 4  # spread over a whole group
    dataset["pointing_ra"] = ("time", RA + OMEGA * (dataset["time"].to_numpy() - 61066.2) * 86400)
    seconds = (dataset["time"].to_numpy() - 61066.2) * 86400
    dataset["UVW"] = (dataset["UVW"].dims, uvw_at(16, OMEGA * seconds, DEC))
    data = from_dataset(dataset, 0.02, 0.0237)
    weights = imaging_weights(data, 1024, np.radians(6 / 3600), "briggs", 0.0)
    ra, dec = RA + east / np.cos(DEC), DEC + north
    expected = brute_force(uvw_at, dataset, data, weights, ra, dec)
    # the loss is sampled from 30,000 visibilities: true to 1 % of itself
    assert surviving_fraction(ra, dec, data, weights) == pytest.approx(expected, abs=2e-5 + 0.015 * (1 - expected))


def test_a_source_that_is_tracked_at_the_phase_centre_loses_nothing(observe):
    dataset = observe([], n_times=3)
    dataset["pointing_ra"][:] = RA
    data = from_dataset(dataset, 0.01, 0.0237)
    assert surviving_fraction(RA, DEC, data, data.weights) == pytest.approx(1.0, abs=1e-12)


def test_an_integration_costs_what_the_facts_say_at_half_power(observe):
    """0.8 % for Briggs 0 of the whole array; within 0.4 % for a sixth of its antennas."""
    dataset = observe([], n_channels=768, n_times=2)
    data = from_dataset(dataset, 0.0, 0.0237)
    weights = imaging_weights(data, 2400, np.radians(6 / 3600), "briggs", 0.0)
    loss = 1 - surviving_fraction(RA + 0.0237 / np.cos(DEC), DEC, data, weights)
    assert 0.003 < loss < 0.02

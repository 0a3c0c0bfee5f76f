"""The response kept with an image."""

import numpy as np
import pytest

from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.beam import drift_averaged
from dsa110_contimg.science.response import image_response
from dsa110_contimg.science.weighting import imaging_weights


@pytest.fixture(scope="module")
def data(observe):
    dataset = observe([], n_channels=768, n_times=5)
    dataset["FLAG"][1, :, 100:400] = True
    dataset["FLAG"][3, 20:] = True
    return from_dataset(dataset, 0.003, 0.0237)


def exact(data, weights, *args):
    """By every channel of every visibility."""
    frequencies = np.unique(np.concatenate([c.frequencies for c in data.channels]))
    table = np.zeros((len(data.track.mjd), len(frequencies)))
    for row in range(len(data.uvw)):
        column = np.searchsorted(frequencies, data.channels[data.channels_index[row]].frequencies)
        table[data.time_index[row], column] += weights[data.offsets[row] : data.offsets[row + 1]]
    return drift_averaged(
        args[0], args[1], data.track.pointing_ra, data.track.pointing_dec, frequencies, table, args[2]
    )


@pytest.mark.parametrize("index", [0.0, -0.7, -3.0])
def test_bins_of_frequency_are_fine_enough(data, index):
    weights = imaging_weights(data, 1024, 3e-5, "briggs", 0.5)
    response = image_response(data, weights)
    ra, dec = 1.4 + np.array([0.0, 0.02, -0.03]), np.radians(16.6) + np.array([0.0, 0.012, 0.02])
    np.testing.assert_allclose(response.at(ra, dec, index), exact(data, weights, ra, dec, index), rtol=2e-4)
    assert response.weights.sum() == pytest.approx(weights.sum(dtype=float), rel=1e-5)


def test_equal_pointings_are_merged_without_changing_the_response(data):
    data.track.pointing_ra[:2] = data.track.pointing_ra[2]
    response = image_response(data, data.weights)
    merged = response.merged()
    assert len(merged.pointing_ra) == len(response.pointing_ra) - 2
    assert merged.at(1.41, 0.3) == pytest.approx(response.at(1.41, 0.3), rel=1e-12)


def test_the_mean_frequency_is_that_of_the_weights(data):
    f = np.concatenate([data.channels[c].frequencies for c in data.channels_index])
    expected = (data.weights * f).sum() / data.weights.sum(dtype=float)
    assert image_response(data, data.weights).mean_frequency_hz == pytest.approx(expected, rel=1e-9)

"""Parts of an observation: nothing lost, nothing twice, and images that add up to the whole."""

import numpy as np
import pytest

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.cubes import band_edges, by_frequency, by_time, image_parts
from dsa110_contimg.science.gridding import Gridder

N, CELL = 256, np.radians(12.0 / 3600)
PARTS = {"frequency": lambda data: by_frequency(data, 4), "time": by_time}


@pytest.fixture(scope="module")
def data(observe):
    return from_dataset(observe([(0.002, 0.001, 1.0)], n_antennas=12, noise_jy=0.5), 0.003, 0.0237)


def dirty(data):
    return Gridder(data, data.weights, N, CELL, 1e-5, 2).dirty(data.visibilities)


@pytest.mark.parametrize("axis", list(PARTS))
def test_every_visibility_is_in_one_part_and_the_parts_images_average_to_the_whole(data, axis):
    parts = list(PARTS[axis](data))
    assert len(parts) == 4
    assert len({c.factor for c in data.channels}) > 1
    assert sum(len(p.weights) for p in parts) == len(data.weights)
    together = np.concatenate([p.visibilities for p in parts])
    np.testing.assert_array_equal(np.sort_complex(together), np.sort_complex(data.visibilities))
    total = sum(p.weights.sum(dtype=float) * dirty(p) for p in parts) / data.weights.sum(dtype=float)
    np.testing.assert_allclose(total, dirty(data), atol=2e-4)


def test_subbands_hold_their_own_frequencies_and_integrations_their_own_time(data):
    edges = band_edges(data, 4)
    for low, high, part in zip(edges[:-1], edges[1:], by_frequency(data, 4), strict=True):
        for channels in part.channels:
            assert low <= channels.frequencies.min() <= channels.frequencies.max() < high
    for t, part in enumerate(by_time(data)):
        assert part.track.mjd == data.track.mjd[t]
        assert part.track.pointing_ra == data.track.pointing_ra[t]
        assert not part.time_index.any()


def test_a_part_without_weight_is_none_and_all_without_are_an_error(observe):
    sky = observe([(0.002, 0.001, 1.0)], n_antennas=8)
    sky["FLAG"][:, :, 12:24] = True
    sky["FLAG"][2] = True
    data = from_dataset(sky, 0.0, 0.0237)
    assert [part is None for part in by_frequency(data, 4)] == [False, True, False, False]
    assert [part is None for part in by_time(data)] == [False, False, True, False]
    with pytest.raises(ImagingError, match="flagged"):
        list(image_parts(iter([None, None]), lambda _, part: part))

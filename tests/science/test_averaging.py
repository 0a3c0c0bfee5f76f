"""Stokes I and the averaging of channels: nothing is lost but what the budget allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.averaging import averaging_factors, concatenate, from_dataset

LIGHT = 299_792_458.0
RADIUS = 0.0237


WIDTH = 244140.625


def image_loss(uv, factor, weight, angle):
    """Of a source at RADIUS in a direction: exact, beyond what single channels lose."""
    delay = RADIUS * (uv @ [np.cos(angle), np.sin(angle)]) / LIGHT
    kept = np.sinc(delay * factor * WIDTH) / np.sinc(delay * WIDTH)
    return 1 - (weight * kept).sum() / weight.sum()


@given(st.integers(0, 10**6), st.floats(1e-4, 0.02), st.sampled_from([1, 48, 768, 7]))
def test_no_direction_loses_more_than_the_budget(seed, loss, n_channels):
    random = np.random.default_rng(seed)
    length = 10 ** random.uniform(0.7, 3.42, 200)
    angle, weight = random.uniform(0, 2 * np.pi, 200), random.uniform(0, 1, 200)
    uv = np.stack([length * np.cos(angle), 0.4 * length * np.sin(angle)], axis=-1)
    factor = averaging_factors(uv, loss, RADIUS, WIDTH, n_channels, weight)
    assert (n_channels % factor == 0).all()
    worst = max(image_loss(uv, factor, weight, a) for a in np.linspace(0, np.pi, 19))
    # the budget is kept to second order; of a row that loses ten times as much the next order is one per cent
    assert worst <= loss * 1.01 + 1e-9
    turns = np.hypot(*uv.T) * RADIUS * WIDTH / LIGHT
    rows = 1 - np.sinc(turns * factor) / np.sinc(turns)
    assert rows.max() <= 10 * loss + 1e-9


def test_the_budget_is_spent(observe):
    random = np.random.default_rng(2)
    uv = random.normal(0, 600, (3000, 2))
    factor = averaging_factors(uv, 0.003, RADIUS, WIDTH, 768)
    worst = max(image_loss(uv, factor, np.ones(3000), a) for a in np.linspace(0, np.pi, 19))
    assert 0.0028 < worst <= 0.003


def test_short_baselines_are_averaged_further_than_long_ones_which_are_averaged_too():
    uv = np.stack([np.linspace(10, 2600, 500), np.zeros(500)], axis=-1)
    factor = averaging_factors(uv, 0.003, RADIUS, WIDTH, 768)
    assert (np.diff(factor) <= 0).all()
    assert factor[0] == 16
    assert 1 <= factor[-1] <= 3
    np.testing.assert_array_equal(averaging_factors(uv, 0.0, RADIUS, WIDTH, 768), 1)


def test_rows_that_weigh_more_are_averaged_less():
    uv = np.full((100, 2), 500.0)
    weight = np.where(np.arange(100) < 50, 1.0, 5.0)
    factor = averaging_factors(uv, 0.003, RADIUS, WIDTH, 768, weight)
    assert factor[0] > factor[-1]


def test_weights_and_flux_survive_averaging(observe):
    dataset = observe([(0.0, 0.0, 2.0)])
    data = from_dataset(dataset, 0.01, RADIUS)
    assert len(data.weights) < dataset["VISIBILITY"].size / 2
    assert data.weights.sum(dtype=float) == pytest.approx(dataset["WEIGHT"].size)
    np.testing.assert_allclose(data.visibilities, 2.0, rtol=1e-5)


def test_either_hand_alone_is_stokes_i_and_counts_half(observe):
    dataset = observe([(0.0, 0.0, 3.0)])
    dataset["FLAG"][:, :, :, 0] = True
    dataset["VISIBILITY"][:, :, :, 0] = np.nan
    data = from_dataset(dataset, 0.0, RADIUS)
    np.testing.assert_allclose(data.visibilities, 3.0, rtol=1e-5)
    np.testing.assert_array_equal(data.weights, 1.0)


def test_hands_are_weighted_by_their_weights(observe):
    dataset = observe([])
    dataset["VISIBILITY"][..., 0], dataset["VISIBILITY"][..., 1] = 1.0, 4.0
    dataset["WEIGHT"][..., 0] = 3.0
    data = from_dataset(dataset, 0.0, RADIUS)
    np.testing.assert_allclose(data.visibilities, (3.0 * 1.0 + 4.0) / 4.0, rtol=1e-6)


def test_cross_hands_are_left_out(observe):
    two = observe([(0.01, 0.0, 1.0)])
    four = two.isel(polarization=[0, 0, 1, 1]).assign_coords(polarization=["XX", "XY", "YX", "YY"])
    four["VISIBILITY"][..., 1:3] = 99.0
    np.testing.assert_array_equal(
        from_dataset(four, 0.0, RADIUS).visibilities, from_dataset(two, 0.0, RADIUS).visibilities
    )


def test_the_frequency_of_an_averaged_channel_is_that_of_its_unflagged_data(observe):
    dataset = observe([(0.01, 0.01, 1.0)], n_channels=768, n_times=2)
    dataset["FLAG"][:, :, 4:8] = True
    data = from_dataset(dataset, 0.05, RADIUS)
    which = int(np.argmax([c.factor for c in data.channels]))
    widest = data.channels[which]
    assert widest.factor == 16
    use = np.r_[0:4, 8:16]
    assert widest.frequencies[0] == pytest.approx(dataset["frequency"].to_numpy()[use].mean(), abs=1.0)
    assert widest.frequencies[1] == pytest.approx(dataset["frequency"].to_numpy()[16:32].mean(), abs=1.0)
    for row in np.flatnonzero(data.channels_index == which)[:5]:
        l, m = 0.01, 0.01
        delay = data.uvw[row] @ [l, m, np.sqrt(1 - l**2 - m**2) - 1] / LIGHT
        got = np.angle(data.visibilities[data.offsets[row]])
        turn = (got / (2 * np.pi) - delay * widest.frequencies[0] + 0.5) % 1 - 0.5
        assert abs(turn) < 2e-3


def test_autocorrelations_are_not_imaged(observe):
    dataset = observe([(0.0, 0.0, 1.0)])
    dataset["baseline_antenna2_name"][0] = dataset["baseline_antenna1_name"][0]
    dataset["VISIBILITY"][:, 0] = 1e6
    assert np.abs(from_dataset(dataset, 0.003, RADIUS).visibilities).max() < 1.001


def test_baselines_that_a_time_lacks_may_have_no_uvw(observe):
    dataset = observe([(0.0, 0.0, 1.0)])
    dataset["UVW"][1, 3:] = np.nan
    dataset["FLAG"][1, 3:] = True
    data = from_dataset(dataset, 0.003, RADIUS)
    assert np.isfinite(data.uvw).all()
    assert data.weights.sum(dtype=float) == (~dataset["FLAG"].to_numpy()).sum()


def test_the_noise_of_a_visibility_follows_from_the_radiometer(observe):
    dataset = observe([], noise_jy=0.3, n_times=8)
    sigma = telescope.visibility_noise(dataset.attrs["channel_width"], telescope.INTEGRATION_S)
    dataset["VISIBILITY"] = dataset["VISIBILITY"] * np.complex64(sigma / 0.3)
    dataset["WEIGHT"] = dataset["WEIGHT"] * np.float32(17.0)  # their unit must not matter
    data = from_dataset(dataset, 0.02, RADIUS)
    normal = data.visibilities * np.sqrt(data.weights / data.unit_variance)
    tolerance = 4 / np.sqrt(2 * normal.size)
    assert normal.real.std() == pytest.approx(1.0, abs=tolerance)
    assert normal.imag.std() == pytest.approx(1.0, abs=tolerance)


def test_the_noise_of_another_telescope_is_not_known(observe):
    dataset = observe([])
    dataset.attrs["telescope_name"] = "VLA"
    assert np.isnan(from_dataset(dataset, 0.0, RADIUS).unit_variance)


def test_lazy_and_loaded_data_give_the_same(observe, monkeypatch):
    dataset = observe([(0.01, 0.0, 1.0)])
    whole = from_dataset(dataset, 0.003, RADIUS)
    monkeypatch.setattr("dsa110_contimg.science.averaging._CHUNK_BYTES", 1)
    parts = from_dataset(dataset.chunk(time=1), 0.003, RADIUS)
    np.testing.assert_array_equal(whole.visibilities, parts.visibilities)


def test_several_windows_become_one_set_of_rows(observe):
    dataset = observe([(0.01, 0.0, 1.0)])
    low, high = dataset.isel(frequency=slice(0, 24)), dataset.isel(frequency=slice(24, 48))
    parts = [from_dataset(d, 0.0, RADIUS) for d in (low, high)]
    both = concatenate(parts)
    assert len(both.uvw) == 2 * len(parts[0].uvw)
    row = len(parts[0].uvw) + 5
    here = both.visibilities[both.offsets[row] : both.offsets[row + 1]]
    np.testing.assert_array_equal(here, parts[1].visibilities[parts[1].offsets[5] : parts[1].offsets[6]])
    np.testing.assert_array_equal(both.channels[both.channels_index[row]].frequencies, high["frequency"])
    assert both.track.mjd[both.time_index[row]] == parts[1].track.mjd[parts[1].time_index[5]]


def test_what_cannot_be_imaged_is_an_error(observe):
    flagged, broken, mixed = observe([]), observe([]), observe([])
    flagged["FLAG"][:] = True
    with pytest.raises(ImagingError, match="flagged"):
        from_dataset(flagged, 0.0, RADIUS)
    broken["VISIBILITY"][0, 0, 0, 0] = np.nan
    with pytest.raises(ImagingError, match="not finite"):
        from_dataset(broken, 0.0, RADIUS)
    with pytest.raises(ImagingError, match="parallel hands"):
        from_dataset(mixed.isel(polarization=[0]), 0.0, RADIUS)
    elsewhere = observe([])
    elsewhere.attrs["phase_center_ra"] = 1.5
    with pytest.raises(ImagingError, match="phase centres"):
        concatenate([from_dataset(d, 0.0, RADIUS) for d in (mixed, elsewhere)])
    with pytest.raises(ImagingError, match="no visibilities"):
        concatenate([])

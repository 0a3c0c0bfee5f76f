"""Averages are weighted means that leave flagged data out, and their stated loss is that of an explicit average."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.beam import half_power_radius
from dsa110_contimg.science.phasing import phase_to
from dsa110_contimg.science.reduction import average, averaging_loss

HERE = (1.4, 0.29)
OMEGA = 7.2921e-5


def noisy(view, seed=1):
    rng = np.random.default_rng(seed)
    shape = view.VISIBILITY.shape
    view["VISIBILITY"][...] = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    return view


def bins(array, integrations, channels):
    """(time, integration, baseline, frequency, channel, polarization)."""
    t, b, f, p = array.shape
    return np.asarray(array).reshape(t // integrations, integrations, b, f // channels, channels, p)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(channels=st.sampled_from([1, 2, 4, 16]), integrations=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99))
def test_an_average_is_the_weighted_mean_of_what_is_not_flagged(looking_at, channels, integrations, seed):
    view = noisy(looking_at([(1.41, 0.3, 1.0)], HERE, seed=seed), seed)
    out = average(view, channels, integrations)
    weight = bins(view.WEIGHT.where(~view.FLAG, 0.0), integrations, channels).astype(float)
    for name in ("VISIBILITY", "MODEL"):
        summed = (bins(view[name], integrations, channels) * weight).sum(axis=(1, 4))
        expected = np.divide(summed, weight.sum(axis=(1, 4)), out=np.zeros_like(summed), where=~out.FLAG.to_numpy())
        np.testing.assert_allclose(out[name], expected, rtol=0, atol=5e-7)
    np.testing.assert_allclose(out.WEIGHT, weight.sum(axis=(1, 4)), rtol=1e-6)
    np.testing.assert_array_equal(out.FLAG, weight.sum(axis=(1, 4)) == 0)
    by_time = weight.sum(axis=(3, 4, 5))
    uvw = view.UVW.to_numpy().reshape(-1, integrations, *view.UVW.shape[1:])
    np.testing.assert_allclose(out.UVW, (uvw * by_time[..., None]).sum(1) / by_time.sum(1)[..., None], atol=1e-9)
    assert schema.faults(out, schema.VISIBILITIES) == []


def test_averaging_nothing_changes_nothing_that_is_not_flagged(looking_at):
    view = noisy(looking_at([], HERE))
    out = average(view)
    np.testing.assert_allclose(out.VISIBILITY.where(~view.FLAG, 0), view.VISIBILITY.where(~view.FLAG, 0), rtol=2e-7)
    np.testing.assert_array_equal(out.UVW, view.UVW)
    assert out.attrs["averaging_loss_half_power"] == 0.0


def test_flagged_and_broken_data_have_no_say(looking_at):
    view = looking_at([(*HERE, 2.0)], HERE)
    view["FLAG"][...] = False
    view["FLAG"][:, 0] = True
    view["FLAG"][0, 1, :3], view["VISIBILITY"][0, 1, :3] = True, 1e9
    view["VISIBILITY"][1, 2, 5] = np.nan
    view["WEIGHT"][1, 3, 2], view["VISIBILITY"][1, 3, 2] = 0.0, 77.0
    out = average(view, channels=4, integrations=2)
    assert out.FLAG[:, 0].all() and (out.WEIGHT[:, 0] == 0).all()
    assert not out.FLAG[:, 1:].any()
    np.testing.assert_allclose(out.VISIBILITY[:, 1:], 2.0, rtol=1e-6)


def test_coordinates_are_those_of_the_members(looking_at):
    view = looking_at([], HERE).assign_coords(
        pointing_ra=("time", [6.282, 6.283, 0.0002, 0.0012]), scan_name=("time", ["1", "1", "1", "1"])
    )
    view.frequency.attrs["channel_width"] = {"dims": (), "data": 2.0, "attrs": {"units": "Hz"}}
    out = average(view, channels=4, integrations=4)
    assert out.sizes["time"] == 1 and out.sizes["frequency"] == 4
    assert float(out.time[0]) == pytest.approx(float(view.time.mean()), abs=1e-12)
    assert out.frequency.to_numpy() == pytest.approx(view.frequency.to_numpy().reshape(4, 4).mean(axis=1))
    # across 0 h
    assert float(out.pointing_ra[0]) == pytest.approx((6.282 + 6.283 - 4 * np.pi + 0.0014) / 4 % (2 * np.pi), abs=1e-9)
    assert out.attrs["channel_width"] == 4 * telescope.CHANNEL_WIDTH_HZ
    assert out.attrs["integration_time"] == 4 * telescope.INTEGRATION_S
    assert (out.attrs["averaged_channels"], out.attrs["averaged_integrations"]) == (4, 4)
    assert "antenna_position" in out.coords and list(out.scan_name.to_numpy()) == ["1"]
    assert out.frequency.attrs["channel_width"]["data"] == 8.0
    assert view.frequency.attrs["channel_width"]["data"] == 2.0


def test_averaging_twice_is_averaging_once(looking_at):
    view = noisy(looking_at([], HERE))
    once, twice = average(view, 8, 4), average(average(view, 4, 2), 2, 2)
    np.testing.assert_allclose(twice.VISIBILITY, once.VISIBILITY, atol=3e-7)
    np.testing.assert_allclose(twice.UVW, once.UVW, atol=1e-9)
    # the second time the loss is reckoned from a coarser UVW
    assert twice.attrs["averaging_loss_half_power"] == pytest.approx(once.attrs["averaging_loss_half_power"], rel=0.01)
    assert twice.attrs["averaged_channels"] == 8


def test_averaged_integrations_turned_to_where_they_are_stay_and_come_back_from_elsewhere(looking_at):
    view = noisy(looking_at([], HERE))
    view["FLAG"][0] = True  # UVW of the first bin is then not that of its mean time
    out = average(view, 2, 4)
    same = phase_to(out, HERE)
    np.testing.assert_allclose(same.VISIBILITY, out.VISIBILITY, rtol=0, atol=1e-6)
    np.testing.assert_allclose(same.UVW, out.UVW, atol=1e-9)
    back = phase_to(phase_to(out, (HERE[0] + 0.01, HERE[1] - 0.01)), HERE)
    np.testing.assert_allclose(back.VISIBILITY, out.VISIBILITY, rtol=0, atol=1e-5)
    np.testing.assert_allclose(back.UVW, out.UVW, atol=1e-6)


def test_a_lazy_view_stays_lazy_whatever_its_chunks(looking_at, nothing_computed):
    plain, lazy = (noisy(looking_at([], HERE)), looking_at([], HERE, chunks=(3, 7, 5, 2)))
    lazy["VISIBILITY"] = (lazy.VISIBILITY.dims, plain.VISIBILITY.to_numpy())
    lazy["VISIBILITY"] = lazy.VISIBILITY.chunk({"time": 3, "baseline_id": 7, "frequency": 5})
    with nothing_computed():
        out = average(lazy, channels=4, integrations=2)
        again = average(out, channels=2, integrations=1)
    expected = average(plain, channels=4, integrations=2)
    for name in ("VISIBILITY", "MODEL", "WEIGHT", "FLAG", "UVW"):
        np.testing.assert_array_equal(out[name], expected[name])
        assert out[name].dtype == expected[name].dtype
    np.testing.assert_array_equal(again.VISIBILITY, average(expected, channels=2).VISIBILITY)


def test_what_cannot_be_averaged_is_an_error(looking_at):
    view = looking_at([], HERE)
    with pytest.raises(InputError, match=r"16 channels.*Found: 3.*\[1, 2, 4, 8, 16\]"):
        average(view, channels=3)
    with pytest.raises(InputError, match="4 integrations"):
        average(view, integrations=0)
    with pytest.raises(InputError, match="gap within the channels"):
        average(view.isel(frequency=[0, 1, 2, 5]), channels=2)
    assert average(view.isel(frequency=[0, 1, 4, 5]), channels=2).sizes["frequency"] == 2
    with pytest.raises(InputError, match="phase_to first"):
        average(looking_at([]), integrations=2)
    assert average(looking_at([]), channels=2).sizes["time"] == 4


def brute_force(view, radius, channels, integrations):
    """Amplitudes left of a source at many position angles after an explicit average: (angle, baseline, ...)."""
    left = []
    frequency = view.frequency.to_numpy()
    uvw = view.UVW.to_numpy()
    for angle in np.radians(np.arange(0, 360, 30)):
        lmn = np.array([np.sin(radius) * np.sin(angle), np.sin(radius) * np.cos(angle), np.cos(radius) - 1])
        data = np.exp(2j * np.pi * (uvw @ lmn)[..., None] * frequency / 299792458.0)
        t, b, f = data.shape
        cells = data.reshape(t // integrations, integrations, b, f // channels, channels)
        left.append(np.abs(cells.mean(axis=(1, 4))))
    return np.array(left)


@pytest.mark.parametrize(("channels", "integrations"), [(8, 1), (1, 4), (4, 2)])
def test_the_stated_loss_is_that_of_an_explicit_average(looking_at, channels, integrations):
    view = phase_to(looking_at([], HERE, n_antennas=16, n_times=8), HERE)
    radius = half_power_radius(1.4e9)
    cross = view.isel(baseline_id=np.flatnonzero(view.baseline_antenna1_name.to_numpy() != view.baseline_antenna2_name))
    left = brute_force(cross, radius, channels, integrations)
    stated = averaging_loss(view, channels, integrations, radius)
    # rates are those of the middle of the bin; frequencies differ from the band's middle by 0.3 %, losses by its square
    assert stated.mean == pytest.approx(1 - left.mean(), rel=0.02)
    assert stated.worst == pytest.approx(1 - left.min(), rel=0.03)
    out = average(view, channels, integrations)
    assert out.attrs["averaging_loss_half_power"] == pytest.approx(stated.mean, rel=1e-3)


def test_a_source_loses_in_the_data_what_is_stated(looking_at):
    radius = half_power_radius(1.4e9)
    view = phase_to(looking_at([], HERE, n_antennas=12, n_times=8), HERE)
    view["WEIGHT"][...], view["FLAG"][...] = 1.0, False
    frequency, kept = view.frequency.to_numpy(), []
    for angle in np.radians(np.arange(0, 360, 30)):
        lmn = np.array([np.sin(radius) * np.sin(angle), np.sin(radius) * np.cos(angle), np.cos(radius) - 1])
        source = view.copy(deep=True)
        phase = (view.UVW.to_numpy() @ lmn)[..., None, None] * frequency[:, None] / 299792458.0
        source["VISIBILITY"][...] = np.exp(2j * np.pi * phase).astype(np.complex64)
        out = average(source, channels=16, integrations=4)
        model = (out.UVW.to_numpy() @ lmn)[..., None, None] * out.frequency.to_numpy()[:, None] / 299792458.0
        cross = out.baseline_antenna1_name.to_numpy() != out.baseline_antenna2_name.to_numpy()
        kept.append((out.VISIBILITY.to_numpy() * np.exp(-2j * np.pi * model)).real[:, cross].mean())
    assert out.attrs["averaging_loss_half_power"] > 0.02
    assert 1 - np.mean(kept) == pytest.approx(out.attrs["averaging_loss_half_power"], rel=0.02)


def test_a_raw_group_loses_about_its_pointing_and_integrations_not_at_all(looking_at):
    raw = looking_at([])
    assert averaging_loss(raw, 8, 1, 0.02).mean == pytest.approx(
        averaging_loss(looking_at([], (1.4, np.radians(16.6))), 8, 1, 0.02).mean, rel=0.02
    )
    with pytest.raises(InputError, match="phase_to first"):
        averaging_loss(raw, 1, 4, 0.02)


@pytest.mark.parametrize("number", ["a", "8", 1.5, 8.0, None, True, [8]])
def test_a_number_that_is_not_whole_is_an_error_that_says_so(looking_at, number):
    view = looking_at([], HERE)
    for numbers in ((number, 1), (1, number)):
        with pytest.raises(InputError, match=r"Not a number of .* Expected: a whole number"):
            average(view, *numbers)
        with pytest.raises(InputError, match="Not a number of"):
            averaging_loss(view, *numbers, 0.01)

"""Amplitudes and phases apart, and the scale of the array: products, errors, and what there is to go wrong."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.science.condense import Normal
from dsa110_contimg.science.kinds import amplitude_and_phase, array_scale, figures, scale_table

DIMS = ("time", "antenna_name", "frequency", "polarization")


def caltable(gain: np.ndarray, **more: object) -> xr.Dataset:
    flag = more.pop("flag", np.zeros(gain.shape, bool))
    return xr.Dataset(
        {"GAIN": (DIMS, gain.astype("c8")), "FLAG": (DIMS, flag), "SNR": (DIMS, np.full(gain.shape, 9.0, "f4"))},
        {"time": np.arange(gain.shape[0]) + 61000.0, "antenna_name": [str(n) for n in range(gain.shape[1])]},
        {"kind": "B Jones", "refant": "1"},
    )  # fmt: skip


sizes = st.floats(2.0**-10, 2.0**10, width=32)
angles = st.floats(-3.125, 3.125, width=32)


@settings(max_examples=50, deadline=None)
@given(size=hnp.arrays("f4", (2, 3, 4, 2), elements=sizes), angle=hnp.arrays("f4", (2, 3, 4, 2), elements=angles))
def test_amplitudes_times_phases_are_the_gains_to_rounding(size, angle):
    gain = (size * np.exp(1j * angle)).astype(np.complex64)
    amplitude, phase = amplitude_and_phase(caltable(gain))
    assert amplitude.GAIN.dtype == phase.GAIN.dtype == np.complex64
    assert (amplitude.GAIN.to_numpy().imag == 0).all()
    assert (amplitude.GAIN.to_numpy().real > 0).all()
    np.testing.assert_allclose(np.abs(phase.GAIN.to_numpy()), 1.0, rtol=3e-7)
    product = amplitude.GAIN.to_numpy() * phase.GAIN.to_numpy()
    # two values are rounded, each to half of 2^-23
    assert (np.abs(product - gain) <= 2.0**-22 * np.abs(gain)).all()


def test_flags_and_snr_stand_in_both(rng):
    flag = rng.random((1, 5, 6, 2)) < 0.3
    gain = np.where(flag, 0.0, rng.normal(size=flag.shape) + 1j)
    for part in amplitude_and_phase(caltable(gain, flag=flag)):
        np.testing.assert_array_equal(part.FLAG, flag)
        assert (part.SNR == 9.0).all()
        assert part.attrs == {"kind": "B Jones", "refant": "1"}


def test_delays_have_no_amplitudes():
    table = caltable(np.ones((1, 2, 1, 2)))
    with pytest.raises(InputError, match="Delays"):
        amplitude_and_phase(table.assign(DELAY=table.GAIN.real))


def test_a_dead_antenna_and_a_missing_channel_are_not_the_solutions_fault():
    flag = np.zeros((1, 5, 8, 2), bool)
    flag[:, 2] = flag[:, :, 3] = True
    flag[0, 0, 0, 0] = True
    fraction, snr = figures(caltable(np.ones(flag.shape), flag=flag))
    assert fraction == pytest.approx(1 / (4 * 7 * 2))
    assert snr == 9.0
    assert figures(caltable(np.ones(flag.shape), flag=np.ones(flag.shape, bool))) == (1.0, 0.0)


def noisy(rng, scale, noise, n=400):
    """Normal equations of cells with a known scale (one a polarisation), of noise and weights that differ."""
    shape = 1, n, 1, 2
    model = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    weight = rng.uniform(0.5, 2.0, size=shape)
    sigma = noise / np.sqrt(weight)
    data = scale * model + sigma * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    cross, power = weight * data * model.conj(), weight * np.abs(model) ** 2
    return Normal(cross, power, weight * np.abs(data) ** 2, np.ones(shape))


def test_the_scale_of_the_array_is_found_and_its_error_is_honest(rng):
    true = np.array([1.03, 0.95])
    tries = [array_scale(noisy(rng, true, 0.5)) for _ in range(300)]
    off = np.array([(found.gain - np.sqrt(true)) / found.error for found in tries])
    # mean and scatter of 300 draws in units of the error: 1 / sqrt(300), 1 / sqrt(600)
    np.testing.assert_allclose(off.mean(axis=0), 0.0, atol=4 / np.sqrt(300))
    np.testing.assert_allclose(off.std(axis=0), 1.0, atol=4 / np.sqrt(600))
    assert tries[0].error == pytest.approx(0.5 / np.sqrt(2 * 400) / np.sqrt(1.25) / 2, rel=0.15)


def test_data_of_another_sign_than_the_model_are_refused(rng):
    with pytest.raises(CalibrationError, match="no scale"):
        array_scale(noisy(rng, np.array([1.0, -1.0]), 0.1))
    with pytest.raises(CalibrationError, match="no scale"):
        array_scale(Normal.empty(1, 6, 1, 2))


def test_the_table_has_one_gain_for_all_and_flags_what_is_weak(rng):
    normal = noisy(rng, np.array([1.03, 1.0]), 0.1)
    for sums in normal.sums:
        sums[..., 1] = 0
    names = np.array([str(n) for n in range(7)])
    coords = {"time": np.array([61000.0]), "frequency": np.array([1.4e9]), "antenna_name": names}
    table = scale_table(array_scale(normal), coords | {"polarization": np.array(["X", "Y"])}, "3", 3.0)
    assert np.unique(table.GAIN.sel(polarization="X")).size == 1
    assert not table.FLAG.sel(polarization="X").any()
    assert table.FLAG.sel(polarization="Y").all()
    assert scale_table(array_scale(normal), coords | {"polarization": np.array(["X", "Y"])}, "3", 1e9).FLAG.all()

"""Injected gains come out again: a view that was observed with gains is, after `apply_gains`, the sky."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.science.gains import apply_gains, interpolated
from dsa110_contimg.science.phasing import phase_to
from dsa110_contimg.science.reduction import average

HERE = (1.4, 0.29)
SKY = [(1.41, 0.3, 2.0), (1.39, 0.285, 0.8)]
BAND = 1.4e9 + np.arange(16) * telescope.CHANNEL_WIDTH_HZ


def caltable(gain, mjd, frequency, kind, flag=None, antennas="123456"):
    """A CalTable view of (time, antenna, frequency, feed) gains."""
    dims = ("time", "antenna_name", "frequency", "polarization")
    gain = np.asarray(gain, np.complex64)
    table = xr.Dataset(
        {
            "GAIN": (dims, gain),
            "FLAG": (dims, np.zeros(gain.shape, bool) if flag is None else flag),
            "SNR": (dims, np.full(gain.shape, 100.0, np.float32)),
        },
        coords={"time": mjd, "antenna_name": list(antennas), "frequency": frequency, "polarization": ["X", "Y"]},
        attrs={"kind": kind, "refant": "1"},
    )
    return schema.check(table, schema.CALTABLE)


def random_gains(shape, seed=0):
    rng = np.random.default_rng(seed)
    return 0.07 * rng.uniform(0.7, 1.3, shape) * np.exp(2j * np.pi * rng.uniform(size=shape))


def observed(view, gains):
    """The view as seen with (time, antenna, frequency, feed) gains, broadcast: G_1 conj(G_2) V."""
    ends = [[int(name) - 1 for name in view[f"baseline_antenna{k}_name"].to_numpy()] for k in (1, 2)]
    gains = np.broadcast_to(gains, (view.sizes["time"], 6, view.sizes["frequency"], 2))
    feeds = [["XY".index(letter) for letter in (hand[k] for hand in view.polarization.to_numpy())] for k in (0, 1)]
    product = gains[:, ends[0]][..., feeds[0]] * gains[:, ends[1]][..., feeds[1]].conj()
    return view.assign(VISIBILITY=(view.VISIBILITY * product).astype(np.complex64)), product


def test_injected_bandpass_and_drift_are_taken_out(looking_at):
    view = looking_at(SKY, HERE)
    mjd = view.time.to_numpy()
    band, level = random_gains((1, 6, 16, 2), 1), random_gains((2, 6, 1, 2), 2)
    level[1] = level[0] * 1.2 * np.exp(0.8j)
    # linear in amplitude and phase between two solutions, which lie outside the observation
    when = np.array([mjd[0] - 1e-3, mjd[-1] + 2e-3])
    part = ((mjd - when[0]) / (when[1] - when[0]))[:, None, None, None]
    drift = level[:1] * (1 + 0.2 * part) * np.exp(0.8j * part)
    raw, product = observed(view, band * drift)
    out = apply_gains(
        raw, caltable(level, when, [1.4018e9], "G Jones"), caltable(band, [mjd[0] - 0.3], BAND, "B Jones")
    )
    # float32 of the observed, of the tables and of the result
    assert np.abs(out.VISIBILITY - view.VISIBILITY).max() < 1e-6 * np.abs(view.VISIBILITY).max()
    np.testing.assert_allclose(out.WEIGHT, view.WEIGHT * np.abs(product) ** 2, rtol=1e-6)
    np.testing.assert_array_equal(out.FLAG, view.FLAG)
    np.testing.assert_array_equal(out.MODEL, view.MODEL)
    assert out.VISIBILITY.attrs["units"] == "Jy" and schema.faults(out, schema.VISIBILITIES) == []


def test_weights_may_stay_as_they_are(looking_at):
    view = looking_at(SKY, HERE)
    table = caltable(random_gains((1, 6, 1, 2)), [61066.0], [1.4e9], "G Jones")
    np.testing.assert_array_equal(apply_gains(view, table, scale_weights=False).WEIGHT, view.WEIGHT)


def test_four_polarizations_take_the_receptor_of_each_end(looking_at):
    two = looking_at(SKY, HERE)
    view = two.isel(polarization=[0, 0, 1, 1]).assign_coords(polarization=["XX", "XY", "YX", "YY"])
    gains = random_gains((1, 6, 1, 2), 4)
    out = apply_gains(observed(view, gains)[0], caltable(gains, [61066.0], [1.4e9], "G Jones"))
    assert np.abs(out.VISIBILITY - view.VISIBILITY).max() < 1e-6 * np.abs(view.VISIBILITY).max()


def test_data_without_a_solution_are_flagged_and_left_as_they_were(looking_at):
    view = looking_at(SKY, HERE)
    view["FLAG"][...] = False
    gains = random_gains((1, 5, 16, 2))
    flag = np.zeros(gains.shape, bool)
    flag[0, 1, 3, 0], gains[0, 2, 4, 1], gains[0, 3, 5, 0] = True, np.nan, 0.0
    out = apply_gains(view, caltable(gains, [61066.0], BAND, "B Jones", flag, antennas="12345"))
    for k, (one, two) in enumerate(
        zip(view.baseline_antenna1_name.to_numpy(), view.baseline_antenna2_name.to_numpy(), strict=True)
    ):
        expected = np.zeros((16, 2), bool)
        expected[3, 0] |= "2" in (one, two)
        expected[4, 1] |= "3" in (one, two)
        expected[5, 0] |= "4" in (one, two)
        expected |= "6" in (one, two)
        np.testing.assert_array_equal(out.FLAG[:, k], np.broadcast_to(expected, (4, 16, 2)))
    kept = view.VISIBILITY.where(out.FLAG, 0.0)
    np.testing.assert_array_equal(out.VISIBILITY.where(out.FLAG, 0.0), kept)
    assert np.isfinite(out.VISIBILITY).all() and np.isfinite(out.WEIGHT).all()


def test_a_bandpass_is_linear_between_channels_and_ends_half_a_channel_outside():
    gain = np.arange(1, 5)[None, None, :, None] * np.ones((1, 1, 4, 2), complex)
    gain[..., 0, :] = 1j  # the channel of highest frequency: a quarter of a turn to the next
    table = caltable(gain, [61066.0], BAND[:4][::-1], "B Jones", antennas="1")
    step = telescope.CHANNEL_WIDTH_HZ
    offsets = np.array([-0.6, -0.4, 0.0, 1.3, 2.5, 3.0, 3.5, 3.6])
    found = interpolated(table, np.array([61066.0]), BAND[0] + offsets * step, ["1"], ["X", "Y"])[0, :, 0, 0]
    expected = [np.nan, 4, 4, 2.7, 1.5 * np.exp(1j * np.pi / 4), 1j, 1j, np.nan]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    flag = np.zeros(gain.shape, bool)
    flag[0, 0, 2] = True  # BAND[1]
    flagged = interpolated(table.assign(FLAG=(table.FLAG.dims, flag)), np.array([61066.0]), BAND[:4], ["1"], ["X"])
    np.testing.assert_array_equal(np.isnan(flagged[0, :, 0, 0]), [False, True, False, False])


def test_nothing_is_invented_in_a_hole_of_a_bandpass():
    table = caltable(np.ones((1, 1, 4, 2)), [61066.0], BAND[[0, 1, 4, 5]], "B Jones", antennas="1")
    found = interpolated(table, np.array([61066.0]), BAND[:6], ["1"], ["X"])[0, :, 0, 0]
    np.testing.assert_array_equal(np.isnan(found), [False, False, True, True, False, False])


def test_a_delay_turns_the_phase_about_its_own_frequency():
    table = caltable(np.ones((2, 1, 1, 2)), [61066.0, 61067.0], [BAND[8]], "K Jones", antennas="1")
    table["DELAY"] = (table.GAIN.dims, np.array([5e-9, -15e-9])[:, None, None, None] * np.ones((2, 1, 1, 2)))
    found = interpolated(table, np.array([61066.0, 61066.5]), BAND, ["1"], ["X"])[:, :, 0, 0]
    expected = np.exp(2j * np.pi * np.array([5e-9, -5e-9])[:, None] * (BAND - BAND[8]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_a_bandpass_is_the_nearest_in_time_and_gains_are_interpolated():
    gain = np.array([1.0, 2.0j, -3.0])[:, None, None, None] * np.ones((3, 1, 1, 2))
    times, wanted = np.array([10.0, 11.0, 12.0]), np.array([9.0, 10.4, 10.5, 10.6, 11.0, 11.5, 13.0])

    def found(kind, flag=None):
        table = caltable(gain[::-1], times[::-1], [1.4e9], kind, flag, antennas="1")
        return interpolated(table, wanted, np.array([1.4e9]), ["1"], ["X"])[:, 0, 0, 0]

    np.testing.assert_array_equal(found("B Jones"), [1, 1, 1, 2j, 2j, 2j, -3])
    quarter = np.exp(1j * np.pi / 4)
    linear = [1, 1.4 * np.exp(0.2j * np.pi), 1.5 * quarter, 1.6 * np.exp(0.3j * np.pi), 2j, 2.5j * quarter, -3]
    np.testing.assert_allclose(found("G Jones"), linear, rtol=1e-7)
    flag = np.zeros((3, 1, 1, 2), bool)
    flag[1] = True  # the solution of 11.0
    np.testing.assert_array_equal(np.isnan(found("B Jones", flag)), [0, 0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(np.isnan(found("G Jones", flag)), [0, 1, 1, 1, 1, 1, 0])


def test_a_lazy_view_stays_lazy(looking_at, nothing_computed):
    table = caltable(random_gains((1, 6, 16, 2)), [61066.0], BAND, "B Jones")
    lazy = looking_at(SKY, HERE, chunks=(3, 7, 5, 1))
    with nothing_computed():
        out = apply_gains(lazy, table)
        assert out.VISIBILITY.chunks == lazy.VISIBILITY.chunks
    expected = apply_gains(looking_at(SKY, HERE), table)
    for name in ("VISIBILITY", "FLAG", "WEIGHT"):
        np.testing.assert_array_equal(out[name], expected[name])
        assert out[name].dtype == expected[name].dtype


def test_tables_that_cannot_be_applied_are_an_error(looking_at):
    view = looking_at(SKY, HERE)
    table = caltable(random_gains((1, 6, 1, 2)), [61066.0], [1.4e9], "G Jones")
    with pytest.raises(InputError, match="No calibration tables"):
        apply_gains(view)
    with pytest.raises(InputError, match="lacks receptors"):
        apply_gains(view, table.isel(polarization=[0]))
    with pytest.raises(InputError, match="Stokes"):
        apply_gains(view.isel(polarization=[0]).assign_coords(polarization=["I"]), table)
    with pytest.raises(CalibrationError, match="No antenna has a solution"):
        apply_gains(view, table.assign(FLAG=~table.FLAG))


def test_gains_phasing_and_averaging_are_one_pass(looking_at):
    """Composed lazily, each block of each variable is read once; the result is that of one after the other."""
    plain = looking_at(SKY, HERE)
    tables = (
        caltable(random_gains((1, 6, 16, 2)), [61066.0], BAND, "B Jones"),
        caltable(random_gains((1, 6, 1, 2), 2), [61066.0], [1.4e9], "G Jones"),
    )
    reads: list[tuple[str, tuple[slice, ...]]] = []

    class Counting:
        """An array that tells when it is read."""

        def __init__(self, name, values):
            self.name, self.values = name, values
            self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

        def __getitem__(self, key):
            reads.append((self.name, key))
            return self.values[key]

    cubes = ("VISIBILITY", "FLAG", "WEIGHT")
    sources = {name: Counting(name, plain[name].to_numpy()) for name in cubes}
    lazy = plain.drop_vars("MODEL").assign(
        {
            name: (
                plain[name].dims,
                da.from_array(source, chunks=(2, -1, -1, -1), asarray=False, fancy=False, name=f"counted-{name}"),
            )
            for name, source in sources.items()
        }
    )

    def calibrated(view):
        return average(phase_to(apply_gains(view, *tables), (1.41, 0.3)), channels=4, integrations=2)

    reads.clear()
    found = calibrated(lazy).compute()
    # two blocks of two integrations each
    assert len(reads) == len(cubes) * 2, reads
    expected = calibrated(plain.drop_vars("MODEL"))
    for name in cubes:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)

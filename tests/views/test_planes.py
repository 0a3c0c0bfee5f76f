"""The uv plane, waterfalls and flags hold what was put into them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from dsa110_contimg import views
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.reduction import average
from dsa110_contimg.science.stokes import stokes_i
from dsa110_contimg.views.planes import antenna_amplitudes, flag_fractions, uv_plane, waterfall


def ends(vis: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    return vis["baseline_antenna1_name"].values, vis["baseline_antenna2_name"].values


def with_flagged(vis: xr.Dataset, antenna: str) -> xr.Dataset:
    one, two = ends(vis)
    flag = vis["FLAG"].values.copy()
    flag[:, (one == antenna) | (two == antenna)] = True
    return vis.assign(FLAG=(vis["FLAG"].dims, flag))


def test_the_uv_plane_holds_every_visibility_and_its_mirror_image(corrected: xr.Dataset) -> None:
    one, two = ends(corrected)
    plane = uv_plane(corrected)
    number = int((~corrected["FLAG"].values[:, one != two]).sum())
    assert plane.number == number
    assert plane.whole.sum() == 2 * number
    np.testing.assert_array_equal(plane.whole, plane.whole[::-1, ::-1])
    assert plane.baselines == int((one != two).sum())


def test_a_visibility_is_where_its_uvw_and_frequency_say(corrected: xr.Dataset) -> None:
    one, two = ends(corrected)
    single = corrected.isel(baseline_id=np.flatnonzero(one != two)[[3]], frequency=[50], time=[0])
    plane = uv_plane(single)
    u, v = single["UVW"].values[0, 0, :2] * single["frequency"].values[0] / 299_792_458e3
    edges = np.linspace(-plane.limit, plane.limit, len(plane.whole) + 1)
    expected = np.histogram2d([v, -v], [u, -u], bins=(edges, edges))[0] * 2  # two polarisations
    np.testing.assert_array_equal(plane.whole, expected)
    assert plane.frequency[plane.whole > 0] == pytest.approx(single["frequency"].values[0])


def test_few_baselines_have_pixels_that_can_be_seen_and_still_hold_every_visibility(corrected: xr.Dataset) -> None:
    one, two = ends(corrected)
    single = corrected.isel(frequency=[50], time=[0], baseline_id=np.flatnonzero(one != two))
    few, many = uv_plane(single), uv_plane(corrected)
    assert len(few.whole) <= 105 and len(few.whole) < len(many.whole)
    assert few.whole.sum() == 2 * few.number
    np.testing.assert_array_equal(few.whole, few.whole[::-1, ::-1])
    assert few.frequency[few.whole > 0] == pytest.approx(single["frequency"].values[0])
    # what is said of a pixel is of the pixel that is shown
    side = 2 * few.limit * few.wavelengths / len(few.whole)
    assert f"One pixel: {side:.3g} wavelengths a side" in few.caption


def test_figures_say_what_becomes_of_data_without_weight(corrected: xr.Dataset) -> None:
    part = corrected.isel(frequency=slice(0, 8)).copy(deep=True)
    one, two = ends(part)
    row = int(np.flatnonzero(one != two)[0])
    part["WEIGHT"][:, row] = 0.0
    part["FLAG"][...] = False
    baseline = f"{one[row]}-{two[row]}"
    assert "weights are not looked at" in waterfall(part, baseline=baseline).caption
    assert waterfall(part, baseline=baseline).number.all()
    for fewer in (average(part, 4), stokes_i(part)):
        made = waterfall(fewer, baseline=baseline)
        assert not made.number.any()
        assert "an average of nothing that has weight" in made.caption
    assert "where they are flagged" in views.flags(part).get_supxlabel()
    assert "nothing that has weight are flagged, too" in views.flags(average(part, 4)).get_supxlabel()


def test_an_antenna_that_is_flagged_appears_and_leaves_its_baselines(corrected: xr.Dataset) -> None:
    antenna = ends(corrected)[0][0]
    flagged = with_flagged(corrected, antenna)
    before, after = flag_fractions(corrected), flag_fractions(flagged)
    assert (after["by_antenna"].sel(antenna_name=antenna) == 1).all()
    others = after["by_antenna"].where(after["antenna_name"] != antenna, drop=True)
    # one baseline of each of the others, of seven, is gone
    base = float(before["by_antenna"].mean())
    np.testing.assert_allclose(others, base + (1 - base) / 7)
    assert uv_plane(flagged).baselines == uv_plane(corrected).baselines - 7
    assert np.isnan(antenna_amplitudes(flagged).sel(antenna_name=antenna)).all()


def test_flag_fractions_are_means_of_the_flags(corrected: xr.Dataset) -> None:
    one, two = ends(corrected)
    flag = corrected["FLAG"].values[:, one != two]
    for lazy in (corrected, corrected.chunk({"time": 2, "frequency": 10})):
        known = flag_fractions(lazy)
        np.testing.assert_allclose(known["by_frequency"], flag.mean(axis=(0, 1)))
        np.testing.assert_allclose(known["by_time"], flag.mean(axis=(1, 2)))
        assert known.attrs["flagged"] == pytest.approx(flag.mean())


def test_the_amplitude_of_a_waterfall_does_not_know_fringes(raw: xr.Dataset) -> None:
    """Random antenna phases cancel in a vector mean, and not here."""
    one, two = ends(raw)
    antenna = one[-1]
    rows = ((one == antenna) | (two == antenna)) & (one != two)
    made = waterfall(raw, antenna=antenna)
    value = np.ma.masked_array(raw["VISIBILITY"].values, raw["FLAG"].values)[:, rows]
    expected = np.moveaxis(np.abs(value).mean(axis=1).filled(np.nan), -1, 0)
    np.testing.assert_allclose(made.amplitude, expected, rtol=1e-5)
    assert made.number.sum() == value.count()
    assert made.baselines == rows.sum()


def test_the_phase_of_an_antenna_is_its_own_whichever_end_it_is(corrected: xr.Dataset) -> None:
    one, two = ends(corrected)
    antenna = one[one.size // 2]
    turn = np.where(one == antenna, np.exp(0.7j), 1) * np.where(two == antenna, np.exp(-0.7j), 1)
    exact = corrected.assign(VISIBILITY=corrected["MODEL"] * xr.DataArray(turn, dims="baseline_id"))
    phase = waterfall(exact, antenna=antenna).phase
    np.testing.assert_allclose(phase[np.isfinite(phase)], 0.7, atol=1e-6)


def test_a_baseline_is_shown_as_named(corrected: xr.Dataset) -> None:
    one, two = ends(corrected)
    row = np.flatnonzero(one != two)[4]
    made = waterfall(corrected, baseline=f"{one[row]}-{two[row]}")
    value = np.where(corrected["FLAG"].values, np.nan, corrected["VISIBILITY"].values)[:, row]
    np.testing.assert_allclose(made.amplitude, np.moveaxis(np.abs(value), -1, 0), rtol=1e-6)
    np.testing.assert_allclose(made.phase, np.moveaxis(np.angle(value), -1, 0), atol=1e-5)
    turned = waterfall(corrected, baseline=(two[row], one[row]))
    np.testing.assert_allclose(turned.phase, -made.phase, atol=1e-6)


def test_what_is_flagged_in_a_waterfall_is_missing_not_zero(corrected: xr.Dataset) -> None:
    made = waterfall(corrected)
    assert np.isnan(made.amplitude[..., :6]).all()
    assert np.isfinite(made.amplitude[..., 6:]).all()


def test_antennas_and_baselines_that_are_not_there_are_refused(corrected: xr.Dataset) -> None:
    for wrong in ({"antenna": "116"}, {"baseline": "1-116"}, {"antenna": "1", "baseline": "1-2"}):
        with pytest.raises(InputError):
            waterfall(corrected, **wrong)


def test_a_weak_antenna_stands_out(corrected: xr.Dataset) -> None:
    one, two = ends(corrected)
    weak = one[0]
    scale = np.where((one == weak) | (two == weak), 0.1, 1.0)
    value = corrected["VISIBILITY"] * xr.DataArray(scale, dims="baseline_id")
    found = antenna_amplitudes(corrected.assign(VISIBILITY=value.astype(np.complex64)))
    ratio = found / found.median("antenna_name")
    np.testing.assert_allclose(ratio.sel(antenna_name=weak), 0.1, rtol=0.05)
    assert (np.abs(ratio.where(ratio["antenna_name"] != weak, drop=True) - 1) < 0.05).all()

"""Which calibrator crosses which group, and when; against astropy by another way than the code's."""

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import TETE, AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import j1

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError, CatalogError
from dsa110_contimg.io import catalogs
from dsa110_contimg.options import SearchOptions
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.science import beam, calibrators
from dsa110_contimg.science.calibrators import transits
from dsa110_contimg.science.coordinates import meridian_icrs

STEP = 2 * np.pi * telescope.INTEGRATION_S / 86164.0905


def pointing(first_ra):
    return (first_ra + STEP * np.arange(24)) % (2 * np.pi), np.full(24, np.radians(16.6))


def candidate(ra_rad, dec=16.6, flux=5.0):
    return pd.DataFrame({"name": ["J"], "ra_deg": [np.degrees(ra_rad) % 360], "dec_deg": [dec], "flux_jy": [flux]})


@given(st.floats(0, 2 * np.pi), st.floats(0.001, 0.999))
def test_every_right_ascension_belongs_to_exactly_one_of_consecutive_groups(first_ra, fraction):
    source = candidate(first_ra + (fraction * 24 - 0.5) * STEP)
    found = [bool(transits(source, *pointing(first_ra + n * 24 * STEP), 1.0, 1.5)) for n in (-1, 0, 1)]
    assert found == [False, True, False]


def test_a_source_across_zero_hours_is_found():
    assert transits(candidate(2 * np.pi - 1e-4), *pointing(2 * np.pi - 0.01), 1.0, 1.5)


def test_faint_or_distant_sources_are_no_calibrators():
    ra = 1.0 + 12 * STEP
    assert not transits(candidate(ra, flux=0.9), *pointing(1.0), 1.0, 1.5)
    assert not transits(candidate(ra, dec=18.2), *pointing(1.0), 1.0, 1.5)
    assert not transits(candidate(ra, flux=float("nan")), *pointing(1.0), 1.0, 1.5)


def test_the_strongest_apparent_flux_comes_first():
    both = pd.concat([candidate(1.05, dec=17.9, flux=6.0).assign(name="off"), candidate(1.05).assign(name="on")])
    assert [t.name for t in transits(both, *pointing(1.04), 1.0, 1.5)] == ["on", "off"]


# ---- search -------------------------------------------------------------------------------------------------------


def icrs_list(n=40, seed=3):
    rng = np.random.default_rng(seed)
    ra, dec = np.sort(rng.uniform(0, 360, n)), rng.uniform(15.2, 18.0, n)
    names = [f"S{i:02d}" for i in range(n)]
    return pd.DataFrame({"name": names, "ra_deg": ra, "dec_deg": dec, "flux_jy": 2.0, "flux_error_jy": 0.06})


def place():
    return EarthLocation.from_geodetic(telescope.LONGITUDE_DEG, telescope.LATITUDE_DEG, telescope.HEIGHT_M)


@pytest.mark.parametrize(
    ("dec_deg", "n", "longest_gap_h", "near"), [(16.0, 11, 8.2, 0.39), (54.6, 12, 7.2, 0.385), (30.0, 6, 12.7, 0.184)]
)
def test_the_vla_list_gives_the_known_number_of_calibrators_a_day(dec_deg, n, longest_gap_h, near):
    listed = catalogs.vla_calibrators()
    found = calibrators.find_calibrators(listed, np.radians(dec_deg), SearchOptions(top_n=500), mjd=51544.5)
    assert len(found) == n
    start = 51544.5
    index, mjd = calibrators.transit_times(
        *np.radians(found[["ra_deg", "dec_deg"]].to_numpy().T), start, start + 2 * calibrators.SIDEREAL_DAY
    )
    # a day that begins at a transit, so that its ends split no gap
    begin = mjd[0]
    all_day = calibrators.coverage(mjd, begin, begin + calibrators.SIDEREAL_DAY)
    assert all_day.n_transits == n
    assert all_day.longest_gap_h == pytest.approx(longest_gap_h, abs=0.05)
    assert all_day.fraction_near == pytest.approx(near, abs=0.005)
    assert len(index) == 2 * n


def test_transits_are_when_the_apparent_sidereal_time_is_the_right_ascension_of_date():
    sources, start = icrs_list(), 61065.0
    index, mjd = calibrators.transit_times(*np.radians(sources[["ra_deg", "dec_deg"]].to_numpy().T), start, start + 1.0)
    # another way: equation of the equinoxes and the true equator, not hour angles of an observed frame
    when = Time(mjd, format="mjd", scale="utc")
    there = SkyCoord(sources["ra_deg"].to_numpy()[index] * u.deg, sources["dec_deg"].to_numpy()[index] * u.deg)
    of_date = there.transform_to(TETE(obstime=when, location=place()))
    lst = when.sidereal_time("apparent", longitude=telescope.LONGITUDE_DEG * u.deg)
    late_s = ((lst - of_date.ra).wrap_at(180 * u.deg)).hour * 3600
    # polar motion (0.3 arcsec, times tan Dec) is in the one and not in the other
    assert np.abs(late_s).max() < 0.05
    assert set(index) == set(range(len(sources)))


def test_every_source_crosses_once_a_sidereal_day_wherever_the_window_begins():
    sources = icrs_list(12)
    where = np.radians(sources[["ra_deg", "dec_deg"]].to_numpy().T)
    for start in (61065.0, 61065.37, 61065.9):
        index, mjd = calibrators.transit_times(*where, start, start + 3 * calibrators.SIDEREAL_DAY)
        assert np.bincount(index).tolist() == [3] * 12
        assert (np.diff(mjd) >= 0).all()
        assert mjd[0] >= start and mjd[-1] < start + 3 * calibrators.SIDEREAL_DAY


def test_elevation_and_offset_are_those_of_astropy_at_transit():
    sources, dec_rad = icrs_list(), np.radians(16.6)
    found = calibrators.find_calibrators(sources, dec_rad, SearchOptions(top_n=500), mjd=61065.0)
    table = calibrators.find_transits(found, dec_rad, 61065.0, 61066.0)
    when = Time(table["mjd"].to_numpy(), format="mjd")
    there = SkyCoord(table["ra_deg"].to_numpy() * u.deg, table["dec_deg"].to_numpy() * u.deg)
    seen = there.transform_to(AltAz(obstime=when, location=place()))
    assert np.abs(seen.alt.deg - table["elevation_deg"]).max() < 1e-3
    # south of the zenith, on the meridian
    assert np.abs(seen.az.deg - 180).max() < 1e-3
    pointing = SkyCoord(alt=(90 - telescope.LATITUDE_DEG + 16.6) * u.deg, az=180 * u.deg, frame="altaz")
    apart = np.abs(seen.alt.deg - pointing.alt.deg)
    assert np.abs(apart - table["offset_deg"].abs()).max() < 1e-3


def test_tracks_are_those_of_astropy_and_see_nothing_behind_the_dish():
    sources, dec_rad, mjd = icrs_list(4), np.radians(16.6), 61065.0 + np.arange(0, 1, 0.02)
    alt, response = calibrators.tracks(sources, dec_rad, mjd)
    for i, row in enumerate(sources.itertuples()):
        there = SkyCoord(row.ra_deg * u.deg, row.dec_deg * u.deg)
        frame = AltAz(obstime=Time(mjd, format="mjd"), location=place())
        seen = there.transform_to(frame)
        assert np.abs(seen.alt.deg - alt[i]).max() < 1e-3
        pointing = SkyCoord(
            alt=np.full(len(mjd), 90 - telescope.LATITUDE_DEG + 16.6) * u.deg, az=180 * u.deg, frame=frame
        )
        theta = seen.separation(pointing).rad
        x = np.pi * 4.65 * np.sin(theta) * 1.4e9 / 299_792_458.0
        assert response[i] == pytest.approx(np.where(theta < np.pi / 2, (2 * j1(x) / x) ** 2, 0), abs=2e-4)


def group(mjd_first, n=24, dec=16.6):
    return SubbandGroup(f"g{mjd_first:.4f}", mjd_first, dec, (), n)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.99))
def test_one_of_consecutive_groups_holds_a_transit_and_a_centred_one_sees_it_best(phase):
    sources, dec_rad = icrs_list(1), np.radians(16.6)
    found = calibrators.find_calibrators(sources, dec_rad, SearchOptions(), mjd=61065.0)
    alone = calibrators.find_transits(found, dec_rad, 61065.0, 61065.99).iloc[0]
    step = telescope.GROUP_S / 86400
    groups = [group(alone.mjd + (k - phase) * step) for k in (-1, 0, 1, 2)]
    held = calibrators.find_transits(found, dec_rad, 61065.0, 61065.99, groups).iloc[0]
    half = telescope.INTEGRATION_S / 2 / 86400
    (holder,) = [g for g in groups if g.mjd_first - half <= alone.mjd < g.mjd_first - half + step]
    assert held["group"] == holder.group_id
    assert held.group_response <= alone.group_response + 1e-12
    assert alone.group_response < alone.beam_response


def test_the_response_over_a_group_is_the_drift_average_of_its_own_pointing_track():
    sources, dec_rad = icrs_list(1), np.radians(16.6)
    found = calibrators.find_calibrators(sources, dec_rad, SearchOptions(), mjd=61065.0)
    first = calibrators.find_transits(found, dec_rad, 61065.0, 61065.99).iloc[0].mjd - 200 / 86400
    held = calibrators.find_transits(found, dec_rad, 61065.0, 61065.99, [group(first)]).iloc[0]
    assert held["group"]
    mjd = first + np.arange(24) * telescope.INTEGRATION_S / 86400
    track = meridian_icrs(mjd, dec_rad)
    ra, dec = np.radians(sources.loc[0, ["ra_deg", "dec_deg"]].to_numpy(float))
    by_icrs = beam.drift_averaged(ra, dec, *track, np.array([1.4e9]), np.ones((24, 1)))
    # aberration stretches the sky by 1e-4
    assert held.group_response == pytest.approx(float(by_icrs), rel=1e-3)


def test_the_score_is_one_over_the_expected_error_and_orders_the_list():
    sources = icrs_list(6).assign(dec_deg=16.5, flux_jy=[1.0, 2.0, 4.0, 8.0, 16.0, 8.0])
    sources["codes"] = ["L:XSPP"] * 5 + ["L:XXXX"]
    sources["index_lc"] = -0.8
    found = calibrators.find_calibrators(sources, np.radians(16.6), SearchOptions(), mjd=61065.0)
    assert found["score"].is_monotonic_decreasing
    assert found["name"].iloc[-1] == "S05"  # 8 Jy, but resolved
    first = found.iloc[0]
    sigma = 6500 / (0.9 * np.sqrt(2 * 244140.625 * 309.237648)) / np.sqrt(95)
    expected = np.sqrt((0.06 / 16) ** 2 + (sigma / first.apparent_flux_jy) ** 2 + 0.03**2)
    assert first.expected_error == pytest.approx(expected, rel=1e-6)
    assert first.score == pytest.approx(1 / expected, rel=1e-6)


def test_what_may_vary_is_said_and_what_is_not_known_is_no_warning():
    sources = icrs_list(4).assign(dec_deg=16.5, index_lc=[-0.1, -0.8, np.nan, -0.9])
    sources.loc[3, "name"] = "J2253+161"
    found = calibrators.find_calibrators(sources, np.radians(16.6), SearchOptions(), mjd=61065.0).set_index("name")
    assert found.loc["S00", "variability"] == "flat spectrum, index -0.10 from L to C band"
    assert found.loc["S01", "variability"] == ""
    assert found.loc["S02", "variability"].startswith("not known")
    assert found.loc["J2253+161", "variability"] == "known to vary: 3C454.3"
    assert found["variability"].map(calibrators.is_warning).to_dict() == {
        "S00": True,
        "S01": False,
        "S02": False,
        "J2253+161": True,
    }
    assert found.loc["S00", "score"] < found.loc["S01", "score"]


def test_every_blazar_of_the_list_is_a_vla_calibrator():
    assert {f"J{name}" for name in calibrators.BLAZARS} <= set(catalogs.calibrators()["name"])


def test_no_calibrator_in_the_beam_says_what_there_is():
    sources = icrs_list(3).assign(dec_deg=[16.5, 16.6, 40.0], flux_jy=[0.4, np.nan, 9.0])
    with pytest.raises(CalibrationError) as caught:
        calibrators.find_calibrators(sources, np.radians(16.6), SearchOptions(), mjd=61065.0)
    text = str(caught.value)
    assert "2 of the list within 1.5 deg, the brightest 0.40 Jy, 1 without a flux" in text
    assert "at least 1 Jy" in text


def test_an_unlisted_flux_is_an_error_and_never_a_default():
    listed = catalogs.calibrators()
    unknown = listed[listed["flux_jy"].isna()].iloc[0]
    options = SearchOptions(min_flux_jy=0.001)
    dec_rad = np.radians(unknown["dec_deg"])
    with pytest.raises(CalibrationError, match="GHz is not known"):
        calibrators.require_calibrator(listed, unknown["name"], dec_rad, options, mjd=61065.0)


def test_a_named_calibrator_must_exist_rise_and_cross_the_beam():
    listed, dec_rad, options = catalogs.calibrators(), np.radians(16.64), SearchOptions()
    found = calibrators.require_calibrator(listed, "3c138", dec_rad, options, mjd=61065.0)
    assert found["name"] == "J0521+166"
    assert found["beam_response"] > 0.99
    with pytest.raises(CalibrationError, match="does not cross the beam"):
        calibrators.require_calibrator(listed, "J1331+305", dec_rad, options, mjd=61065.0)
    with pytest.raises(CatalogError, match="not told by its name"):
        calibrators.require_calibrator(listed, "3C999", dec_rad, options, mjd=61065.0)
    southern = icrs_list(1).assign(dec_deg=-60.0)
    with pytest.raises(CalibrationError, match="below the horizon"):
        calibrators.require_calibrator(southern, "S00", dec_rad, options, mjd=61065.0)


@pytest.mark.parametrize(("dec_deg", "said"), [(-60.0, "below the horizon"), (float("nan"), "Not a declination")])
def test_a_pointing_that_cannot_be_is_refused(dec_deg, said):
    with pytest.raises(CalibrationError, match=said):
        calibrators.find_calibrators(icrs_list(), np.radians(dec_deg), SearchOptions(), mjd=61065.0)


def test_coverage_counts_overlapping_neighbourhoods_once():
    found = calibrators.coverage(np.array([9.99, 10.25, 10.26, 10.75]), 10.0, 11.0, near_minutes=28.8)  # 0.02 d
    assert found.n_transits == 3
    assert found.longest_gap_h == pytest.approx(0.49 * 24)
    assert found.fraction_near == pytest.approx(0.01 + 0.05 + 0.04)

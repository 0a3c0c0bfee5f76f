"""Which calibrator crosses which group, and when; against astropy by another way than the code's."""

import re
from importlib import resources

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
from dsa110_contimg.settings import load_settings

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


def test_an_inverted_spectrum_is_a_warning_as_a_flat_one_is():
    sources = icrs_list(3).assign(dec_deg=16.5, index_lc=[0.8, 0.29, -0.31])
    found = calibrators.find_calibrators(sources, np.radians(16.6), SearchOptions(), mjd=61065.0).set_index("name")
    assert found.loc["S00", "variability"] == "inverted spectrum, index +0.80 from L to C band"
    assert found.loc["S01", "variability"].startswith("flat spectrum")
    assert found.loc["S02", "variability"] == ""


# ---- what is assumed of variability and structure, against what is known of the sources ------------------------------


def vla_list():
    """A row a source: names, position, best code at L band, flux at L band (Jy), index from L to C band."""
    with (resources.files("dsa110_contimg") / "data" / "vla_calibrators.csv").open() as stream:
        rows = pd.read_csv(stream)
    codes = rows[["quality_A", "quality_B", "quality_C", "quality_D"]].fillna("").astype(str).agg("".join, axis=1)
    rows["code"] = [min((c for c in text if c in "PSWX"), key="PSWX".index, default="?") for text in codes]
    flux = rows[rows["flux_jy"] > 0].pivot_table(index="name", columns="band", values="flux_jy")
    table = rows[rows["band"] == "L"].drop_duplicates("name").set_index("name")
    return table.assign(index_lc=np.log(flux["C"] / flux["L"]) / np.log(4.86 / 1.425))


def departures():
    """VLA list over the exact NVSS, two epochs years apart: log ratio of the sources above 0.5 Jy that both have."""
    with (resources.files("dsa110_contimg") / "data" / "nvss_taylor2009.csv.gz").open("rb") as stream:
        nvss = pd.read_csv(stream, compression="gzip")
    table = vla_list()
    table = table[table["flux_jy"] > 0.5]
    there, other = (SkyCoord(t["ra_deg"].to_numpy(), t["dec_deg"].to_numpy(), unit="deg") for t in (table, nvss))
    index, apart, _ = there.match_to_catalog_sky(other)
    ratio = np.log(table["flux_jy"] / nvss["flux_1400_jy"].to_numpy()[index])
    return table.assign(ratio=ratio)[apart.arcsec < 10]


def spread(values):
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def test_the_assumed_error_of_a_variable_source_is_what_two_catalogues_show():
    table, flat_index = departures(), SearchOptions().flat_index
    steep = table.loc[table["index_lc"] < -flat_index - 0.1, "ratio"]
    warned = table.loc[table["index_lc"] > -flat_index, "ratio"]
    assert len(steep) > 70 and len(warned) > 250
    # 1.25 / sqrt(2 n) of a robust spread and tails that are not Gaussian: a tenth
    measured = np.sqrt(spread(warned) ** 2 - spread(steep) ** 2)
    assert measured == pytest.approx(calibrators.VARIABLE_ERROR, rel=0.1)
    assert spread(steep) < 0.06
    # the warning begins where variability does, and inverted spectra vary most
    for low, high in ((-0.3, -0.1), (-0.1, 0.1), (0.1, 0.3), (0.3, 1.5)):
        inside = table["index_lc"].between(low, high)
        assert spread(table.loc[inside, "ratio"]) > 2.5 * spread(steep), (low, high)


def test_a_steep_source_agrees_with_nvss_as_well_as_its_structure_code_says():
    table = departures()
    steep = table[table["index_lc"] < -0.4]
    for code, most in (("P", 0.045), ("S", calibrators.STRUCTURE_ERROR["S"])):
        assert spread(steep.loc[steep["code"] == code, "ratio"]) < most
    resolved = steep.loc[steep["code"].isin(["W", "X"]), "ratio"]
    assert np.sqrt((resolved**2).mean()) == pytest.approx(calibrators.STRUCTURE_ERROR["X"], abs=0.15)


def test_known_blazars_depart_from_nvss_as_variable_sources_do():
    table = departures()
    assert spread(table.loc[table.index.isin(calibrators.BLAZARS), "ratio"]) > calibrators.VARIABLE_ERROR


def gbi():
    folder = load_settings().validation_data / "lightcurves" / "gbi"
    curves = sorted(folder.glob("*.txt"))
    if not curves:
        pytest.skip(f"no light curves of the Green Bank Interferometer in {folder}")
    return {path.stem: np.genfromtxt(path)[:, 2:4] for path in curves}


def test_flat_spectrum_sources_that_were_monitored_vary_and_the_steep_one_does_not():
    rms, index = {}, {}
    for name, flux in gbi().items():
        low, high = flux[(flux > 0).all(axis=1)].T
        rms[name] = spread(low) / np.median(low)
        index[name] = np.median(np.log(high / low)) / np.log(8.3 / 2.25)
    assert rms.pop("1328+254") < 0.01 and index.pop("1328+254") < -0.4  # 3C287
    assert min(index.values()) > -SearchOptions().flat_index
    assert min(rms.values()) > 0.05
    # four years show less than decades do, and not everything
    assert 0.5 < np.median(list(rms.values())) / calibrators.VARIABLE_ERROR < 1.0


def ohio(b1950):
    """What the Ohio survey calls a place: hour, ten degrees and hundredths of the hour (Ehman, Dixon & Kraus 1970)."""
    hour, minute = int(b1950[:2]), int(b1950[2:4])
    letter = "BCDEFGHIJKLMNPQRSTUVWXYZ"[hour]
    return f"O{letter}", int(b1950[5]), 100 * minute / 60


@pytest.mark.parametrize(("name", "also"), calibrators.BLAZARS.items(), ids=str)
def test_a_blazar_is_in_the_list_and_its_common_name_is_that_of_its_place(name, also):
    row = vla_list().loc[name]
    assert f"J{name}" in set(catalogs.calibrators()["name"])
    plain, place = also.replace(" ", ""), re.search(r"\d{4}[+-]\d{2,3}$", also)
    if place is not None:  # named after its B1950 place
        assert row["b1950"].startswith(place.group())
    elif plain.startswith(("OJ", "OT")):
        letters, tens, hundredths = ohio(row["b1950"])
        assert plain[:2] == letters and int(plain[2]) == tens
        # the minutes of a B1950 name are cut off
        assert -1 < int(plain[3:]) - hundredths < 100 / 60 + 1
    else:
        assert row["alt_name"] == plain.upper()
    # the name of the list is its own J2000 place
    position = SkyCoord(row["ra_deg"], row["dec_deg"], unit="deg")
    assert position.ra.to_string(u.hour, sep="", pad=True)[:4] == name[:4]
    assert abs(abs(position.dec.deg) - (int(name[5:7]) + int(name[7]) / 10)) < 0.1


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

"""Directions and uvw against pyuvdata and astropy, which know nothing of ours."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time

from dsa110_contimg import telescope
from dsa110_contimg.science import coordinates

MJD = 61065.5 + np.arange(24) * telescope.INTEGRATION_S / 86400


def test_meridian_round_trips_to_hour_angle_zero():
    dec = np.radians(16.6)
    ra, dec_icrs = coordinates.meridian_icrs(MJD, dec)
    ha, apparent = coordinates.apparent_hadec(ra, dec_icrs, MJD)
    arcsec = np.radians(1 / 3600)
    assert np.abs(ha).max() < 1e-3 * arcsec
    assert np.abs(apparent - dec).max() < 1e-3 * arcsec


def test_meridian_drifts_at_the_sidereal_rate():
    ra, _ = coordinates.meridian_icrs(MJD, np.radians(16.6))
    rate = np.degrees(np.angle(np.exp(1j * np.diff(ra)))) * 3600 / telescope.INTEGRATION_S
    # 15.041 arcsec/s of apparent right ascension; precession turns it by less than 1e-3
    assert rate == pytest.approx(15.041, rel=1e-3)


@pytest.mark.parametrize("centre_deg", [(80.29, 16.64), (80.29, 54.6), (200.0, -10.0), (10.0, 89.7)])
def test_uvw_agree_with_pyuvdata(centre_deg):
    from pyuvdata.utils import phasing

    stations = telescope.stations()
    positions = stations.itrf[stations.active]
    loc = telescope.location()
    ra, dec = np.radians(centre_deg)
    jd = MJD + 2400000.5
    app_ra, app_dec = phasing.calc_app_coords(
        lon_coord=ra, lat_coord=dec, coord_frame="icrs", coord_epoch=2000.0, coord_type="sidereal", time_array=jd,
        telescope_loc=loc,
    )  # fmt: skip
    lst = Time(jd, format="jd", location=loc).sidereal_time("apparent").rad
    frame_pa = phasing.calc_frame_pos_angle(
        time_array=jd, app_ra=app_ra, app_dec=app_dec, telescope_loc=loc, ref_frame="icrs", ref_epoch=2000.0
    )
    baselines = positions[:14] - positions[-14:]
    assert np.linalg.norm(baselines, axis=1).max() > 2000
    mine = coordinates.uvw_frame(ra, dec, MJD).uvw(baselines)
    reference = np.array([loc.x.value, loc.y.value, loc.z.value])
    for t in (0, 12, 23):
        ends = np.concatenate([positions[-14:], positions[:14]])
        theirs = phasing.calc_uvw(
            app_ra=np.full(14, app_ra[t]), app_dec=np.full(14, app_dec[t]), frame_pa=np.full(14, frame_pa[t]),
            lst_array=np.full(14, lst[t]), use_ant_pos=True, antenna_positions=ends - reference,
            antenna_numbers=np.arange(28), ant_1_array=np.arange(14), ant_2_array=np.arange(14, 28),
            telescope_lat=loc.lat.rad, telescope_lon=loc.lon.rad,
        )  # fmt: skip
        assert np.abs(mine[t] - theirs).max() < 1e-4
        assert np.abs(mine[t] - theirs)[:, 2].max() < 1e-5  # phase of 3e-4 rad


def test_a_frame_of_many_centres_is_that_of_each():
    ra, dec = coordinates.meridian_icrs(MJD, np.radians(16.6))
    together = coordinates.uvw_frame(ra, dec, MJD).axes
    for t in (0, 23):
        alone = coordinates.uvw_frame(ra[t], dec[t], MJD[t : t + 1]).axes[0]
        assert np.abs(together[t] - alone).max() < 1e-12
    assert together @ together.swapaxes(1, 2) == pytest.approx(np.tile(np.eye(3), (24, 1, 1)), abs=1e-14)


def _turn(ra_deg, dec_deg):
    """Angle (rad) from the image of ICRS north, found by displacing the centre 20 arcsec, to v."""
    ra, dec, step = *np.radians([ra_deg, dec_deg]), 1e-4
    axes = coordinates.uvw_frame(ra, dec, MJD[:1]).axes[0]
    ends = [coordinates.earth_fixed(*coordinates.apparent_hadec(ra, dec + s, MJD[:1]))[0] for s in (step, -step)]
    return float(np.arctan2(axes[0] @ (ends[0] - ends[1]), axes[1] @ (ends[0] - ends[1])))


def test_the_orientation_costs_what_is_documented():
    # decision 12: the pole's precession angle of half a degree further south, largest at 6 h and 18 h
    assert abs(_turn(90.0, 16.6)) < 7e-6
    assert 5.0e-5 < abs(_turn(90.0, 54.6)) < 5.6e-5
    # and what it is: d/d(dec) of the angle, sin(angle) = n T sin(ra) / cos(dec), over half a degree
    years = (MJD[0] - 51544.5) / 365.25
    angle = np.radians(20.043 / 3600 * years) * np.tan(np.radians(54.6)) / np.cos(np.radians(54.6))
    assert abs(_turn(90.0, 54.6)) == pytest.approx(angle * np.pi / 360, rel=0.05)


def test_north_of_the_uvw_frame_is_icrs_north():
    # an independent route: the position angle of the true pole's image, from astropy's own frames
    centre = SkyCoord(80.29 * u.deg, 16.64 * u.deg)
    here = Time(MJD[:1], format="mjd", scale="utc")
    axes = coordinates.uvw_frame(centre.ra.rad, centre.dec.rad, MJD[:1]).axes[0]
    for angle in (0, 90, 217):
        near = centre.directional_offset_by(angle * u.deg, 30 * u.arcsec)
        s = coordinates.earth_fixed(*coordinates.apparent_hadec(near.ra.rad, near.dec.rad, here.mjd))[0]
        assert (
            np.degrees(np.arctan2(axes[0] @ s, axes[1] @ s)) % 360 == pytest.approx(angle % 360, abs=1e-3) or angle == 0
        )


def test_direction_cosines_are_those_of_a_sin_projection():
    centre = SkyCoord(80 * u.deg, 16 * u.deg)
    source = SkyCoord(81.3 * u.deg, 14.9 * u.deg)
    offset = centre.skyoffset_frame()
    there = source.transform_to(offset).cartesian
    mine = coordinates.direction_cosines(source.ra.rad, source.dec.rad, centre.ra.rad, centre.dec.rad)
    assert mine == pytest.approx([there.y.value, there.z.value, there.x.value], abs=1e-14)


@pytest.mark.parametrize(("angles", "mean"), [([359.0, 1.0], 0.0), ([350.0, 0.0, 10.0], 0.0), ([10.0, 20.0], 15.0)])
def test_circular_mean_is_safe_across_zero(angles, mean):
    found = np.degrees(coordinates.circular_mean(np.radians(angles)))
    assert abs((found - mean + 180) % 360 - 180) < 1e-9

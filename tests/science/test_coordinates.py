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


def test_uvw_agree_with_pyuvdata():
    from pyuvdata.utils import phasing

    stations = telescope.stations()
    positions = stations.itrf[stations.active]
    loc = telescope.location()
    ra, dec = np.radians(80.29), np.radians(16.64)
    jd = MJD + 2400000.5
    app_ra, app_dec = phasing.calc_app_coords(
        lon_coord=ra, lat_coord=dec, coord_frame="icrs", coord_epoch=2000.0, coord_type="sidereal", time_array=jd,
        telescope_loc=loc,
    )  # fmt: skip
    lst = Time(jd, format="jd", location=loc).sidereal_time("apparent").rad
    frame_pa = phasing.calc_frame_pos_angle(
        time_array=jd, app_ra=app_ra, app_dec=app_dec, telescope_loc=loc, ref_frame="icrs", ref_epoch=2000.0
    )
    baselines = positions[:8] - positions[-8:]
    mine = coordinates.uvw_frame(ra, dec, MJD).uvw(baselines)
    reference = np.array([loc.x.value, loc.y.value, loc.z.value])
    for t in (0, 12, 23):
        ends = np.concatenate([positions[-8:], positions[:8]])
        theirs = phasing.calc_uvw(
            app_ra=np.full(8, app_ra[t]), app_dec=np.full(8, app_dec[t]), frame_pa=np.full(8, frame_pa[t]),
            lst_array=np.full(8, lst[t]), use_ant_pos=True, antenna_positions=ends - reference,
            antenna_numbers=np.arange(16), ant_1_array=np.arange(8), ant_2_array=np.arange(8, 16),
            telescope_lat=loc.lat.rad, telescope_lon=loc.lon.rad,
        )  # fmt: skip
        assert np.abs(mine[t] - theirs)[:, 2].max() < 1e-5  # phase of 3e-4 rad
        # pyuvdata takes the frame's position angle (0.1 deg) at a point half a degree south: convergence of the
        # meridians makes that 0.0017 x tan(dec) x 0.0087 = 5e-6 rad different; 2e-5 rad is 0.1 arcsec in the field
        turn = (mine[t] - theirs)[:, :2] / np.linalg.norm(baselines, axis=1, keepdims=True)
        assert np.abs(turn).max() < 2e-5


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

"""Rotation of Datasets against sources placed by astropy, and against pyuvdata on a simulated file."""

import astropy.units as u
import numpy as np
import pytest
import xarray as xr
from astropy.coordinates import SkyCoord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.constants import speed_of_light

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.phasing import phase_to, radec, uvw

HERE, THERE = (1.4, 0.29), (1.423, 0.274)


@pytest.mark.parametrize("centre", [HERE, None], ids=["one centre", "raw group"])
def test_a_source_at_the_new_phase_centre_has_no_phase(looking_at, centre):
    view = phase_to(looking_at([(*THERE, 2.5)], centre), THERE)
    # what rounding of the visibilities to float32 leaves
    assert np.abs(view.VISIBILITY.to_numpy() - 2.5).max() < 2.5e-6
    assert np.abs(view.MODEL.to_numpy() - 2.5).max() < 2.5e-6


def test_w_is_the_component_towards_the_direction(looking_at, direction_vectors):
    view = looking_at([], HERE)
    row = dict(zip(view.antenna_name.to_numpy(), view.antenna_position.to_numpy(), strict=True))
    ends = (view[f"baseline_antenna{k}_name"].to_numpy() for k in (1, 2))
    baselines = np.array([row[a] - row[b] for a, b in zip(*ends, strict=True)])
    w = direction_vectors(*THERE, view.time.to_numpy()) @ baselines.T
    new = phase_to(view, THERE).UVW.to_numpy()
    assert np.abs(new[..., 2] - w).max() < 1e-6
    assert np.linalg.norm(new, axis=-1) == pytest.approx(np.tile(np.linalg.norm(baselines, axis=-1), (4, 1)), abs=1e-8)


def test_what_belongs_to_the_observation_is_carried(looking_at):
    raw = looking_at([(*THERE, 1.0)]).assign_coords(field_name=("time", [f"meridian_{t}" for t in range(4)]))
    view = phase_to(raw, SkyCoord(*THERE, unit=u.rad).galactic)
    assert set(view.field_name.to_numpy()) == {"J052607.7+154156.6"}
    for name in ("FLAG", "WEIGHT", "pointing_ra", "pointing_dec", "time", "frequency", "antenna_position"):
        assert view[name].variable.identical(raw[name].variable), name
    assert not {"phase_center_ra", "phase_center_dec"} & set(view.coords)
    assert (view.attrs["phase_center_ra"], view.attrs["phase_center_dec"]) == pytest.approx(THERE, abs=1e-12)
    assert schema.faults(view, schema.VISIBILITIES) == []
    assert "phase_center_ra" in raw.coords and raw.attrs["phase_center_ra"] != THERE[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ra=st.floats(0, 6.28), dec=st.floats(-1.57, 1.57), gap=st.integers(0, 16), reverse=st.booleans())
def test_there_and_back_is_where_it_was(looking_at, ra, dec, gap, reverse):
    start = phase_to(looking_at([(*THERE, 1.0), (1.38, 0.3, 0.7)]), HERE)
    # channels in any order, with a subband missing
    start = start.isel(frequency=[k for k in range(16) if not gap <= k < gap + 5][:: -1 if reverse else 1])
    back = phase_to(phase_to(start, (ra, dec)), HERE)
    scale = np.abs(start.VISIBILITY.to_numpy()).max()
    # two roundings to float32, and phases of up to 1e5 rad in double
    assert np.abs(back.VISIBILITY - start.VISIBILITY).max() < 4e-7 * scale
    assert np.abs(back.UVW - start.UVW).max() < 1e-8
    assert np.abs(np.abs(phase_to(start, (ra, dec)).VISIBILITY) - np.abs(start.VISIBILITY)).max() < 4e-7 * scale


def test_every_channel_is_turned_by_its_own_frequency(looking_at):
    view = looking_at([(*THERE, 1.0)], HERE)
    rng = np.random.default_rng(3)
    uneven = view.assign_coords(frequency=view.frequency + rng.uniform(0, 2e5, 16))
    turned = phase_to(uneven, THERE)
    delta = (view.UVW - turned.UVW).isel(uvw_label=2)
    turns = delta.to_numpy()[..., None, None] * uneven.frequency.to_numpy()[:, None] / speed_of_light
    expected = view.VISIBILITY.to_numpy() * np.exp(2j * np.pi * turns)
    assert np.abs(turned.VISIBILITY.to_numpy() - expected).max() < 1e-6


def test_a_lazy_view_stays_lazy_and_gives_the_same(looking_at, nothing_computed):
    plain = looking_at([(*THERE, 1.0)])
    lazy = looking_at([(*THERE, 1.0)], chunks=(3, 7, 5, 2))
    with nothing_computed():
        turned = phase_to(lazy, THERE)
        assert turned.VISIBILITY.chunks == lazy.VISIBILITY.chunks
    # a factor that is stepped from another channel may round differently
    assert np.abs(turned.VISIBILITY - phase_to(plain, THERE).VISIBILITY).max() < 1.2e-7
    assert turned.MODEL.dtype == np.complex64 and isinstance(plain.VISIBILITY.data, np.ndarray)


def test_a_baseline_that_a_time_lacks_spoils_nothing(looking_at):
    view = looking_at([(*THERE, 1.0)])
    view["UVW"][1, 3:] = np.nan
    view["FLAG"][1, 3:] = True
    turned = phase_to(view, THERE)
    assert np.isfinite(turned.UVW).all()
    assert np.abs(turned.VISIBILITY.where(~turned.FLAG, 1.0) - 1.0).max() < 1e-6


def test_what_cannot_be_phased_is_an_error(looking_at):
    view = looking_at([], HERE)
    with pytest.raises(InputError, match=r"antenna positions are not known.*antenna_position"):
        phase_to(view.drop_vars("antenna_position"), THERE)
    with pytest.raises(InputError, match=r"some antennas.*'6'"):
        uvw(view.isel(antenna_name=slice(0, 5)), THERE)
    with pytest.raises(InputError, match="2 directions"):
        phase_to(view, SkyCoord([1, 2] * u.rad, [0, 0] * u.rad))
    for nowhere in ((np.nan, 0.0), (1.0, 2.0), (0.0, np.nan)):
        with pytest.raises(InputError, match="Not a direction"):
            radec(nowhere)


@pytest.mark.filterwarnings("ignore")  # pyuvdata warns of what is odd in these files
def test_visibilities_and_uvw_agree_with_pyuvdata(night16):
    from pyuvdata import UVData

    file = night16.groups[0].files[3]
    raw = UVData()
    raw.read(file.path, file_type="uvh5", run_check=False)
    n_baselines, dec = raw.Nbls, float(raw.extra_keywords["phase_center_dec"])
    mjd = raw.time_array[::n_baselines] - 2400000.5
    ends = [raw.ant_1_array[:n_baselines], raw.ant_2_array[:n_baselines]]
    positions = telescope.stations().itrf
    # hour angle 0 in double precision: the files' float32 is 0.1 mm coarse
    longitude = np.radians(telescope.LONGITUDE_DEG)
    w = np.array([np.cos(dec) * np.cos(longitude), np.cos(dec) * np.sin(longitude), np.sin(dec)])
    east = np.array([-np.sin(longitude), np.cos(longitude), 0.0])
    meridian = (positions[ends[1]] - positions[ends[0]]) @ np.stack([east, np.cross(w, east), w], axis=-1)
    assert np.abs(np.tile(meridian, (24, 1)) - raw.uvw_array).max() < 2e-4
    cube = raw.data_array.reshape(24, n_baselines, *raw.data_array.shape[1:])
    dims = ("time", "baseline_id", "frequency", "polarization")
    view = xr.Dataset(
        {
            "VISIBILITY": (dims, np.conj(cube).astype(np.complex64)),
            "FLAG": (dims, np.zeros(cube.shape, bool)),
            "WEIGHT": (dims, np.ones(cube.shape, np.float32)),
            "UVW": (("time", "baseline_id", "uvw_label"), np.tile(-meridian, (24, 1, 1))),
        },
        coords={
            "time": mjd,
            "frequency": raw.freq_array.ravel(),
            "polarization": ["XX", "YY"],
            "baseline_antenna1_name": ("baseline_id", [str(a + 1) for a in ends[0]]),
            "baseline_antenna2_name": ("baseline_id", [str(a + 1) for a in ends[1]]),
            "pointing_ra": ("time", np.full(24, 1.4)),
            "pointing_dec": ("time", np.full(24, dec)),
            "antenna_name": [str(k + 1) for k in range(117)],
            "antenna_position": (("antenna_name", "cartesian_pos_label"), positions),
        },
        attrs=dict.fromkeys(schema.VISIBILITIES.attributes, 0.0),
    )
    ra, dec = np.radians(81.3), np.radians(15.9)
    raw.uvw_array = np.tile(meridian, (24, 1))
    turns = raw.uvw_array[:, 2:] * raw.freq_array.ravel() / speed_of_light
    raw.data_array = raw.data_array * np.exp(2j * np.pi * turns)[..., None]
    raw.set_uvws_from_antenna_positions(update_vis=False)
    raw.phase(lon=ra, lat=dec, phase_frame="icrs", cat_name="elsewhere")
    mine = phase_to(view, (ra, dec))
    theirs = np.conj(raw.data_array.reshape(cube.shape))
    assert np.abs(mine.VISIBILITY.to_numpy() - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert np.abs(mine.UVW.to_numpy() + raw.uvw_array.reshape(24, n_baselines, 3)).max() < 1e-3

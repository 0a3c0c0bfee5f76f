"""UVH5 files as Datasets: lazy, in the sense of a Measurement Set, whatever variant of the format they are in.

The other side is pyuvdata, which reads, phases and writes without any of our code.
"""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from xradio.measurement_set.schema import VisibilityXds
from xradio.schema.check import check_dataset

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import CorruptFileError, ForeignTelescopeError, InputError
from dsa110_contimg.io import uvh5, uvh5_views
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.science.coordinates import meridian_icrs
from dsa110_contimg.science.phasing import phase_to
from dsa110_contimg.science.selection import take
from dsa110_contimg.settings import load_settings

LIGHT = 299_792_458.0
CENTRE = (np.radians(80.4), np.radians(16.55))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pyuvdata warns of what is odd in these files


@pytest.fixture(scope="module")
def group(night16):
    return night16.groups[1]


@pytest.fixture(scope="module")
def raw(group):
    return uvh5_views.open_group(group, meridian_icrs)


def open_file(path):
    return uvh5_views.open_file(path, meridian_icrs)


# ---- what a group is ----------------------------------------------------------------------------------------------


def test_it_is_lazy_ascending_and_as_declared(night16):
    vis = uvh5_views.open_group(night16.groups[0], meridian_icrs)
    assert not schema.faults(vis, schema.VISIBILITIES)
    assert vis.sizes["frequency"] == 15 * 48
    steps = np.diff(vis.frequency)
    assert np.flatnonzero(steps > 1.5 * telescope.CHANNEL_WIDTH_HZ).tolist() == [6 * 48 - 1]  # sb09 has no file
    assert steps[6 * 48 - 1] == pytest.approx(49 * telescope.CHANNEL_WIDTH_HZ)
    assert vis.attrs["missing_subbands"] == [9]
    for name in ("VISIBILITY", "FLAG", "WEIGHT"):
        assert vis[name].chunks == ((8, 8, 8), (136,), (48,) * 15, (2,))


def test_it_has_the_sense_of_a_measurement_set(group, raw):
    """The file's conjugate, with uvw turned about; labels stay."""
    file = group.files[2]
    with h5py.File(file.path) as stored:
        truth = stored["Data/visdata"][5 * 136 + 7, 0, 10]
        uvw = stored["Header/uvw_array"][5 * 136 + 7]
        one, two = (stored[f"Header/ant_{i}_array"][7] for i in (1, 2))
        frequency = stored["Header/freq_array"][0, 10]
    here = raw.isel(time=5, baseline_id=7).sel(frequency=frequency)
    assert (here["VISIBILITY"].to_numpy() == truth.conj()).all()
    assert np.abs(here["UVW"] + uvw).max() < 2e-4  # float32 in the file
    assert (here.baseline_antenna1_name.item(), here.baseline_antenna2_name.item()) == (str(one + 1), str(two + 1))
    ends = [
        raw.antenna_position.sel(antenna_name=name.item())
        for name in (here.baseline_antenna1_name, here.baseline_antenna2_name)
    ]
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(np.linalg.norm(here["UVW"]), abs=1e-4)


def test_each_integration_has_its_own_centre_which_is_where_the_telescope_pointed(raw, night16):
    truth = night16.truth.groups[1]
    assert np.degrees(raw.pointing_ra.to_numpy()) == pytest.approx(truth.pointing_ra_deg, abs=1e-6)
    assert np.array_equal(raw.phase_center_ra, raw.pointing_ra) and np.array_equal(
        raw.phase_center_dec, raw.pointing_dec
    )
    assert raw.attrs["phase_center_ra"] == raw.phase_center_ra[0]


# ---- against pyuvdata ---------------------------------------------------------------------------------------------


def by_pyuvdata(path, *, undo=True):
    """The file in pyuvdata, its fringes put back as the sky sent them."""
    from pyuvdata import UVData

    uvd = UVData()
    uvd.read(path, file_type="uvh5", run_check=False)
    if undo:
        uvd.uvw_array = uvd.uvw_array.astype(np.float64)
        w = np.tile(uvh5.meridian_uvw(uvh5.read_header(path))[:, 2], uvd.Ntimes)
        uvd.data_array = uvd.data_array * np.exp(2j * np.pi * w[:, None] * uvd.freq_array / LIGHT)[..., None]
        uvd.set_uvws_from_antenna_positions(update_vis=False)
    return uvd


def agree(view, other, *, uvw_m=1e-3):
    """Two views of the same baselines in the same order are the same to the rounding of single precision."""
    scale = float(np.abs(other.VISIBILITY).max())
    assert np.abs(view.VISIBILITY - other.VISIBILITY).max() < 1e-5 * scale
    assert np.abs(view.UVW - other.UVW).max() < uvw_m
    for name in ("FLAG", "WEIGHT"):
        assert np.array_equal(view[name], other[name])


@pytest.fixture(scope="module")
def phased_by_pyuvdata(group, tmp_path_factory):
    """Two subbands phased by pyuvdata to one direction, as it writes them."""
    folder = tmp_path_factory.mktemp("phased")
    for file in group.files[3:5]:
        uvd = by_pyuvdata(file.path)
        uvd.phase(lon=CENTRE[0], lat=CENTRE[1], phase_frame="icrs", cat_name="centre")
        uvd.write_uvh5(folder / file.path.name, run_check=False, data_write_dtype="c8")
    return [folder / file.path.name for file in group.files[3:5]]


def test_a_file_phased_by_pyuvdata_is_the_raw_one_phased_by_us(group, phased_by_pyuvdata):
    phased = open_file(phased_by_pyuvdata[0])
    assert (phased.attrs["phase_center_ra"], phased.attrs["phase_center_dec"]) == pytest.approx(CENTRE, abs=1e-12)
    assert "phase_center_ra" not in phased.coords
    assert np.degrees(phased.pointing_dec.mean()) == pytest.approx(16.57, abs=0.1)  # the beam did not move with it
    agree(phased, phase_to(open_file(group.files[3].path), CENTRE))


def test_phased_files_make_a_group_but_are_not_what_convert_begins_with(group, phased_by_pyuvdata):
    records = tuple(uvh5.identify(path) for path in phased_by_pyuvdata)
    whole = uvh5_views.open_group(SubbandGroup("g", group.mjd_first, 16.6, records), meridian_icrs)
    assert whole.sizes["frequency"] == 96
    with pytest.raises(InputError, match=r"not as the telescope recorded it.*Found: RA 80\.4000, Dec 16\.5500 deg"):
        uvh5.meridian_uvw(uvh5.read_header(phased_by_pyuvdata[0]))
    mixed = (group.files[2], *records)
    with pytest.raises(CorruptFileError, match="phased to different directions"):
        uvh5_views.open_group(SubbandGroup("g", group.mjd_first, 16.6, mixed), meridian_icrs)


@pytest.mark.parametrize(("frame", "epoch"), [("icrs", None), ("fk5", 2000.0)])
def test_a_phased_file_of_the_old_format_is_read(phased_by_pyuvdata, tmp_path, frame, epoch):
    path = tmp_path / phased_by_pyuvdata[0].name
    path.write_bytes(phased_by_pyuvdata[0].read_bytes())
    with h5py.File(path, "r+") as file:
        head = file["Header"]
        for name in [n for n in head if n.startswith("phase_center")] + ["Nphase"]:
            del head[name]
        head["phase_type"], head["phase_center_frame"] = np.bytes_("phased"), np.bytes_(frame)
        head["phase_center_ra"], head["phase_center_dec"] = CENTRE
        if epoch:
            head["phase_center_epoch"] = epoch
    vis = open_file(path)
    # FK5 and ICRS differ by 23 mas
    assert (vis.attrs["phase_center_ra"], vis.attrs["phase_center_dec"]) == pytest.approx(CENTRE, abs=2e-7)
    assert np.array_equal(vis.VISIBILITY, open_file(phased_by_pyuvdata[0]).VISIBILITY)


def test_a_file_in_which_each_integration_was_phased_elsewhere_is_read(group, tmp_path):
    uvd = by_pyuvdata(group.files[3].path)
    times = np.unique(uvd.time_array)
    centres = np.radians(80.0 + 0.05 * np.arange(24)), np.radians(16.6)
    for i, time in enumerate(times):
        here = uvd.time_array == time
        uvd.phase(lon=centres[0][i], lat=centres[1], phase_frame="icrs", cat_name=f"c{i}", select_mask=here)
    uvd.write_uvh5(tmp_path / "each_sb03.hdf5", run_check=False)
    vis = open_file(tmp_path / "each_sb03.hdf5")
    assert np.allclose(vis.phase_center_ra, centres[0], rtol=0, atol=1e-12)
    agree(phase_to(vis, CENTRE), phase_to(open_file(group.files[3].path), CENTRE))


def test_a_phase_centre_that_moves_is_refused(phased_by_pyuvdata, tmp_path):
    path = tmp_path / phased_by_pyuvdata[0].name
    path.write_bytes(phased_by_pyuvdata[0].read_bytes())
    with h5py.File(path, "r+") as file:
        catalog = file["Header/phase_center_catalog"]
        for entry in catalog.values():
            entry["cat_type"][()] = np.bytes_("ephem")
    with pytest.raises(InputError, match=r"not read.*Found: \['ephem'\]"):
        open_file(path)


def test_phased_uvw_that_are_not_the_baselines_are_refused(phased_by_pyuvdata, tmp_path):
    path = tmp_path / phased_by_pyuvdata[0].name
    path.write_bytes(phased_by_pyuvdata[0].read_bytes())
    with h5py.File(path, "r+") as file:
        file["Header/uvw_array"][500, 1] += 0.01
    with pytest.raises(CorruptFileError, match="uvw_array is not the baselines"):
        open_file(path)


# ---- variants of the format ---------------------------------------------------------------------------------------


def rewritten(source: Path, folder: Path, change) -> Path:
    path = folder / source.name
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace(group, name, values, **how):
    del group[name]
    group.create_dataset(name, data=values, **how)


def ascending(file):
    replace(file["Header"], "freq_array", file["Header/freq_array"][:][:, ::-1])
    for name in ("visdata", "flags", "nsamples"):
        replace(file["Data"], name, file["Data"][name][:][:, :, ::-1])


def without_window_axis(file):
    replace(file["Header"], "freq_array", file["Header/freq_array"][0])
    replace(file["Header"], "channel_width", np.full(48, -telescope.CHANNEL_WIDTH_HZ))
    for name in ("visdata", "flags", "nsamples"):
        replace(file["Data"], name, file["Data"][name][:, 0])


def compressed(file):
    for name in ("visdata", "flags", "nsamples"):
        replace(file["Data"], name, file["Data"][name][:], compression="lzf", shuffle=True, chunks=(100, 1, 48, 1))


def double_precision(file):
    header = file["Header"]
    replace(header, "uvw_array", header["uvw_array"][:].astype(np.float64))
    replace(file["Data"], "visdata", file["Data/visdata"][:].astype(np.complex128))
    replace(file["Data"], "nsamples", file["Data/nsamples"][:].astype(np.float64))
    replace(header, "ant_1_array", header["ant_1_array"][:].astype(np.int32))


def as_it_is(_file):
    pass


def only_used_antennas(file):
    header = file["Header"]
    used = np.unique([header["ant_1_array"][:], header["ant_2_array"][:]])
    count = used.max() + 1
    for name in ("antenna_names", "antenna_numbers", "antenna_positions", "antenna_diameters"):
        replace(header, name, header[name][:count])
    header["Nants_telescope"][()] = count


@pytest.mark.parametrize("change", [ascending, without_window_axis, compressed, double_precision, only_used_antennas])
def test_every_variant_opens_as_the_same_dataset(group, tmp_path, change):
    source = group.files[4].path
    plain, other = open_file(source), open_file(rewritten(source, tmp_path, change))
    # an array without its window axis is in one piece; slices of every kind reach the same numbers
    for choice in (
        {},
        {"baseline_id": [3, 100], "time": slice(2, 20, 5)},
        {"frequency": slice(40, 10, -3), "polarization": 1},
    ):
        assert plain.isel(choice).load().equals(other.isel(choice).load())


def test_four_polarisations_come_in_the_files_order(simulated, tmp_path):
    night = simulated(tmp_path, n_antennas=3, n_groups=1, n_polarizations=4, subbands=(0, 1))
    files = sorted(night.directory.glob("*.hdf5"))
    vis = open_file(files[0])
    assert vis.polarization.values.tolist() == ["XX", "XY", "YX", "YY"]
    with h5py.File(files[0]) as file:
        stored = file["Data/visdata"][:, 0].reshape(24, 6, 48, 4)[:, :, ::-1]
    assert np.array_equal(vis.sel(polarization="XY").VISIBILITY, stored[..., 1].conj())


# ---- laziness -----------------------------------------------------------------------------------------------------


def bytes_read():
    """Bytes that this process has asked the system for, from the system's own count."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="the system does not count what a process reads")
@pytest.mark.parametrize(
    ("choice", "chunks"),
    [
        ({"baseline_id": 3, "time": 0}, 1 * 4 * 2),  # rows 3: one chunk of 128 rows, of 48 / 12 channels and 2 hands
        ({"baseline_id": [3, 5], "time": 0, "polarization": 0}, 1 * 4 * 1),
        ({"baseline_id": 3, "time": [0, 2], "frequency": slice(30, 40)}, 2 * 2 * 2),  # rows 3, 275; two of four
        ({"baseline_id": slice(0, 136), "time": slice(0, 2), "frequency": slice(0, 48)}, 3 * 4 * 2),  # rows 0-271
    ],
)
def test_no_chunk_is_read_that_was_not_asked_for(group, choice, chunks):
    vis = open_file(group.files[4].path)
    for axis, places in choice.items():
        index = np.arange(vis.sizes[axis])[places]
        vis = take(vis, axis, np.atleast_1d(index))
    asked = vis.VISIBILITY
    asked.compute(scheduler="sync")  # where the chunks lie is looked up once
    before = bytes_read()
    asked.compute(scheduler="sync")
    assert bytes_read() - before - chunks * 128 * 12 * 8 < 1000  # and what it takes to read the counter


def test_a_file_that_shrinks_or_vanishes_after_it_was_opened_is_our_error(group, tmp_path):
    path = rewritten(group.files[4].path, tmp_path, as_it_is)
    vis = open_file(path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CorruptFileError, match=path.name):
        vis.WEIGHT.compute(scheduler="sync")
    path.unlink()
    with pytest.raises(CorruptFileError, match="is gone"):
        vis.VISIBILITY.compute(scheduler="sync")


# ---- another telescope --------------------------------------------------------------------------------------------


@pytest.fixture
def hera():
    path = load_settings().validation_data / "uvh5_other" / "hera.uvh5"
    if not path.is_file():
        pytest.skip(f"the validation data are not at {path}; DSA110_VALIDATION_DATA names the folder")
    return path


def test_another_telescopes_file_is_read_but_is_no_part_of_a_group(hera):
    vis = open_file(hera)
    assert vis.attrs["telescope_name"] == "HERA"
    assert vis.antenna_name.values.tolist() == ["HH0", "HH1", "HH12", "HH26"]
    assert np.linalg.norm(vis.antenna_position, axis=1) == pytest.approx(6.3734e6, rel=1e-3)
    assert not schema.faults(vis, schema.VISIBILITIES)
    with pytest.raises(ForeignTelescopeError):
        uvh5.identify(hera)


def test_fringes_that_were_never_stopped_are_stopped_at_the_zenith(hera):
    """So that it can be phased like any other: compared with pyuvdata's phasing of the file."""
    ours = phase_to(open_file(hera), CENTRE)
    uvd = by_pyuvdata(hera, undo=False)
    uvd.phase(lon=CENTRE[0], lat=CENTRE[1], phase_frame="icrs", cat_name="centre")
    theirs = uvd.data_array.conj().reshape(8, 10, 64, 4)
    # HERA is on the other side of the earth, and the direction below its horizon: w is as long as the baseline
    assert np.abs(ours.VISIBILITY - theirs).max() < 1e-4 * np.abs(theirs).max()
    assert np.abs(ours.UVW + uvd.uvw_array.reshape(8, 10, 3)).max() < 1e-2


# ---- MSv4 ---------------------------------------------------------------------------------------------------------

UNITS = "attrs['units']: Disallowed literal value!"
DELIBERATE = {f"coords['time'].{UNITS}", "dims: Superfluous coordinate"}
"""Where a view differs from MSv4: time in days, and the antennas' positions beside the visibilities
(docs/visibilities.md says why)."""


def differences(dataset):
    """What xradio finds; it looks at a coordinate again with each variable that has it."""
    texts = (f"{issue.path_str()}: {issue.message}" for issue in check_dataset(dataset, VisibilityXds).issues)
    return {re.sub(r"^data_vars\['\w+'\]\.|( '[\w',]+'\?)$", "", text) for text in texts}


def test_a_group_is_msv4_but_for_what_the_documentation_lists(raw, hera):
    assert differences(raw) == DELIBERATE
    assert differences(open_file(hera)) == DELIBERATE

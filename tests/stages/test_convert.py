"""Conversion against pyuvdata, which reads, phases and writes without any of our code."""

import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import IncompleteGroupError, OutputError
from dsa110_contimg.io import ms, uvh5
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.stages.convert import convert

C = 299_792_458.0


@pytest.fixture(scope="module")
def converted(night16, tmp_path_factory):
    return convert(night16.groups[0], ConvertOptions(), tmp_path_factory.mktemp("convert"))


def by_pyuvdata(path, ra, dec):
    """The recipe of the observatory's files for pyuvdata: undo the fringestopping, then phase."""
    from pyuvdata import UVData

    uvd = UVData()
    uvd.read(path, file_type="uvh5", run_check=False)
    uvd.uvw_array = uvd.uvw_array.astype(np.float64)
    exact = uvh5.meridian_uvw(uvh5.read_header(path))[:, 2]  # the files' float32 w is 0.1 mm coarse
    w = np.tile(exact, uvd.Ntimes)
    assert np.abs(w - uvd.uvw_array[:, 2]).max() < 2e-4
    frequencies = uvd.freq_array.ravel()
    uvd.data_array = uvd.data_array * np.exp(2j * np.pi * w[:, None] * frequencies / C)[..., None]
    uvd.set_uvws_from_antenna_positions(update_vis=False)
    uvd.phase(lon=ra, lat=dec, phase_frame="icrs", cat_name="meridian")
    uvd.conjugate_bls("ant1<ant2")
    return uvd


@pytest.mark.filterwarnings("ignore")  # pyuvdata warns of what is odd in these files
def test_visibilities_and_uvw_agree_with_pyuvdata(converted, night16):
    layout = ms.read_layout(converted.path)
    file = night16.groups[0].files[3]
    uvd = by_pyuvdata(file.path, layout.ra, layout.dec)
    first = (15 - file.subband) * 48
    data, _ = ms.read_channels(converted.path, "DATA", first, first + 48)
    # ours is conj(V(1, 2)) with uvw turned, as pyuvdata's write_ms does for ant1 < ant2
    theirs = np.conj(uvd.data_array[:, ::-1])
    names = np.array([int(n) - 1 for n in layout.names])
    mine = {(names[a], names[b]): i for i, (a, b) in enumerate(zip(layout.antenna1, layout.antenna2, strict=True))}
    n_bl = layout.antenna1.size
    rows = np.array([mine[(a, b)] for a, b in zip(uvd.ant_1_array[:n_bl], uvd.ant_2_array[:n_bl], strict=True)])
    order = (np.arange(24)[:, None] * n_bl + rows).ravel()
    scale = np.abs(theirs).max()
    assert np.abs(data[order] - theirs).max() < 1e-5 * scale
    uvw = -uvd.uvw_array.reshape(24, n_bl, 3)
    assert np.abs(layout.uvw[:, rows, 2] - uvw[..., 2]).max() < 1e-5
    assert np.abs(layout.uvw[:, rows] - uvw).max() < 1e-3


def test_what_casa_needs_is_there(converted, night16):
    layout = ms.read_layout(converted.path)
    assert layout.frequencies.size == 768
    assert np.diff(layout.frequencies) == pytest.approx(telescope.CHANNEL_WIDTH_HZ)
    assert (layout.antenna1 <= layout.antenna2).all()
    stations = telescope.stations()
    index = [int(n) - 1 for n in layout.names]
    assert np.abs(layout.positions - stations.itrf[index]).max() < 1e-3
    with ms.opened(converted.path / "ANTENNA") as sub:
        assert set(sub.getcol("MOUNT")) == {"ALT-AZ"}
        assert sub.getcol("DISH_DIAMETER") == pytest.approx(4.65)
    with ms.opened(converted.path / "FIELD") as sub:
        assert sub.nrows() == 1
    truth = night16.truth.groups[0]
    assert np.degrees(layout.pointing_ra) == pytest.approx(truth.pointing_ra_deg, abs=1e-6)
    # the phase centre is the meridian at mid-group: between the 12th and 13th pointing
    assert converted.ra_deg == pytest.approx(truth.pointing_ra_deg[11:13].mean(), abs=1e-4)
    assert converted.mjd_end - converted.mjd_start == pytest.approx(telescope.GROUP_S / 86400, abs=1e-9)


def test_a_missing_subband_is_flagged_data_and_named(converted):
    assert converted.missing_subbands == (9,)
    first = (15 - 9) * 48
    data, flags = ms.read_channels(converted.path, "DATA", first - 1, first + 49)
    assert flags[:, 1:-1].all()
    assert not flags[:, 0].any() and not flags[:, -1].any()
    assert (data[:, 1:-1] == 0).all()


def test_eleven_subbands_are_refused_and_nothing_is_left(night16, tmp_path):
    group = night16.groups[0]
    few = SubbandGroup(group.group_id, group.mjd_first, group.pointing_dec_deg, group.files[:11])
    with pytest.raises(IncompleteGroupError, match=r"Found: 11 of 16 .*Expected: at least 12"):
        convert(few, ConvertOptions(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_our_error(night16, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        convert(night16.groups[0], ConvertOptions(), tmp_path / "file")

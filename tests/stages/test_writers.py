"""Three writers, one sky: the direct writer against pyuvdata's and CASA's, and against itself with other options."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from astropy.io import fits

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io import ms, wsclean
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.science.phasing import phase_to
from dsa110_contimg.stages.convert import convert

MILLIMETRE = 1e-3
needs_wsclean = pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed (make system)")


@pytest.fixture(scope="module")
def made(night16, tmp_path_factory):
    """A function that converts the first group, which lacks sb09, with some options: once for each."""
    kept = {}

    def make(**options):
        key = tuple(sorted(options.items()))
        if key not in kept:
            place = tmp_path_factory.mktemp("writers")
            kept[key] = convert(night16.groups[0], ConvertOptions(**options), place)
        return kept[key].path

    return make


def rows(path):
    """The whole of a Measurement Set by time and station names, whatever order its antennas have."""
    layout = ms.read_layout(path, several=True)
    vis = ms.open_ms(path).load()
    stations = np.array([int(name) for name in layout.names])
    order = np.lexsort((stations[layout.antenna2], stations[layout.antenna1]))
    return vis.isel(baseline_id=order)


def farthest(one, two):
    """Largest difference of two visibility arrays, of cross-correlations, relative to the largest of them."""
    cross = one["baseline_antenna1_name"].values != one["baseline_antenna2_name"].values
    a, b = (vis["VISIBILITY"].values[:, cross] for vis in (one, two))
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("writer", ["pyuvdata", "casa"])
def test_the_writers_agree_in_everything_that_is_measured(made, writer):
    ours, theirs = rows(made(writer="direct")), rows(made(writer=writer))
    for name in ("baseline_antenna1_name", "baseline_antenna2_name"):
        assert (ours[name].values == theirs[name].values).all()
    assert np.abs(ours["time"].values - theirs["time"].values).max() * 86400 < 1e-4  # UVFITS holds days in two floats
    assert np.abs(ours["frequency"].values - theirs["frequency"].values).max() < 1e-3
    assert np.abs(ours["UVW"].values - theirs["UVW"].values).max() < MILLIMETRE
    assert farthest(ours, theirs) < 1e-5
    assert (ours["FLAG"].values == theirs["FLAG"].values).all()
    assert (ours["WEIGHT"].values == theirs["WEIGHT"].values)[~ours["FLAG"].values].all()
    assert np.abs(ours["pointing_ra"].values - theirs["pointing_ra"].values).max() < 1e-12
    assert np.abs(ours["antenna_position"] - theirs["antenna_position"]).max() < MILLIMETRE


@needs_wsclean
@pytest.mark.parametrize("writer", ["pyuvdata", "casa"])
def test_wsclean_makes_the_same_dirty_image_of_them(made, writer, tmp_path):
    images = []
    for number, path in enumerate((made(writer="direct"), made(writer=writer))):
        command = wsclean.dirty_command(path, tmp_path / str(number), n_pixels=512, cell_arcsec=20.0)
        (made_image,) = wsclean.run(command)
        images.append(fits.getdata(made_image).squeeze())
    assert np.abs(images[0] - images[1]).max() < 1e-4 * images[1].max()


def test_a_field_for_each_integration_shows_the_same_sky_when_rephased(made):
    one, many = ms.open_ms(made(writer="direct")), ms.open_ms(made(writer="direct", phase_center="meridian"))
    assert many.sizes["time"] == 24 == len(np.unique(many["phase_center_ra"]))
    assert np.abs(many["phase_center_ra"].values - many["pointing_ra"].values).max() < 1e-12
    turned = phase_to(many, (one.attrs["phase_center_ra"], one.attrs["phase_center_dec"]))
    assert np.abs(turned["UVW"].values - one["UVW"].values).max() < MILLIMETRE
    assert farthest(turned, one) < 1e-5
    # rephasing did something: the two differ by many turns before
    assert farthest(many, one) > 0.1


@needs_wsclean
def test_wsclean_refuses_many_phase_centres_and_says_why(made, tmp_path):
    path = made(writer="direct", phase_center="meridian")
    with pytest.raises(InputError, match=r"first alone.*24 fields.*one phase centre"):
        wsclean.dirty_command(path, tmp_path / "no", n_pixels=256, cell_arcsec=40.0)


def test_sixteen_spectral_windows_hold_what_one_does(made):
    one, many = made(writer="direct"), made(writer="direct", spectral_windows=16)
    with ms.opened(many / "SPECTRAL_WINDOW") as sub:
        assert sub.nrows() == 16
        assert (np.diff(sub.getcol("CHAN_FREQ").ravel()) > 0).all()
    a, b = ms.open_ms(one), ms.open_ms(many)
    for name in ("VISIBILITY", "FLAG", "WEIGHT", "UVW"):
        assert (a[name].values == b[name].values).all(), name


def test_the_reference_writers_say_what_they_do_not_make(made):
    with pytest.raises(InputError, match="pyuvdata writer does not make that"):
        made(writer="pyuvdata", spectral_windows=16)
    with pytest.raises(InputError, match=r"casa writer .*24 fields"):
        made(writer="casa", phase_center="meridian")


@pytest.mark.parametrize("writer", ["direct", "pyuvdata"])
def test_columns_for_imaging_are_allocated_and_empty(made, writer):
    path = made(writer=writer, columns="imaging")
    with ms.opened(path) as main:
        for column in ("MODEL_DATA", "CORRECTED_DATA"):
            assert main.getcell(column, 0).shape == main.getcell("DATA", 0).shape
            assert not main.getcol(column, 0, 200).any()


@pytest.mark.parametrize("writer", ["direct", "pyuvdata", "casa"])
def test_without_weight_spectrum_weight_carries_the_mean_of_the_channels(made, writer):
    full, short = made(writer="direct"), made(writer=writer, weight_spectrum=False)
    with ms.opened(full) as main, ms.opened(short) as other:
        assert "WEIGHT_SPECTRUM" not in other.colnames()
        # a missing subband takes no part in the mean
        assert (np.unique(main.getcol("WEIGHT_SPECTRUM")) == [0, 96]).all()
        assert (other.getcol("WEIGHT") == 96).all()
        assert other.getcol("SIGMA") == pytest.approx(1 / np.sqrt(96))
    assert (ms.open_ms(short)["WEIGHT"].values == 96).all()


def test_how_it_is_written_does_not_change_what_is_written(made):
    plain, staged = made(writer="direct"), made(writer="direct", staging="tmpfs", workers=1)
    assert not [p for p in staged.parent.iterdir() if p != staged]
    a, b = ms.open_ms(plain), ms.open_ms(staged)
    for name in ("VISIBILITY", "FLAG", "WEIGHT", "UVW"):
        assert (a[name].values == b[name].values).all(), name
    same = ConvertOptions(staging="tmpfs", workers=1).digest()
    assert same == ConvertOptions().digest() != ConvertOptions(phase_center="meridian").digest()

"""WSClean behind `io.wsclean.image`: what is asked, what is refused, and what is left when it goes wrong.

Programs that die, fill the disk or diverge are small scripts of the name of WSClean: what is tested is how a program's
end is read, whatever program it is. Images of the real one are compared in `tests/stages/test_imagers.py`.
"""

import os
import shutil
import sys

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ExternalToolError, ImagingError, InputError, OutputError
from dsa110_contimg.io import files, ms, scratch_ms, tclean, wsclean
from dsa110_contimg.io.imagers import Planes, Request, ended_early, has_diverged, require_sane
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.coordinates import uvw_frame
from dsa110_contimg.science.stokes import stokes_i

needs_wsclean = pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed (make system)")
OPTIONS = ImageOptions(n_pixels=256, cell_arcsec=12.0, threads=1)


def view(**attributes: object) -> xr.Dataset:
    """Ten antennas, three integrations, four channels: one source of 1 Jy in the centre, and a little noise."""
    table, n = telescope.stations(), 10
    positions = table.itrf[np.flatnonzero(table.active)[:: len(table.itrf[table.active]) // n][:n]]
    i, j = np.triu_indices(n, 1)
    mjd, names = 61066.2 + np.arange(3) * telescope.INTEGRATION_S / 86400, [str(k) for k in range(n)]
    shape = (3, i.size, 4, 2)
    rng = np.random.default_rng(3)
    noise = 0.1 * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    dims = ("time", "baseline_id", "frequency", "polarization")
    return xr.Dataset(
        {
            "VISIBILITY": (dims, (1.0 + noise).astype(np.complex64)),
            "FLAG": (dims, rng.random(shape) < 0.1),
            "WEIGHT": (dims, rng.uniform(0.5, 1.5, shape).astype(np.float32)),
            "UVW": (
                ("time", "baseline_id", "uvw_label"),
                uvw_frame(1.4, 0.29, mjd).uvw(positions[i] - positions[j]),
            ),
        },
        coords={
            "time": mjd,
            "frequency": 1.4e9 + 2e6 * np.arange(4),
            "polarization": ["XX", "YY"],
            "antenna_name": names,
            "antenna_position": (("antenna_name", "cartesian_pos_label"), positions),
            "baseline_antenna1_name": ("baseline_id", [names[k] for k in i]),
            "baseline_antenna2_name": ("baseline_id", [names[k] for k in j]),
            "pointing_ra": ("time", np.full(3, 1.4)),
            "pointing_dec": ("time", np.full(3, 0.29)),
        },
        attrs={
            "phase_center_ra": 1.4,
            "phase_center_dec": 0.29,
            "integration_time": telescope.INTEGRATION_S,
            "channel_width": 2e6,
            "telescope_name": telescope.TELESCOPE_NAME,
            "group_id": "2026-01-26T04:48:00",
            **attributes,
        },
    )


@pytest.fixture(scope="module")
def measurement_set(tmp_path_factory):
    return scratch_ms.write(stokes_i(view()), tmp_path_factory.mktemp("ms") / "field.ms")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that puts a Python script named wsclean on the path, which says version 3.1 and then does as told."""

    def make(body: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        script = folder / "wsclean"
        head = "import sys, os\nif '--version' in sys.argv:\n    print('WSClean version 3.1.0'); sys.exit()\n"
        script.write_text(f"#!{sys.executable}\n{head}{body}")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.defpath}")

    return make


# ---- the scratch Measurement Set ----------------------------------------------------------------------------------


def test_a_view_comes_back_from_its_measurement_set(tmp_path):
    there = view()
    back = ms.open_ms(scratch_ms.write(there, tmp_path / "a.ms"))
    for name in ("VISIBILITY", "FLAG", "WEIGHT"):
        np.testing.assert_array_equal(back[name].to_numpy(), there[name].to_numpy())
    np.testing.assert_allclose(back["UVW"], there["UVW"], atol=1e-9)
    assert back.attrs["phase_center_ra"] == there.attrs["phase_center_ra"]
    lazy = scratch_ms.write(there.chunk(time=2), tmp_path / "b.ms")
    np.testing.assert_array_equal(ms.open_ms(lazy)["VISIBILITY"].to_numpy(), there["VISIBILITY"].to_numpy())


def test_what_is_no_number_is_flagged(tmp_path):
    there = view()
    there["VISIBILITY"].values[1, 2, 3, 0] = np.nan
    there["UVW"].values[2, 5] = np.nan
    there["FLAG"].values[:] = False
    back = ms.open_ms(scratch_ms.write(there, tmp_path / "a.ms"))
    assert back["FLAG"].values[1, 2, 3, 0]
    assert back["FLAG"].values[2, 5].all()
    assert back["FLAG"].values.sum() == 1 + 8
    assert np.isfinite(back["VISIBILITY"].values).all()


def test_views_that_have_no_one_field_are_refused(tmp_path):
    several = view().assign_coords(phase_center_ra=("time", [1.4, 1.5, 1.6]))
    with pytest.raises(InputError, match="phase centre of its own"):
        scratch_ms.write(several, tmp_path / "a.ms")
    with pytest.raises(InputError, match="antenna positions"):
        scratch_ms.write(view().drop_vars("antenna_position"), tmp_path / "a.ms")
    with pytest.raises(InputError, match=r"not written.*RR"):
        scratch_ms.write(view().assign_coords(polarization=["RR", "LL"]), tmp_path / "a.ms")
    assert not any(tmp_path.iterdir())


# ---- the command --------------------------------------------------------------------------------------------------


def after(command: wsclean.Command, name: str) -> str:
    return command.arguments[command.arguments.index(name) + 1]


@needs_wsclean
def test_every_option_is_in_the_command(measurement_set, tmp_path):
    options = OPTIONS.model_copy(
        update={
            "weighting": "briggs",
            "robust": -0.5,
            "uv_taper_arcsec": 60.0,
            "deconvolver": "multiscale",
            "scales_arcsec": (0.0, 60.0),
            "max_iterations": 700,
            "max_major_cycles": 7,
            "minor_gain": 0.2,
            "major_gain": 0.7,
            "mask_sigma": 6.0,
            "threshold_sigma": 2.0,
            "threshold_jy": 0.01,
        }
    )
    request = Request((measurement_set,), options, uv_lambda=(100.0, 5000.0), memory_gb=2.5)
    command = wsclean.clean_command(request, tmp_path / "image")
    position = command.arguments.index("-weight")
    assert command.arguments[position + 1 : position + 3] == ("briggs", "-0.5")
    told = {
        "-pol": "I",
        "-scale": "12.0asec",
        "-taper-gaussian": "60asec",
        "-minuv-l": "100",
        "-maxuv-l": "5000",
        "-niter": "700",
        "-nmiter": "7",
        "-gain": "0.2",
        "-mgain": "0.7",
        "-auto-mask": "6",
        "-auto-threshold": "2",
        "-threshold": "0.01",
        "-multiscale-scales": "0,5",
        "-abs-mem": "2.5",
        "-temp-dir": str(tmp_path),
        "-data-column": "DATA",
    }
    assert {name: after(command, name) for name in told} == told
    assert "-no-update-model-required" in command.arguments
    assert command.arguments[-1] == str(measurement_set)
    masked = wsclean.clean_command(
        Request((measurement_set,), OPTIONS.model_copy(update={"mask": "none"}), mask=tmp_path / "m.fits"),
        tmp_path / "i",
    )
    assert after(masked, "-fits-mask").endswith("m.fits")
    assert "-auto-mask" not in masked.arguments


@needs_wsclean
def test_the_image_is_right_to_its_edge_and_the_measurement_set_unchanged(tmp_path):
    """A source four pixels from the corner, where WSClean's own padding and resolution would leave it wrong."""
    options = OPTIONS.model_copy(update={"max_iterations": 0, "weighting": "natural"})
    away = 124 * np.radians(12 / 3600)
    there = view()
    phase = there["UVW"].to_numpy() @ [-away, away, np.sqrt(1 - 2 * away**2) - 1]
    turns = phase[..., None] * there["frequency"].to_numpy() / 299_792_458.0
    there["VISIBILITY"].values[:] = np.exp(2j * np.pi * turns)[..., None]
    path = scratch_ms.write(stokes_i(there), tmp_path / "edge.ms")
    before = files.fingerprint(path)
    planes = wsclean.image(Request((path,), options), tmp_path)
    assert planes.residual[128 + 124, 128 + 124] == pytest.approx(1.0, abs=1e-3)
    assert not planes.model.any()
    assert planes.iterations == 0
    assert files.fingerprint(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["edge.ms"]


@needs_wsclean
def test_a_measurement_set_that_is_all_flagged_makes_no_image(tmp_path):
    there = view()
    there["FLAG"].values[:] = True
    path = scratch_ms.write(stokes_i(there), tmp_path / "flagged.ms")
    with pytest.raises((ImagingError, ExternalToolError)):
        wsclean.image(Request((path,), OPTIONS), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["flagged.ms"]


# ---- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_missing_program_says_how_to_get_it(measurement_set, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExternalToolError, match=r"not installed.*make system"):
        wsclean.image(Request((measurement_set,), OPTIONS), tmp_path)


def test_a_killed_program_is_named_with_its_signal_and_leaves_nothing(measurement_set, tmp_path, program):
    program("os.kill(os.getpid(), 9)")
    place = tmp_path / "work"
    with pytest.raises(ExternalToolError, match=r"killed.*SIGKILL.*memory"):
        wsclean.image(Request((measurement_set,), OPTIONS), place)
    assert not any(place.iterdir())


def test_a_full_disk_is_an_error_of_output(measurement_set, tmp_path, program):
    program("print('Error writing file: No space left on device'); sys.exit(1)")
    place = tmp_path / "work"
    with pytest.raises(OutputError, match="no room"):
        wsclean.image(Request((measurement_set,), OPTIONS), place)
    assert not any(place.iterdir())


def test_time_over_ends_the_program(measurement_set, tmp_path, program):
    program("import time; time.sleep(60)")
    place = tmp_path / "work"
    with pytest.raises(ExternalToolError, match="out of time"):
        wsclean.image(Request((measurement_set,), OPTIONS, timeout_s=1.0), place)
    assert not any(place.iterdir())


_DIVERGING = """
import numpy as np
from astropy.io import fits
name, n = sys.argv[sys.argv.index('-name') + 1], 256
gain = float(sys.argv[sys.argv.index('-mgain') + 1])
psf = np.zeros((1, 1, n, n), np.float32)
psf[0, 0, n // 2, n // 2] = 1.0
for kind, factor in (('psf', 1.0), ('dirty', 1.0), ('model', 1.0), ('residual', 0.01 if gain < SAFE else 5.0)):
    header = fits.Header({'BMAJ': 0.02, 'BMIN': 0.01, 'BPA': 0.0, 'WSCMINOR': 10, 'WSCMAJOR': 2})
    fits.writeto(f'{name}-{kind}.fits', factor * psf, header)
"""


def test_a_diverged_deconvolution_is_tried_again_with_smaller_gains(measurement_set, tmp_path, program):
    program(_DIVERGING.replace("SAFE", "0.7"))
    planes = wsclean.image(
        Request((measurement_set,), OPTIONS.model_copy(update={"mask": "catalog"})), tmp_path / "work"
    )
    assert planes.residual.max() == pytest.approx(0.01)
    assert not any((tmp_path / "work").iterdir())


def test_one_that_diverges_twice_is_an_error(measurement_set, tmp_path, program):
    program(_DIVERGING.replace("SAFE", "0.0"))
    with pytest.raises(ImagingError, match=r"diverged, and again.*residual peak 5"):
        wsclean.image(Request((measurement_set,), OPTIONS), tmp_path / "work")
    assert not any((tmp_path / "work").iterdir())


def planes_of(**changed: object) -> Planes:
    n = OPTIONS.n_pixels
    psf = np.zeros((n, n), np.float32)
    psf[n // 2, n // 2] = 1.0
    residual = np.random.default_rng(0).normal(0.0, 1e-3, (n, n)).astype(np.float32)
    fields = {"model": 0 * psf, "residual": residual, "psf": psf, "beam_deg": (0.02, 0.01, 30.0)}
    return Planes(**fields | {"iterations": 5, "major_cycles": 2, "program": "test"} | changed)


def test_images_that_are_none_are_refused():
    require_sane(planes_of(), OPTIONS)
    holes = planes_of().residual.copy()
    holes[3, 4] = np.nan
    with pytest.raises(ImagingError, match="1 in the residual"):
        require_sane(planes_of(residual=holes), OPTIONS)
    with pytest.raises(ImagingError, match="without its peak in the centre"):
        require_sane(planes_of(psf=np.roll(planes_of().psf, 1)), OPTIONS)
    for beam in ((0.02, 0.0, 0.0), (3.0, 0.01, 0.0), (0.02, 0.002, 0.0)):
        with pytest.raises(ImagingError, match="no sane beam"):
            require_sane(planes_of(beam_deg=beam), OPTIONS)


def test_divergence_and_an_early_end_are_seen_in_the_residual():
    assert not has_diverged(planes_of(), 1.0)
    assert has_diverged(planes_of(), 1e-4)
    assert not has_diverged(planes_of(iterations=0), 1e-4)
    assert not ended_early(planes_of(), 1.05e-3)
    assert ended_early(planes_of(), 1.2e-3)
    assert not ended_early(planes_of(iterations=0), 1.2e-3)


# ---- tclean: what needs no CASA -----------------------------------------------------------------------------------


def test_gridders_that_do_not_serve_say_why(measurement_set, tmp_path):
    def refused(gridder: str, n_pixels: int, text: str) -> None:
        options = OPTIONS.model_copy(update={"tclean_gridder": gridder, "n_pixels": n_pixels})
        with pytest.raises(ImagingError, match=text):
            tclean.image(Request((measurement_set,), options), tmp_path)

    refused("mosaic", 256, r"mosaic needs a primary beam.*DSA_110")
    refused("awproject", 256, r"awproject needs a primary beam")
    refused("standard", 2400, r"leaves out w-terms.*rad in the corner.*wproject")
    for gridder, n_pixels in (("wproject", 2400), ("standard", 128)):
        options = OPTIONS.model_copy(update={"tclean_gridder": gridder, "n_pixels": n_pixels})
        tclean.require_gridder(Request((measurement_set,), options))


def test_tclean_is_asked_for_a_wider_image_of_a_size_it_likes():
    for n in (128, 512, 800, 2400, 4096):
        size = tclean.wider(n)
        assert size % 2 == 0
        assert 2.25 * n <= size < 2.55 * n  # its w-projection errs toward the edges
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1


def test_fits_left_by_a_program_is_of_the_size_that_was_asked_for(tmp_path):
    from dsa110_contimg.io.imagers import read_plane

    fits.writeto(tmp_path / "a.fits", np.zeros((1, 1, 10, 12), np.float32))
    with pytest.raises(ExternalToolError, match="another size"):
        read_plane(tmp_path / "a.fits", 12)
    (tmp_path / "b.fits").write_bytes(b"nothing")
    with pytest.raises(ExternalToolError, match="cannot be read"):
        read_plane(tmp_path / "b.fits", 12)

"""Self-calibration as a step of the pipeline: asked for by options, told in the header, harmless to the data."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.io import ms
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.options import PipelineOptions, SelfcalOptions
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.settings import load_settings


def options(rounds: int) -> PipelineOptions:
    plain = PipelineOptions()
    small = {"n_pixels": 512, "cell_arcsec": 20.0, "max_major_cycles": 4, "subbands": 2}
    update = {"calibrate": plain.calibrate.model_copy(update={"cross_check": False})}
    update |= {"image": plain.image.model_copy(update=small), "selfcal": SelfcalOptions(phase_rounds=rounds)}
    return plain.model_copy(update=update)


def corrected(path) -> np.ndarray:
    with ms.opened(path) as main:
        return main.getcol("CORRECTED_DATA")


@pytest.fixture(scope="module")
def spoilt(night16, tmp_path_factory):
    """A calibrated group whose antennas have phases wrong by 20 deg rms since."""
    base = tmp_path_factory.mktemp("selfcal")
    settings = load_settings(**{n: base / n for n in ("output_dir", "scratch_dir", "state_dir", "reports_dir")})
    run = GroupRun(night16.groups[1], settings, options(0))
    for name in ("convert", "flag", "calibrate", "apply"):
        run.step(name)
    path = run.records["convert"].path
    with ms.opened(path, writable=True) as main:
        one, two = (main.getcol(f"ANTENNA{k}") for k in (1, 2))
        phase = np.radians(20.0) * np.random.default_rng(2).normal(size=one.max() + 1)
        turn = np.exp(1j * (phase[one] - phase[two]))[:, None, None]
        main.putcol("CORRECTED_DATA", (main.getcol("CORRECTED_DATA") * turn).astype(np.complex64))
    run.step("image")
    return settings, run


def test_it_improves_the_image_and_leaves_the_measurement_set(night16, spoilt):
    settings, plain = spoilt
    path = plain.records["convert"].path
    before, noise = corrected(path), plain.records["image"].noise_jy
    cube = plain.records["image"].path.with_name(f"{plain.group_id}.subbands.fits")
    planes = np.array(Table.read(cube, hdu="BEAMS")["NOISE"])
    assert "self-calibration" not in str(fits.getheader(plain.records["image"].path)["HISTORY"]), "off is off"
    run = GroupRun(night16.groups[1], settings, options(2))
    for name in ("convert", "flag", "calibrate", "apply"):
        assert run.step(name).resumed
    assert not run.step("image").resumed, "another option makes another image"
    record = run.records["image"]
    assert record.noise_jy < 0.5 * noise
    np.testing.assert_array_equal(corrected(path), before)
    table = settings.output_dir / "caltables" / f"{run.group_id}.selfcal.GP"
    assert open_caltable(table).sizes["time"] == 24
    assert "self-calibration round" in str(fits.getheader(record.path)["HISTORY"])
    assert {row["path"] for row in run.registry.list_tables()}.isdisjoint({str(table)})
    # the cubes have the gains of the image
    assert "self-calibration round" in str(fits.getheader(cube)["HISTORY"])
    assert (np.array(Table.read(cube, hdu="BEAMS")["NOISE"]) < 0.7 * planes).all()
    again = GroupRun(night16.groups[1], settings, options(2))
    for name in ("convert", "flag", "calibrate", "apply", "image"):
        assert again.step(name).resumed
    assert again.records["image"] == record

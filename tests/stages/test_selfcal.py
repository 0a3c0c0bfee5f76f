"""Self-calibration: phases that are wrong are found, and an image that is good stays the image it is."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.options import ImageOptions, MeasureOptions, SelfcalOptions
from dsa110_contimg.science import subtraction
from dsa110_contimg.science.selfcal import solve_on_image
from dsa110_contimg.stages.image import image
from dsa110_contimg.stages.measure import measure
from dsa110_contimg.stages.selfcal import selfcal

IMAGING = ImageOptions(n_pixels=1080, cell_arcsec=12.0)
PHASES = SelfcalOptions(phase_rounds=2)


def spoil(sky, phase_deg=0.0, amplitude=0.0, seed=1):
    """One gain an antenna and hand, constant over the group: V g_1 conj(g_2)."""
    names = np.unique([sky["baseline_antenna1_name"], sky["baseline_antenna2_name"]])
    rng = np.random.default_rng(seed)
    gain = np.exp(1j * np.radians(phase_deg) * rng.normal(size=(len(names), 2)))
    gain *= np.exp(amplitude * rng.normal(size=gain.shape))
    gain /= np.exp(np.log(np.abs(gain)).mean(axis=0))
    ends = [np.searchsorted(names, sky[f"baseline_antenna{k}_name"]) for k in (1, 2)]
    factor = (gain[ends[0]] * gain[ends[1]].conj())[None, :, None, :]
    return sky.assign(VISIBILITY=(sky["VISIBILITY"] * factor).astype(np.complex64)), gain


def run(sky, place, options, known=None, imaging=IMAGING):
    place.mkdir()

    def make(visibilities, out_dir, history):
        return image(visibilities, imaging, out_dir, known=known, history=history)

    first = image(sky, imaging, place, known=known)
    # its files will be replaced
    begun = dynamic_range(first)
    before = {p.name: p.read_bytes() for p in place.iterdir()}
    return first, selfcal(sky, first, make, options, imaging, known=known), before | {"dynamic range": begun}


def dynamic_range(record):
    return fits.getdata(record.path).max() / record.noise_jy


@pytest.fixture(scope="module")
def quiet(drifting_sky, field_catalog):
    return drifting_sky(field_catalog, noise=0.3)


@pytest.fixture(scope="module")
def rescued(quiet, tmp_path_factory):
    """Phase errors of 20 deg rms in every antenna, and nothing known of the sky."""
    sky, _ = spoil(quiet, phase_deg=20.0)
    place = tmp_path_factory.mktemp("rescued")
    imaging = IMAGING.model_copy(update={"max_major_cycles": 6})
    _, found, before = run(sky, place / "images", PHASES, imaging=imaging)
    return before["dynamic range"], found, place


def test_phase_errors_of_20_deg_are_taken_out(rescued):
    begun, found, _ = rescued
    assert dynamic_range(found.image) > 2 * begun
    # what is left is the deconvolution of 4 Jy without a catalogue, not the phases
    assert found.image.noise_jy < 2 * 0.3 * found.image.thermal_noise_jy
    assert found.rounds[0].kept
    assert set(found.tables) == {"GP"}
    assert np.allclose(np.abs(found.tables["GP"]["GAIN"]), 1.0, atol=1e-5)


def test_the_fluxes_are_right_afterwards(rescued, field_catalog):
    _, found, place = rescued
    path = measure(found.image, field_catalog, MeasureOptions(min_flux_jy=1e-6), place).path
    table = Table.read(path, format="ascii.ecsv").to_pandas()
    bright = table[table["flux_raw_jy"] > 50 * table["local_noise_jy"]]
    assert len(bright) >= 5
    assert bright["ratio"].median() == pytest.approx(1.0, abs=0.01)
    offset = np.hypot(table["offset_ra_arcsec"], table["offset_dec_arcsec"])
    assert offset[bright.index].median() < 0.05 * 3600 * np.sqrt(found.image.bmaj_deg * found.image.bmin_deg)


def test_nothing_is_left_in_the_directory_but_the_products(rescued):
    _, found, _ = rescued
    kinds = {"image", "pbcor", "pb", "residual", "model", "psf", "smearing", "noise"}
    names = {p.name for p in found.image.path.parent.iterdir()}
    assert names == {f"{found.image.group_id}.{kind}.fits" for kind in kinds}
    history = str(fits.getheader(found.image.path)["HISTORY"])
    assert "self-calibration round" in history


def test_a_good_image_is_left_as_it_is_after_one_round(drifting_sky, field_catalog, tmp_path):
    sky = drifting_sky(field_catalog, noise=1.0)
    first, found, before = run(sky, tmp_path / "images", PHASES, known=field_catalog)
    assert len(found.rounds) == 1 and not found.rounds[0].kept
    assert found.image == first and found.tables == {}
    assert {p.name: p.read_bytes() for p in first.path.parent.iterdir()}.items() <= before.items()
    assert len(list(first.path.parent.iterdir())) == 8


def test_too_weak_a_field_changes_nothing(drifting_sky, field_catalog, tmp_path):
    weak = field_catalog.assign(flux_jy=1e-3 * field_catalog["flux_jy"])
    sky = drifting_sky(weak, noise=1.0)
    first, found, before = run(sky, tmp_path / "images", PHASES, known=weak)
    assert found.image == first and not any(one.kept for one in found.rounds)
    assert {p.name: p.read_bytes() for p in first.path.parent.iterdir()}.items() <= before.items()
    assert len(list(first.path.parent.iterdir())) == 8


def test_phases_and_amplitudes_are_recovered_with_their_sign(quiet, field_catalog):
    """Solved on the true sky: the very gains that were put in, but for the reference and the scale."""
    sky, gain = spoil(quiet, phase_deg=20.0, amplitude=0.1)
    sources = subtraction.point_sources(field_catalog)
    nothing = np.zeros((256, 256), np.float32)
    solve = partial(solve_on_image, sky, nothing, sources, IMAGING, noise_jy=1e-3, reach=2, min_snr=3.0)
    table = solve(interval_s=400.0, phase_only=False)
    names = np.unique([sky["baseline_antenna1_name"], sky["baseline_antenna2_name"]])
    found = table["GAIN"].sel(antenna_name=names).to_numpy()[0, :, 0]
    reference = list(names).index(table.attrs["refant"])
    expected = gain * np.exp(-1j * np.angle(gain[reference]))
    # 31 baselines, 24 x 96 visibilities each, against several Jy
    np.testing.assert_allclose(found, expected, atol=5e-3)
    phases = solve(interval_s=60.0, phase_only=True)
    assert phases.sizes["time"] == 5
    apart = np.angle(phases["GAIN"].sel(antenna_name=names).to_numpy()[:, :, 0] / expected)
    assert np.degrees(apart.std()) < 1.0


def test_amplitudes_do_not_move_the_flux_scale(quiet, field_catalog, tmp_path):
    sky, _ = spoil(quiet, phase_deg=10.0, amplitude=0.08)
    options = SelfcalOptions(phase_rounds=2, amplitude_rounds=1)
    _, found, _ = run(sky, tmp_path / "images", options, known=field_catalog)
    assert "amplitude" in {one.what for one in found.rounds if one.kept}
    assert set(found.tables) == {"GP", "2G"}
    path = measure(found.image, field_catalog, MeasureOptions(min_flux_jy=1e-6), tmp_path).path
    table = Table.read(path, format="ascii.ecsv").to_pandas()
    bright = table[table["flux_raw_jy"] > 50 * table["local_noise_jy"]]
    assert bright["ratio"].median() == pytest.approx(1.0, abs=0.01)


def test_what_cannot_be_solved_says_so(quiet):
    nothing = np.zeros((256, 256), np.float32)
    solve = partial(solve_on_image, noise_jy=1e-3, reach=2, interval_s=60.0, phase_only=True, min_snr=3.0)
    with pytest.raises(CalibrationError, match="no sky"):
        solve(quiet, nothing, subtraction.NOTHING, IMAGING)
    with pytest.raises(InputError, match="parallel hands"):
        solve(quiet.assign_coords(polarization=["XY", "YX"]), nothing, subtraction.NOTHING, IMAGING)

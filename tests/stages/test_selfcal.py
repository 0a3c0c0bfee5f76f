"""Self-calibration: phases that are wrong are found, and an image that is good stays the image it is."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.io.beams import beam_table, write_beam
from dsa110_contimg.options import ImageOptions, MeasureOptions, SelfcalOptions
from dsa110_contimg.science import subtraction
from dsa110_contimg.science.beam import AIRY
from dsa110_contimg.science.selfcal import Sky, solve_on_image
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
    solve = partial(solve_on_image, sky, Sky(nothing, sources, AIRY), IMAGING, noise_jy=1e-3, reach=2, min_snr=3.0)
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


SMALL = ImageOptions(n_pixels=360, cell_arcsec=20.0, max_major_cycles=3, far_sigma=None)


@pytest.fixture(scope="module")
def small(drifting_sky, field_catalog):
    """Two sources, on axis and near half power, and phases wrong by 20 deg."""
    two = field_catalog[:2].copy()
    two["ra_deg"], two["dec_deg"] = 80.3 + np.array([0.1, -0.8]), 16.6 + np.array([0.1, 0.7])
    sky, gain = spoil(drifting_sky(two, noise=0.3, n_antennas=20), phase_deg=20.0, amplitude=0.05)
    return sky, two, gain


@pytest.mark.parametrize("terms", [1, 2])
def test_a_spectral_index_is_that_of_the_image_that_stays(small, terms, tmp_path):
    sky = small[0]
    spectral = SMALL.model_copy(update={"spectral_terms": 2})
    first = image(sky, spectral, tmp_path)
    maps = [first.path.with_name(f"{first.group_id}.{kind}.fits") for kind in ("alpha", "alpha_error")]
    assert all(path.exists() for path in maps)

    def make(visibilities, out_dir, history):
        return image(visibilities, SMALL.model_copy(update={"spectral_terms": terms}), out_dir, history=history)

    found = selfcal(sky, first, make, SelfcalOptions(phase_rounds=1), spectral)
    assert found.rounds[0].kept
    for path in maps:
        assert path.exists() == (terms == 2)
        assert terms == 1 or "self-calibration round" in str(fits.getheader(path)["HISTORY"])


def test_the_visibilities_of_an_image_come_with_it(small, tmp_path):
    sky = small[0]
    _, found, _ = run(sky, tmp_path / "images", SelfcalOptions(phase_rounds=1), imaging=SMALL)
    assert "GP, 24 intervals" in found.history[0] and found.history[0] in str(
        fits.getheader(found.image.path)["HISTORY"]
    )
    again = image(found.visibilities, SMALL, tmp_path)
    assert again.noise_jy == pytest.approx(found.image.noise_jy, rel=1e-3)
    _, none, _ = run(sky, tmp_path / "none", SelfcalOptions(phase_rounds=1, min_snr=1e6), imaging=SMALL)
    assert none.visibilities is sky and none.history == ()


def test_sources_that_were_not_subtracted_are_in_the_model_once(small, tmp_path):
    """A catalogue that has 20 Jy where nothing is serves for a mask alone: it changes no gain."""
    sky, two, _ = small
    wrong = two[:1].assign(ra_deg=80.0, dec_deg=17.0, flux_jy=20.0)
    imaging = SMALL.model_copy(update={"subtract_known": False})
    found = [
        run(sky, tmp_path / name, SelfcalOptions(phase_rounds=1), known, imaging)[1].tables["GP"]["GAIN"]
        for name, known in {"without": None, "with": wrong}.items()
    ]
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


def test_gains_are_solved_through_the_beam_of_the_image(small, tmp_path):
    """A dish that is said to be too small, and a measured beam that is right."""
    sky, two, gain = small
    angle, frequency = np.linspace(0.0, 2.2, 23), np.array([1.32e9, 1.4e9, 1.48e9])
    power = AIRY.power(np.radians(angle), frequency[:, None])
    write_beam(tmp_path / "beam.ecsv", beam_table(angle, frequency, power, 0 * power))
    # nothing is cleaned: the catalogue is all of the sky
    imaging = SMALL.model_copy(update={"beam_table": tmp_path / "beam.ecsv", "max_iterations": 0})
    options = SelfcalOptions(phase_rounds=0, amplitude_rounds=1, amplitude_interval_s=400.0)
    table = run(sky.assign_attrs(dish_diameter=3.0), tmp_path / "images", options, two, imaging)[1].tables["2G"]
    names = np.unique([sky["baseline_antenna1_name"], sky["baseline_antenna2_name"]])
    reference = list(names).index(table.attrs["refant"])
    expected = gain * np.exp(-1j * np.angle(gain[reference]))
    found = table["GAIN"].sel(antenna_name=names).to_numpy()[0, :, 0]
    # 19 baselines, 24 x 96 visibilities each, against 4 Jy
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_what_cannot_be_solved_says_so(quiet):
    nothing = np.zeros((256, 256), np.float32)
    solve = partial(solve_on_image, noise_jy=1e-3, reach=2, interval_s=60.0, phase_only=True, min_snr=3.0)
    with pytest.raises(CalibrationError, match="no sky"):
        solve(quiet, Sky(nothing, subtraction.NOTHING, AIRY), IMAGING)
    with pytest.raises(InputError, match="parallel hands"):
        solve(quiet.assign_coords(polarization=["XY", "YX"]), Sky(nothing, subtraction.NOTHING, AIRY), IMAGING)

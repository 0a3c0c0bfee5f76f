"""Each source of the field model against CASA's own tasks and astropy; what cannot be a model is refused."""

import json
import subprocess
import sys
from dataclasses import replace

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
import typer
from astropy.coordinates import SkyCoord
from scipy.special import j1

from dsa110_contimg.commands.options import chosen
from dsa110_contimg.exceptions import CalibrationError, CatalogError
from dsa110_contimg.io import casa, catalogs, components, ms
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.io.fieldmodel import read_field_model
from dsa110_contimg.io.measures import measures_directory
from dsa110_contimg.options import CalibrateOptions, PipelineOptions
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.reports.calibration import CalibrationReview
from dsa110_contimg.reports.metrics import judge_group
from dsa110_contimg.science.stefcal import agreement
from dsa110_contimg.settings import load_settings
from dsa110_contimg.stages import calibrate
from dsa110_contimg.stages.model import predict_field

LIGHT = 299_792_458.0
EVERY = slice(0, 768, 96)
SETJY = CalibrateOptions(model_source="setjy")

COMPONENTS = """
import json, sys
from casatools import componentlist
for name, made in json.loads(sys.argv[1]).items():
    tool = componentlist()
    for arguments in made:
        tool.addcomponent(**arguments)
    tool.rename(name)
    tool.done()
"""
CALIBRATOR = {"dir": "J2000 05h21m09.886s 16d38m22.05s", "flux": [8.0, 0, 0, 0], "freq": "1.3GHz", "label": "cal",
              "spectrumtype": "spectral index", "index": -0.6}  # fmt: skip
OTHER = {"dir": "ICRS 05h23m00.0s 16d10m00s", "flux": [2000.0, 0, 0, 0], "fluxunit": "mJy", "freq": "1.5GHz",
         "spectrumtype": "constant", "shape": "point"}  # fmt: skip
LISTS = {
    "cal.cl": [CALIBRATOR],
    "other.cl": [OTHER],
    "both.cl": [CALIBRATOR, OTHER],
    "gaussian.cl": [CALIBRATOR, OTHER | {"shape": "gaussian", "majoraxis": "9arcsec", "minoraxis": "5arcsec",
                                         "positionangle": "0deg"}],
    "nothing.cl": [CALIBRATOR | {"flux": [0, 0, 0, 0]}],
    "polarised.cl": [CALIBRATOR | {"flux": [8.0, 0.5, 0, 0]}],
    "curved.cl": [CALIBRATOR | {"spectrumtype": "plp", "index": [-0.6, -0.1]}],
    "old.cl": [OTHER | {"dir": "B1950 05h18m00s 16d35m00s"}, CALIBRATOR | {"flux": [-1.0, 0, 0, 0]}],
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    base = tmp_path_factory.mktemp("model")
    names = ("output_dir", "scratch_dir", "state_dir", "reports_dir")
    return load_settings(**{name: base / name for name in names})


@pytest.fixture(scope="module")
def lists(settings, tmp_path_factory):
    """Component lists as CASA's own tool writes them."""
    folder = tmp_path_factory.mktemp("lists")
    data = measures_directory(settings.state_dir / "measures")
    (folder / "config.py").write_text(
        f"datapath=[{str(data)!r}]\nmeasurespath={str(data)!r}\nmeasures_auto_update=False\ndata_auto_update=False\n"
        f"nogui=True\nlogfile={str(folder / 'casa.log')!r}\n"
    )
    environment = {"CASASITECONFIG": str(folder / "config.py"), "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    call = [sys.executable, "-c", COMPONENTS, json.dumps(LISTS)]
    subprocess.run(call, check=True, env=environment, cwd=folder, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def ready(night16, settings):
    """The run of a calibrator's group, flagged; what CASA makes goes into copies."""
    run = GroupRun(night16.groups[1], settings)
    for step in ("convert", "flag"):
        run.step(step)
    return run


@pytest.fixture
def copied(ready, tmp_path):
    """A copy of the Measurement Set that a test may write into."""
    import shutil

    record = ready.records["convert"]
    shutil.copytree(record.path, tmp_path / "copy.ms")
    return replace(record, path=tmp_path / "copy.ms")


def listed(path):
    return CalibrateOptions(model_source="componentlist", model_path=path)


def model_of(record, every=EVERY):
    """Sampled channels of MODEL_DATA, (time, baseline, channel), of cross-correlations."""
    layout = ms.read_layout(record.path)
    found = ms.read_channels(record.path, "MODEL_DATA", 0, 768)[0][:, every]
    np.testing.assert_array_equal(found[..., 0], found[..., -1])
    cross = layout.antenna1 != layout.antenna2
    return found[..., 0].reshape(layout.mjd.size, cross.size, -1)[:, cross]


def airy(layout, place, frequencies):
    """Response of a 4.65 m aperture, (time, 1, channel), from astropy's separations."""
    pointing = SkyCoord(layout.pointing_ra * u.rad, layout.pointing_dec * u.rad)
    x = np.pi * 4.65 * np.sin(place.separation(pointing).rad)[:, None, None] * frequencies / LIGHT
    return (2 * j1(x) / x) ** 2


def by_casa(record, tasks, settings, tmp_path):
    run = [casa.CasaTask(name, {"vis": record.path, "usescratch": True} | arguments) for name, arguments in tasks]
    casa.run_tasks(run, workdir=tmp_path, measures_cache=settings.state_dir / "measures")
    return model_of(record)


def test_setjy_has_the_spectrum_of_casas_setjy_at_the_calibrators_own_place(ready, copied, settings, tmp_path):
    """CASA's amplitudes, our place: setjy's own model stands at the phase centre and sees no beam."""
    (transit,) = ready.transits
    _, (intercept, *rest) = catalogs.PERLEY_BUTLER["0521+166"]
    given = {"standard": "manual", "fluxdensity": [10**intercept, 0, 0, 0], "spix": rest, "reffreq": "1GHz"}
    theirs = by_casa(copied, [("setjy", given)], settings, tmp_path)
    layout = ms.read_layout(copied.path)
    frequencies = layout.frequencies[EVERY]
    spectrum = catalogs.perley_butler_spectrum("0521+166", frequencies)
    np.testing.assert_allclose(theirs, np.broadcast_to(spectrum, theirs.shape), rtol=3e-7)
    told = predict_field(copied, ready.field_catalog, SETJY, calibrator=transit)
    assert (told.source, told.n_sources) == ("setjy", 1)
    assert "Perley & Butler (2017), J0521+166 alone" in str(told)
    ours = model_of(copied)
    place = SkyCoord(transit.ra_deg * u.deg, transit.dec_deg * u.deg)
    centre = SkyCoord(layout.ra * u.rad, layout.dec * u.rad)
    assert centre.separation(place).deg > 0.05
    distance, angle = centre.separation(place).rad, centre.position_angle(place).rad
    lmn = np.array([np.sin(distance) * np.sin(angle), np.sin(distance) * np.cos(angle), np.cos(distance) - 1])
    cross = layout.antenna1 != layout.antenna2
    phase = np.exp(2j * np.pi * (layout.uvw[:, cross] @ lmn)[..., None] * frequencies / LIGHT)
    expected = spectrum * airy(layout, place, frequencies) * phase
    # averaging in the correlator takes up to 0.5 % at this distance, aberration moves the source by 1e-4 of its offset
    assert np.abs(ours - expected).max() < 0.01 * spectrum.max()
    assert np.abs(np.abs(ours) / np.abs(expected) - 1).max() < 0.006


def test_a_component_list_is_what_casas_ft_predicts_times_the_beam(ready, copied, lists, settings, tmp_path):
    layout = ms.read_layout(copied.path)
    frequencies = layout.frequencies[EVERY]
    expected = 0.0
    for name in ("cal", "other"):
        theirs = by_casa(copied, [("ft", {"complist": lists / f"{name}.cl"})], settings, tmp_path)
        row = components.read_components(lists / f"{name}.cl").iloc[0]
        expected = expected + theirs * airy(
            layout, SkyCoord(row["ra_deg"] * u.deg, row["dec_deg"] * u.deg), frequencies
        )
    told = predict_field(copied, ready.field_catalog, listed(lists / "both.cl"), calibrator=ready.transits[0])
    assert (told.source, told.n_sources, told.least_jy) == ("componentlist", 2, 0.0)
    ours = model_of(copied)
    # single precision of CASA's, averaging in the correlator (facts of the array), and aberration
    assert np.abs(ours - expected).max() < 0.015 * np.abs(expected).max()
    assert np.abs(np.vdot(ours, expected)) / (np.linalg.norm(ours) * np.linalg.norm(expected)) > 0.9999


def test_components_come_to_1400_mhz_by_their_own_spectra_and_frames(lists):
    table = components.read_components(lists / "both.cl")
    assert tuple(table.columns) == catalogs.COLUMNS
    assert table["name"].tolist() == ["cal", "component 1"]
    np.testing.assert_allclose(table["flux_jy"], [8.0 * (1.4 / 1.3) ** -0.6, 2.0])
    np.testing.assert_allclose(table["spectral_index"], [-0.6, 0.0])
    places = SkyCoord(["05h21m09.886s", "05h23m00.0s"], ["16d38m22.05s", "16d10m00s"], frame="icrs")
    found = SkyCoord(table["ra_deg"].to_numpy() * u.deg, table["dec_deg"].to_numpy() * u.deg)
    # J2000 and ICRS differ by 0.02 arcsec
    assert found.separation(places).arcsec.max() < 0.05


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.cl", "There is no component list.*Found: nothing"),
        ("casa.log", "There is no component list.*Found: a file"),
        ("empty", "Not a component list.*without table.dat"),
        ("copy.ms", "Not a component list.*without Direction_Frame, Flux"),
        ("gaussian.cl", "cannot be predicted.*component 1: shape Gaussian"),
        ("nothing.cl", "component 0: flux 0"),
        ("polarised.cl", "component 0: a polarised flux"),
        ("curved.cl", "component 0: spectrum Power Logarithmic Polynomial"),
        ("old.cl", "component 0: direction in B1950; component 1: flux -1"),
    ],
)
def test_a_component_list_that_cannot_be_predicted_is_refused_with_all_its_faults(name, message, copied, lists):
    path = copied.path if name == "copy.ms" else lists / name
    (lists / "empty").mkdir(exist_ok=True)
    with pytest.raises(CatalogError, match=message):
        predict_field(copied, pd.DataFrame(), listed(path))
    assert read_field_model(copied.path) is None


def test_a_component_list_without_the_calibrator_is_refused(ready, copied, lists):
    with pytest.raises(CalibrationError, match=r"does not hold the calibrator J0521\+166.*arcsec away"):
        predict_field(copied, ready.field_catalog, listed(lists / "other.cl"), calibrator=ready.transits[0])


def test_setjy_of_what_is_no_standard_names_those_that_are(ready, copied):
    other = replace(ready.transits[0], name="J0534+194")
    for calibrator, found in ((other, r"J0534\+194"), (None, "no calibrator")):
        with pytest.raises(CalibrationError, match=found) as caught:
            predict_field(copied, ready.field_catalog, SETJY, calibrator=calibrator)
        for name in ("3C286 (J1331+305)", "3C48 (J0137+331)", "3C147 (J0542+498)", "3C138 (J0521+166)"):
            assert name in str(caught.value)
    assert {catalogs.standard_calibrator(name) for name in ("3C 138", "3c138", "J0521+166", "0521+166")} == {"0521+166"}


def test_a_single_source_is_solved_on_long_baselines_unless_told_otherwise(tmp_path):
    assert SETJY.solved_uvrange == ">1klambda"
    assert CalibrateOptions(preset="fast", model_source="setjy").solved_uvrange == ">1klambda"
    assert CalibrateOptions().solved_uvrange == "" == listed(tmp_path).solved_uvrange
    assert CalibrateOptions(model_source="setjy", uvrange=">0m").solved_uvrange == ">0m"
    # a target has no calibrator: it takes the catalogue, and all baselines again
    assert SETJY.for_group(is_calibrator=True) is SETJY
    assert SETJY.for_group(is_calibrator=False) == CalibrateOptions()
    fast = CalibrateOptions(preset="fast", model_source="setjy")
    assert fast.for_group(is_calibrator=False) == CalibrateOptions(preset="fast")
    told = CalibrateOptions.model_fields["uvrange"].description
    assert ">1klambda for the one source of model_source setjy" in told
    for wrong in ({"model_source": "componentlist"}, {"model_path": tmp_path}):
        with pytest.raises(ValueError, match="go together"):
            CalibrateOptions(**wrong)


def test_gains_from_the_calibrator_alone_are_those_from_the_field(ready, copied, settings, tmp_path):
    """3C138 is 8.6 Jy, the rest of the field some tenths of one on baselines past a kilowavelength."""
    (transit,) = ready.transits
    (tmp_path / "tables").mkdir()
    place = calibrate.Workplace(tmp_path / "tables", tmp_path / "work", settings.state_dir / "measures")
    position = (np.radians(transit.ra_deg), np.radians(transit.dec_deg))
    products = []
    for options in (CalibrateOptions(solver="stefcal"), CalibrateOptions(solver="stefcal", model_source="setjy")):
        predict_field(copied, ready.field_catalog, options, calibrator=transit)
        tables = calibrate.solve_calibrator(copied, transit.name, options, place, position)
        bandpass, gains = (open_caltable(table.path).load() for table in tables[:2])
        products.append(bandpass.assign(GAIN=bandpass.GAIN * gains.GAIN.to_numpy()))
    told = agreement(*products)
    assert told.compared > 1000
    # what the field leaves in a gain: its flux over the calibrator's, averaged down over baselines and integrations
    assert 1e-4 < told.rms_relative < 0.05


def test_a_target_of_a_setjy_night_takes_the_catalogue(night16, ready, settings):
    options = PipelineOptions(calibrate=CalibrateOptions(model_source="setjy", solver="stefcal", cross_check=False))
    runs = [GroupRun(group, settings, options) for group in reversed(night16.groups)]
    for run in runs:
        for step in ("convert", "flag", "calibrate"):
            run.step(step)
    assert runs[0].provenance()["field model"].startswith("setjy, Perley & Butler (2017), J0521+166 alone: 1 source,")
    assert runs[1].provenance()["field model"].startswith("catalog, packaged: PB2017")
    assert "complete to 50 mJy" in runs[1].provenance()["field model"]
    assert judge_group(runs[1].records).summary["field_model"] == runs[1].provenance()["field model"]
    tables = "\n".join(str(table.path) for table in runs[0].records["calibrate"].tables)
    review = CalibrationReview.open(tables=tables, measurement_set=str(runs[0].records["convert"].path))
    assert review.provenance()["field model"] == runs[0].provenance()["field model"]
    alone = CalibrationReview.open(tables=tables)
    assert "not known" in alone.provenance()["field model"]


def test_a_deeper_catalogue_of_ones_own_is_used_down_to_10_mjy(ready, copied, tmp_path):
    rng = np.random.default_rng(5)
    near = ready.field_catalog.iloc[:1]
    faint = pd.DataFrame(
        {
            "name": [f"faint {k}" for k in range(40)],
            "ra_deg": near["ra_deg"].iloc[0] + rng.uniform(-0.5, 0.5, 40),
            "dec_deg": near["dec_deg"].iloc[0] + rng.uniform(-0.5, 0.5, 40),
            "flux_jy": np.linspace(0.005, 0.0445, 40),
        }
    )
    pd.concat([near[list(faint)], faint]).to_csv(tmp_path / "deep.csv", index=False)
    field = catalogs.read_catalog(tmp_path / "deep.csv")
    told = predict_field(
        copied,
        field,
        CalibrateOptions(),
        calibrator=ready.transits[0],
        catalog=catalogs.describe(tmp_path / "deep.csv"),
    )
    above = field[field["flux_jy"] >= 0.01]
    assert told.n_sources == len(above) < len(field)
    assert told.faintest_jy == pytest.approx(above["flux_jy"].min())
    assert f"{tmp_path / 'deep.csv'}: 41 sources, the faintest 5 mJy" in str(told)
    assert "at least 10 mJy" in str(told)
    run = GroupRun(ready.group, ready.settings, catalog_path=tmp_path / "deep.csv")
    assert run.field_catalog["flux_jy"].min() == pytest.approx(above["flux_jy"].min())


def test_the_model_reaches_past_the_half_power_radius_of_every_pointing(ready):
    layout = ms.read_layout(ready.records["convert"].path)
    pointing = SkyCoord(layout.pointing_ra * u.rad, layout.pointing_dec * u.rad)
    everything = catalogs.packaged_catalog()
    places = SkyCoord(everything["ra_deg"].to_numpy() * u.deg, everything["dec_deg"].to_numpy() * u.deg)
    inside = np.min([places.separation(one).deg for one in pointing[::4]], axis=0) < 2.715 / 2
    assert inside.sum() > 20
    assert set(everything.loc[inside, "name"]) <= set(ready.field_catalog["name"])
    told = predict_field(ready.records["convert"], ready.field_catalog, CalibrateOptions())
    assert told.n_sources >= inside.sum()
    assert read_field_model(ready.records["convert"].path) == told


def test_a_model_of_another_field_or_with_values_that_are_none_is_refused(ready, copied, settings, tmp_path):
    place = calibrate.Workplace(tmp_path, tmp_path, settings.state_dir / "measures")
    predict_field(replace(copied, group_id="2026-01-26T04:40:00"), ready.field_catalog, CalibrateOptions())
    with pytest.raises(CalibrationError, match=r"not of this field.*2026-01-26T04:40:00"):
        calibrate.solve_calibrator(copied, "J0521+166", CalibrateOptions(solver="stefcal"), place)
    predict_field(copied, ready.field_catalog, CalibrateOptions())
    with ms.opened(copied.path, writable=True) as main:
        spoiled = main.getcolslice("MODEL_DATA", [400, 0], [400, 1])
        spoiled[1234] = np.nan
        ms.write_column(main, "MODEL_DATA", 400, spoiled)
    with pytest.raises(CalibrationError, match=r"not finite.*NaN in MODEL_DATA"):
        calibrate.solve_calibrator(copied, "J0521+166", CalibrateOptions(solver="stefcal"), place)


def test_a_list_that_changes_makes_a_new_checkpoint(ready, lists, tmp_path):
    """The content of the list is part of what the step depends on, not its name alone."""
    import shutil

    shutil.copytree(lists / "both.cl", tmp_path / "mine.cl")
    run = GroupRun(ready.group, ready.settings, PipelineOptions(calibrate=listed(tmp_path / "mine.cl")))
    for step in ("convert", "flag"):
        run.step(step)
    before = run._key("calibrate")
    shutil.rmtree(tmp_path / "mine.cl")
    shutil.copytree(lists / "cal.cl", tmp_path / "mine.cl")
    assert run._key("calibrate") != before


def test_what_is_given_on_the_command_line_decides_what_was_not_configured():
    assert chosen(CalibrateOptions(), {"preset": "fast"}) == CalibrateOptions(preset="fast")
    both = chosen(CalibrateOptions(min_calibrator_jy=2), {"preset": "fast", "model_source": "setjy"})
    assert (both.solved_uvrange, both.channel_bin, both.min_calibrator_jy) == (">1klambda", 4, 2)
    with pytest.raises(typer.BadParameter, match="go together"):
        chosen(CalibrateOptions(), {"preset": "fast", "model_source": "componentlist"})

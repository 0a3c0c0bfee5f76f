"""Injected gains are recovered, as well as the noise allows, although the field holds other sources."""

import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CalibrationError, NoValidCalibrationError
from dsa110_contimg.io import ms
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.options import CalibrateOptions, ConvertOptions, FlagOptions
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.science.gains import apply_gains
from dsa110_contimg.stages.convert import convert
from dsa110_contimg.stages.flag import flag
from dsa110_contimg.stages.model import predict_field


@pytest.fixture(scope="module")
def solved(night16, tmp_path_factory):
    from dsa110_contimg.settings import load_settings

    base = tmp_path_factory.mktemp("solved")
    names = ("output_dir", "scratch_dir", "state_dir", "reports_dir")
    settings = load_settings(**{name: base / name for name in names})
    runs = [GroupRun(group, settings) for group in reversed(night16.groups)]
    for run in runs:
        for step in ("convert", "flag", "calibrate", "apply"):
            run.step(step)
    return {"calibrator": runs[0], "target": runs[1]}


def test_the_real_calibrator_is_found_and_its_group_alone(solved):
    assert solved["calibrator"].calibrator == "J0521+166"
    assert not solved["target"].is_calibrator


def test_injected_gains_are_recovered_to_the_noise(solved, night16):
    run = solved["calibrator"]
    tables = {kind: run.caltable(kind) for kind in ("B", "G", "GP")}
    names = tables["B"].antenna_name.to_numpy()
    phases = tables["GP"].interp(time=run.raw().time, kwargs={"fill_value": "extrapolate"})["GAIN"].to_numpy()
    product = phases * tables["G"]["GAIN"].to_numpy() * tables["B"]["GAIN"].to_numpy()
    truth = np.moveaxis(night16.truth.gains(run.group_id), 3, 2)[
        :, np.searchsorted(night16.truth.station, names.astype(int))
    ]
    ratio = product / truth
    refant = list(names).index(tables["B"].attrs["refant"])
    ratio /= np.exp(1j * np.angle(ratio[:, refant : refant + 1]))
    # one channel and antenna: noise of 24 integrations against 15 others, on 3C138 and its field (Cramer-Rao)
    model, flags = ms.read_channels(run.records["convert"].path, "MODEL_DATA", 380, 381)
    power = np.mean(np.abs(model[~flags]) ** 2)
    bound = telescope.visibility_noise(telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S) / np.sqrt(power * 24 * 15)
    scale = telescope.RAW_UNITS_PER_JY**0.5
    error = ratio / np.median(np.abs(ratio)) - 1
    others = np.arange(len(names)) != refant
    assert np.median(np.abs(product)) == pytest.approx(np.median(np.abs(truth)), rel=0.005), scale
    assert error[:, others].real.std() < 1.3 * bound
    assert error[:, others].imag.std() < 1.3 * bound * np.sqrt(
        2
    )  # the reference antenna's own phase noise comes on top


def test_corrected_visibilities_differ_from_the_model_by_thermal_noise(solved):
    expected = telescope.visibility_noise(telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)
    for run in solved.values():
        path = run.records["convert"].path
        data, flags = ms.read_channels(path, "CORRECTED_DATA", 100, 300)
        model, _ = ms.read_channels(path, "MODEL_DATA", 100, 300)
        residual = (data - model)[~flags]
        # 16 antennas give each channel's bandpass 3 % noise; its product with the visibility's noise adds its square
        assert residual.real.std() == pytest.approx(expected, rel=0.01)
        least_squares = (data[~flags] * model[~flags].conj()).real.sum() / (np.abs(model[~flags]) ** 2).sum()
        noise = expected / np.sqrt((np.abs(model[~flags]) ** 2).sum())
        assert abs(least_squares - 1) < 4 * noise + 0.005


def test_target_takes_the_calibrators_tables_and_its_own_phases(solved):
    tables = solved["target"].records["calibrate"].tables
    assert [t.kind for t in tables] == ["B", "G", "GP"]
    assert [t.group_id for t in tables[:2]] == [solved["calibrator"].group_id] * 2
    assert tables[2].group_id == solved["target"].group_id
    assert 0 < solved["target"].records["apply"].flux_scale_error < 0.01


def test_without_a_calibrator_the_error_says_what_is_missing(night16, places):
    run = GroupRun(night16.groups[0], places)
    for step in ("convert", "flag"):
        run.step(step)
    with pytest.raises(NoValidCalibrationError, match=r"B: .*G: "):
        run.step("calibrate")


def test_an_empty_field_is_refused(solved):
    run = solved["target"]
    with pytest.raises(CalibrationError, match="field model is empty"):
        predict_field(run.records["convert"], run.field_catalog.iloc[:0], CalibrateOptions())


def test_caltable_opens_as_declared(solved):
    table = open_caltable(solved["calibrator"].records["calibrate"].tables[0].path)
    assert table["GAIN"].dims == ("time", "antenna_name", "frequency", "polarization")
    assert table.sizes["frequency"] == 768


def test_gains_applied_to_a_view_give_what_casa_writes(solved):
    """B, G and phases in time of the target, by CASA applycal into CORRECTED_DATA, and by us from DATA."""
    run = solved["target"]
    path = run.records["convert"].path
    tables = [open_caltable(table.path) for table in run.records["calibrate"].tables]
    assert tables[2].sizes["time"] > 1
    theirs, flags = ms.read_channels(path, "CORRECTED_DATA", 300, 400)
    _, before = ms.read_channels(path, "DATA", 300, 400, flags="FLAG_FLAGGED")
    view = ms.open_ms(path, "DATA").isel(frequency=slice(300, 400))
    shape = view.FLAG.shape
    mine = apply_gains(view.assign(FLAG=(view.FLAG.dims, before.reshape(shape))), *tables)
    np.testing.assert_array_equal(mine.FLAG, flags.reshape(shape))
    good = ~flags
    assert good.mean() > 0.5
    # CASA works in single precision: three gains at each end
    difference = np.abs(mine.VISIBILITY.to_numpy().reshape(theirs.shape) - theirs)[good]
    assert difference.max() < 2e-6 * np.abs(theirs[good]).max()


def test_flags_of_an_earlier_try_do_not_stay(night16, places):
    """Strict thresholds first, then the default ones: the result is that of the default ones alone."""
    strict = FlagOptions(spectrogram_sigma=3.1, visibility_sigma=4.1)
    record = convert(night16.groups[1], ConvertOptions(), places.output_dir)
    plain = flag(record, FlagOptions())
    first = ms.read_channels(record.path, "DATA", 0, 768)[1]
    assert flag(record, strict).flagged_fraction > plain.flagged_fraction
    again = flag(record, FlagOptions())
    assert again == plain
    assert (ms.read_channels(record.path, "DATA", 0, 768)[1] == first).all()

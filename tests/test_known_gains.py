"""48 antennas, bandpass, drift, interference and a dead antenna: what calibration recovers, and what it is worth."""

from datetime import UTC, datetime

import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.io import groups, ms
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.settings import load_settings
from dsa110_contimg.simulate import array
from dsa110_contimg.simulate.faults import GroupFaults
from dsa110_contimg.simulate.night import simulate_night
from dsa110_contimg.simulate.plan import NightOptions, transit_start
from dsa110_contimg.simulate.truth import load_truth
from dsa110_contimg.stages.image import image

pytestmark = pytest.mark.campaign

N_ANTENNAS = 48
DEAD = int(array.choose_stations(N_ANTENNAS)[N_ANTENNAS // 3])


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    options = NightOptions(
        start=transit_start(80.29119, 16.63946, datetime(2026, 1, 26, tzinfo=UTC), 0),
        n_groups=1,
        n_antennas=N_ANTENNAS,
        seed=5,
        faults={0: GroupFaults(rfi=True, dead_antennas=(DEAD,))},
    )
    return simulate_night(options, tmp_path_factory.mktemp("raw") / "night").directory


@pytest.fixture(scope="module")
def truth(directory):
    return load_truth(directory)


@pytest.fixture(scope="module")
def run(directory, tmp_path_factory):
    base = tmp_path_factory.mktemp("known")
    settings = load_settings(**{n: base / n for n in ("output_dir", "scratch_dir", "state_dir", "reports_dir")})
    (group,) = groups.discover(directory).groups
    made = GroupRun(group, settings)
    made.run()
    return made


def test_the_product_of_all_tables_is_the_truth_to_the_cramer_rao_bound(run, truth):
    tables = {kind: run.caltable(kind) for kind in ("B", "G", "GP")}
    names = tables["B"].antenna_name.to_numpy()
    phases = tables["GP"].interp(time=run.raw().time, kwargs={"fill_value": "extrapolate"})["GAIN"].to_numpy()
    flagged = (tables["B"].FLAG | tables["G"].FLAG.to_numpy()).to_numpy()
    product = phases * tables["G"]["GAIN"].to_numpy() * tables["B"]["GAIN"].to_numpy()
    order = np.searchsorted(truth.station, names.astype(int))
    ratio = product / np.moveaxis(truth.gains(run.group_id), 3, 2)[:, order]
    refant = list(names).index(tables["B"].attrs["refant"])
    ratio /= np.exp(1j * np.angle(ratio[:, refant : refant + 1]))
    model, flags = ms.read_channels(run.records["convert"].path, "MODEL_DATA", 380, 381)
    power = np.mean(np.abs(model[~flags]) ** 2)
    others = np.arange(len(names)) != refant
    good = (~flagged & np.isfinite(ratio).all(axis=0))[0][None].repeat(24, 0) & others[None, :, None, None]
    assert not good[:, list(names).index(str(DEAD))].any()
    # 24 integrations and 46 other antennas that live; what is flagged of them is not counted against us
    noise = telescope.visibility_noise(telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)
    bound = noise / np.sqrt(power * 24 * (N_ANTENNAS - 2))
    error = ratio / np.median(np.abs(ratio[good])) - 1
    assert error.real[good].std() < 1.3 * bound
    # the reference antenna's own phase noise comes on top
    assert error.imag[good].std() < 1.3 * bound * np.sqrt(2)


def test_residuals_are_thermal_and_the_flux_scale_is_true(run, truth):
    path = run.records["convert"].path
    expected = telescope.visibility_noise(telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)
    data, flags = ms.read_channels(path, "CORRECTED_DATA", 100, 300)
    model, _ = ms.read_channels(path, "MODEL_DATA", 100, 300)
    assert (data - model)[~flags].real.std() == pytest.approx(expected, rel=0.05)
    table = run.photometry()
    true = truth.sources.set_index("name")["flux_jy"].reindex(table["source"]).to_numpy()
    bright = (table["flux_raw_jy"] > 20 * table["local_noise_jy"]) & (table["beam_response"] > 0.5) & np.isfinite(true)
    ratio = (table["flux_jy"] / true)[bright]
    assert abs(np.average(ratio, weights=table["flux_jy"][bright] ** 2) - 1) < 0.005


def test_calibration_improves_the_image_and_flags_less_than_half(run, tmp_path):
    assert run.records["flag"].flagged_fraction < 0.5
    raw = ms.open_ms(run.records["convert"].path, "DATA")
    options = ImageOptions(n_pixels=1024, cell_arcsec=8.0, imager="native", far_sigma=None)
    before, after = (image(v, options, tmp_path / n) for n, v in (("raw", raw), ("cal", run.corrected())))
    assert after.dynamic_range > 2 * before.dynamic_range

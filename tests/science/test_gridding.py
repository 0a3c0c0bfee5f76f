"""Gridding against the sum that it stands for, and against WSClean: signs, orientation, w-terms, weights."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.casasyntax import parse_uvrange
from dsa110_contimg.science.coordinates import direction_cosines
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.restoring import fit_beam
from dsa110_contimg.science.weighting import EVERYTHING, UVShape, imaging_weights

N, CELL = 1024, np.radians(6.0 / 3600)
LIGHT = 299_792_458.0
SOURCES = [(0.0135, -0.0107, 1.0), (-0.0052, 0.0120, 0.4)]
"""Far enough out, with baselines of 2.6 km, for w-terms of a radian."""
BRIGHT = [(N // 2 - round(l / CELL), N // 2 + round(m / CELL)) for l, m, _ in SOURCES]


@pytest.fixture(scope="module")
def dataset(observe):
    return observe(SOURCES, noise_jy=0.05, n_channels=16)


def gridder_of(dataset, loss=0.003, scheme="briggs", accuracy=1e-5, shape=EVERYTHING):
    data = from_dataset(dataset, loss, 0.0237)
    return Gridder(data, imaging_weights(data, N, CELL, scheme, 0.5, shape), N, CELL, accuracy, 2)


def phases(data, l, m):
    f = np.concatenate([data.channels[c].frequencies for c in data.channels_index])
    path = data.uvw @ np.array([l, m, np.sqrt(1 - l**2 - m**2) - 1])
    return 2 * np.pi * np.repeat(path, np.diff(data.offsets)) * f / LIGHT


def test_an_image_is_the_fourier_sum_pixel_by_pixel(dataset):
    g = gridder_of(dataset)
    image = g.dirty(g.data.visibilities)
    for x, y in ((1000, 900), (50, 500), (512, 512), (44, 140)):
        l, m = -(x - N // 2) * CELL, (y - N // 2) * CELL
        total = (g.weights * g.data.visibilities * np.exp(-1j * phases(g.data, l, m))).sum().real
        assert image[y, x] == pytest.approx(total / g.weight_sum, abs=2e-5)


def test_a_source_stands_where_its_coordinates_say(observe):
    ra, dec = 1.4 + 0.011, np.radians(16.6) + 0.009
    l, m, _ = direction_cosines(ra, dec, 1.4, np.radians(16.6))
    g = gridder_of(observe([(l, m, 1.0)]))
    image = g.dirty(g.data.visibilities)
    y, x = np.unravel_index(image.argmax(), image.shape)
    expected = SkyGrid(N, CELL, 1.4, np.radians(16.6)).pixel(ra, dec)
    assert np.hypot(x - expected[0], y - expected[1]) < 0.75


def test_predicted_visibilities_are_the_sum_over_pixels(dataset):
    g = gridder_of(dataset)
    model = np.zeros((N, N), np.float32)
    model[900, 100], model[300, 700] = 1.0, -0.3
    expected = sum(
        flux * np.exp(1j * phases(g.data, -(x - N // 2) * CELL, (y - N // 2) * CELL))
        for x, y, flux in ((100, 900, 1.0), (700, 300, -0.3))
    )
    np.testing.assert_allclose(g.predict(model), expected, atol=5e-5)


def test_gridding_is_the_adjoint_of_degridding(dataset):
    g = gridder_of(dataset)
    rng = np.random.default_rng(5)
    model = rng.normal(size=(N, N)).astype(np.float32)
    image = g.dirty(g.data.visibilities).astype(float) * g.weight_sum
    left = np.sum(image * model)
    right = np.sum((g.weights * g.data.visibilities * np.conj(g.predict(model))).real)
    assert left == pytest.approx(right, rel=1e-3)


def test_the_point_spread_function_peaks_at_one_in_the_centre(dataset):
    psf = gridder_of(dataset).psf()
    assert psf[N // 2, N // 2] == pytest.approx(1.0, abs=1e-4)
    assert psf.max() == psf[N // 2, N // 2]
    core = psf[N // 2 - 20 : N // 2 + 21, N // 2 - 20 : N // 2 + 21]
    # all but even: w-terms make it differ by a thousandth from side to side
    np.testing.assert_allclose(core, core[::-1, ::-1], atol=2e-3)


def test_the_quick_image_is_the_fourier_sum_but_for_what_lies_off_the_plane_of_baselines(dataset):
    g = gridder_of(dataset)
    data = g.data
    n_samples = np.diff(data.offsets)
    weights = np.array([part.sum() for part in np.split(g.weights.astype(float), data.offsets[1:-1])])
    uv, w = data.uvw[:, :2], data.uvw[:, 2]
    slopes = np.linalg.solve(uv.T @ (weights[:, None] * uv), uv.T @ (weights * w))
    f = np.concatenate([data.channels[c].frequencies for c in data.channels_index])
    turns = np.repeat(w - uv @ slopes, n_samples) * f / LIGHT
    for visibilities in (data.visibilities, np.ones_like(data.visibilities)):
        quick = g.quick_dirty(visibilities, 1e-4)
        for x, y in ((1000, 900), (50, 500), (512, 512), (44, 140), (1023, 0), *BRIGHT):
            l, m = -(x - N // 2) * CELL, (y - N // 2) * CELL
            n_less_1 = np.sqrt(1 - l**2 - m**2) - 1
            total = (g.weights * visibilities * np.exp(-1j * phases(data, l, m))).sum().real
            left_out = (g.weights * np.abs(visibilities) * np.abs(2 * np.pi * turns * n_less_1)).sum()
            # interpolation between pixels of 6 arcsec takes up to a per cent of a peak
            assert quick[y, x] == pytest.approx(total / g.weight_sum, abs=left_out / g.weight_sum + 0.01 * quick.max())
        exact = g.dirty(visibilities)
        assert np.sqrt(np.mean((quick - exact) ** 2) / np.mean(exact**2)) < 0.02
    assert g.quick_psf(1e-4)[N // 2, N // 2] == pytest.approx(1.0, abs=1e-3)


def test_where_baselines_lie_in_no_plane_the_quick_image_is_the_image(dataset, rng):
    g = gridder_of(dataset)
    off = g.data.uvw + np.array([0, 0, 100.0]) * rng.normal(size=(len(g.data.uvw), 1))
    hills = replace(g, data=replace(g.data, uvw=off))
    # sums in threads are rounded differently each time
    np.testing.assert_allclose(hills.quick_psf(1e-5), hills.psf(), atol=1e-6)


@pytest.fixture(scope="module")
def measurement_set(dataset, tmp_path_factory):
    """The same visibilities as a Measurement Set made with python-casacore alone."""
    if shutil.which("wsclean") is None:
        pytest.skip("WSClean is not installed: make system")
    ct = pytest.importorskip("casacore.tables")
    path = str(tmp_path_factory.mktemp("wsclean") / "field.ms")
    uvw = dataset["UVW"].to_numpy().reshape(-1, 3)
    vis = dataset["VISIBILITY"].to_numpy().reshape(len(uvw), -1, 2)
    frequency, width = dataset["frequency"].to_numpy(), dataset.attrs["channel_width"]
    rows, n_chan = len(uvw), len(frequency)
    kinds = (("DATA", 0j, "complex"), ("WEIGHT_SPECTRUM", 0.0, "float"))
    columns = [ct.makearrcoldesc(name, zero, ndim=2, valuetype=kind) for name, zero, kind in kinds]
    main = ct.default_ms(path, ct.maketabdesc(columns))
    main.addrows(rows)
    pairs = dataset["baseline_id"].size
    time = np.repeat(dataset["time"].to_numpy() * 86400, pairs)
    for name, values in {
        "UVW": uvw,
        "DATA": vis,
        "WEIGHT_SPECTRUM": np.ones(vis.shape),
        "FLAG": np.zeros(vis.shape, bool),
        "FLAG_ROW": np.zeros(rows, bool),
        "WEIGHT": np.ones((rows, 2)),
        "SIGMA": np.ones((rows, 2)),
        "TIME": time,
        "TIME_CENTROID": time,
        "INTERVAL": np.full(rows, 12.9),
        "EXPOSURE": np.full(rows, 12.9),
        "ANTENNA1": np.tile(dataset["baseline_antenna1_name"].to_numpy().astype(np.int32), len(dataset["time"])),
        "ANTENNA2": np.tile(dataset["baseline_antenna2_name"].to_numpy().astype(np.int32), len(dataset["time"])),
        **{k: np.zeros(rows, np.int32) for k in ("DATA_DESC_ID", "FIELD_ID", "SCAN_NUMBER", "ARRAY_ID", "STATE_ID")},
    }.items():
        main.putcol(name, values)
    main.close()
    widths = np.full(n_chan, width)
    direction = np.array([[dataset.attrs["phase_center_ra"], dataset.attrs["phase_center_dec"]]])
    n_ant = 16
    for table, cells in {
        "ANTENNA": {"POSITION": np.full(3, 1e6), "NAME": "a", "STATION": "a", "DISH_DIAMETER": 4.65},
        "FIELD": {"PHASE_DIR": direction, "DELAY_DIR": direction, "REFERENCE_DIR": direction, "NAME": "f"},
        "SPECTRAL_WINDOW": {
            "CHAN_FREQ": frequency,
            "CHAN_WIDTH": widths,
            "EFFECTIVE_BW": widths,
            "RESOLUTION": widths,
            "NUM_CHAN": n_chan,
            "REF_FREQUENCY": frequency[0],
            "TOTAL_BANDWIDTH": width * n_chan,
            "MEAS_FREQ_REF": 5,
        },
        "POLARIZATION": {
            "NUM_CORR": 2,
            "CORR_TYPE": np.array([9, 12], np.int32),
            "CORR_PRODUCT": np.array([[0, 1], [0, 1]], np.int32),
        },
        "DATA_DESCRIPTION": {"SPECTRAL_WINDOW_ID": 0, "POLARIZATION_ID": 0},
        "OBSERVATION": {"TELESCOPE_NAME": "DSA_110"},
    }.items():
        with ct.table(f"{path}/{table}", readonly=False, ack=False) as sub:
            sub.addrows(n_ant if table == "ANTENNA" else 1)
            for name, value in cells.items():
                for row in range(sub.nrows()):
                    sub.putcell(name, row, value)
    return path


@pytest.mark.parametrize(("weight", "tolerance"), [("natural", 1e-3), ("uniform", 1e-2), ("briggs 0.5", 5e-3)])
def test_wsclean_makes_the_same_image_and_point_spread_function(dataset, measurement_set, tmp_path, weight, tolerance):
    command = ["wsclean", "-quiet", "-j", "2", "-use-wgridder", "-wgridder-accuracy", "1e-5", "-make-psf"]
    # without padding WSClean counts densities in the cells of the image itself, as CASA does
    command += ["-padding", "1", "-size", str(N), str(N), "-scale", "6asec", "-name", "out"]
    command += ["-weight", *weight.split(), measurement_set]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    g = gridder_of(dataset, loss=0.0, scheme=weight.split()[0])
    ours = {"dirty": g.dirty(g.data.visibilities), "psf": g.psf()}
    # without padding its edges are not to be had; a few points on the border of two cells fall differently in float32
    inner = (slice(150, -150),) * 2
    for kind, image in ours.items():
        theirs = fits.getdata(tmp_path / f"out-{kind}.fits")[0, 0]
        np.testing.assert_allclose(image[inner], theirs[inner], atol=tolerance)


SHAPES = {
    "taper": (UVShape(taper_rad=np.radians(90 / 3600)), ["-taper-gaussian", "90asec"]),
    "short": (UVShape(parse_uvrange("<2.5klambda")), ["-maxuv-l", "2500"]),
    "long": (UVShape(parse_uvrange(">1klambda")), ["-minuv-l", "1000"]),
}


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("weight", ["natural", "uniform"])
def test_tapers_and_ranges_make_wsclean_s_beam(dataset, measurement_set, tmp_path, name, weight):
    shape, arguments = SHAPES[name]
    command = ["wsclean", "-quiet", "-j", "2", "-use-wgridder", "-wgridder-accuracy", "1e-5", "-make-psf-only"]
    command += ["-padding", "1", "-size", str(N), str(N), "-scale", "6asec", "-name", "out", *arguments]
    subprocess.run([*command, "-weight", weight, measurement_set], check=True, capture_output=True, cwd=tmp_path)
    ours = gridder_of(dataset, loss=0.0, scheme=weight, shape=shape).psf()
    theirs = fits.getdata(tmp_path / "out-psf.fits")[0, 0].astype(np.float32)
    # WSClean tapers and cuts whole cells of the uv plane, each a sixtieth of the longest baseline
    a, b = fit_beam(ours, CELL), fit_beam(theirs, CELL)
    assert a.major == pytest.approx(b.major, rel=0.01)
    assert a.minor == pytest.approx(b.minor, rel=0.01)
    inner = (slice(150, -150),) * 2
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=0.03)

"""Three imagers on the same visibilities, simulated and real: one sky comes out."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import map_coordinates

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.io import casa, foreign, scratch_ms, tclean, wsclean
from dsa110_contimg.io.imagers import Request
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.aberration import aberration_scale
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.averaging import concatenate, from_dataset
from dsa110_contimg.science.coordinates import uvw_frame
from dsa110_contimg.science.deconvolution import clean, robust_rms
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.imaging import require
from dsa110_contimg.science.restoring import Beam, fit_beam, restore
from dsa110_contimg.science.stokes import stokes_i
from dsa110_contimg.science.weighting import imaging_weights, weighed
from dsa110_contimg.settings import load_settings

IMAGERS = {"wsclean": wsclean, "tclean": tclean}
LIGHT, RA, DEC, MJD = 299_792_458.0, np.radians(80.3), np.radians(16.6), 61066.2
SECONDS = (np.arange(8) - 3.5) * telescope.INTEGRATION_S
WIDTH = 24 * telescope.CHANNEL_WIDTH_HZ
FREQUENCY = 1.3132e9 + WIDTH * np.arange(32)
N_ANTENNAS, CELL = 48, 6.0
OPTIONS = ImageOptions(
    n_pixels=512, cell_arcsec=CELL, averaging_loss=0.0, max_major_cycles=20, mask_sigma=4.0, threshold_sigma=2.0
)
# pixels from the centre, west and north, none on a pixel; Jy
SOURCES = np.array(
    [[12.3, -30.6, 1.0], [-110.4, 83.2, 0.6], [191.7, 177.1, 0.8], [-202.2, -180.8, 0.5], [55.5, -150.5, 0.3]]
)


@dataclass(frozen=True)
class Made:
    restored: np.ndarray
    residual: np.ndarray
    beam: Beam
    program: str

    def fluxes(self, places: np.ndarray) -> np.ndarray:
        """Of the restored image, at places (x, y) in pixels from the centre."""
        n = len(self.restored)
        return map_coordinates(self.restored, [places[:, 1] + n // 2, places[:, 0] + n // 2], order=5)

    def offsets(self, places: np.ndarray, cell_rad: float) -> np.ndarray:
        """How far the peak lies from each place, in beams: the shift that fits the restoring beam best."""
        out = []
        half, n = 4, len(self.restored)
        for x, y in places[:, :2]:
            column, row = round(x) + n // 2, round(y) + n // 2
            box = self.restored[row - half : row + half + 1, column - half : column + half + 1]
            north, west = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
            north, west = north + row - n // 2 - y, west + column - n // 2 - x
            shape = self.beam.value(-west * cell_rad, north * cell_rad)
            slopes = np.gradient(shape)
            unknowns = np.stack([shape.ravel(), -slopes[0].ravel(), -slopes[1].ravel()], axis=-1)
            flux, up, along = np.linalg.lstsq(unknowns, box.ravel(), rcond=None)[0]
            out.append(np.hypot(up, along) / flux * cell_rad / self.beam.minor)
        return np.array(out)


def simulated(noise_jy: float) -> xr.Dataset:
    """Sources of a sky that does not pass through a beam: what imagers make of it is not a matter of models."""
    table = telescope.stations()
    near = np.linalg.norm(table.itrf - np.median(table.itrf[table.active], axis=0), axis=1) < 1300.0
    chosen = np.flatnonzero(near & table.active)
    positions = table.itrf[chosen[np.linspace(0, len(chosen) - 1, N_ANTENNAS).round().astype(int)]]
    i, j = np.triu_indices(N_ANTENNAS, 1)
    mjd = MJD + SECONDS / 86400
    uvw = uvw_frame(RA, DEC, mjd).uvw(positions[i] - positions[j])
    east, north = -np.radians(SOURCES[:, 0] * CELL / 3600), np.radians(SOURCES[:, 1] * CELL / 3600)
    lmn = np.stack([east, north, np.sqrt(1 - east**2 - north**2) - 1], axis=-1)
    data = sum(
        flux * np.exp(2j * np.pi * (uvw @ cosines)[..., None] * FREQUENCY / LIGHT)
        for cosines, flux in zip(lmn, SOURCES[:, 2], strict=True)
    )
    rng = np.random.default_rng(11)
    data = np.repeat(data[..., None], 2, axis=-1)
    data = data + noise_jy * (rng.normal(size=data.shape) + 1j * rng.normal(size=data.shape))
    flags = rng.random(data.shape) < 0.02
    dims, names = ("time", "baseline_id", "frequency", "polarization"), [str(k) for k in range(N_ANTENNAS)]
    return xr.Dataset(
        {
            "VISIBILITY": (dims, data.astype(np.complex64)),
            "FLAG": (dims, flags),
            "WEIGHT": (dims, np.ones(data.shape, np.float32)),
            "UVW": (("time", "baseline_id", "uvw_label"), uvw),
        },
        coords={
            "time": mjd,
            "frequency": FREQUENCY,
            "polarization": ["XX", "YY"],
            "antenna_name": names,
            "antenna_position": (("antenna_name", "cartesian_pos_label"), positions),
            "baseline_antenna1_name": ("baseline_id", [names[k] for k in i]),
            "baseline_antenna2_name": ("baseline_id", [names[k] for k in j]),
            "pointing_ra": ("time", np.full(len(mjd), RA)),
            "pointing_dec": ("time", np.full(len(mjd), DEC)),
        },
        attrs={
            "phase_center_ra": RA,
            "phase_center_dec": DEC,
            "integration_time": telescope.INTEGRATION_S,
            "channel_width": WIDTH,
            "telescope_name": telescope.TELESCOPE_NAME,
            "group_id": "2026-01-26T04:45:25",
            # a dish so small that its beam is everywhere
            "dish_diameter": 0.01,
        },
    )


def native(datasets, options) -> Made:
    cell = np.radians(options.cell_arcsec / 3600)
    data = concatenate([from_dataset(d, 0.0, 0.01) for d in datasets])
    weights = imaging_weights(data, options.n_pixels, cell, options.weighting, options.robust)
    gridder = Gridder(data, weights, options.n_pixels, cell, options.accuracy, options.threads)
    psf = gridder.psf()
    beam = fit_beam(psf, cell)
    centre = data.phase_center_ra, data.phase_center_dec
    grid = SkyGrid(options.n_pixels, cell * aberration_scale(*centre, float(data.track.mjd.mean())), *centre)
    result = clean(gridder, psf, options, ApparentSky(gridder, grid, max(2, round(beam.major / cell / 1.5))))
    return Made(restore(result.model, result.residual, beam, cell), result.residual, beam, "native")


def made_by(imager, datasets, options, place) -> Made:
    if imager == "native":
        return native(datasets, options)
    if imager == "wsclean" and shutil.which("wsclean") is None:
        pytest.skip("WSClean is not installed: make system")
    views, asked, cell = [stokes_i(d) for d in datasets], options, np.radians(options.cell_arcsec / 3600)
    if imager == "tclean":
        views = weighed(views, options.n_pixels, cell, options.weighting, options.robust)
        asked = options.model_copy(update={"weighting": "natural"})
    paths = tuple(scratch_ms.write(view, place / f"{k}.ms") for k, view in enumerate(views))
    planes = IMAGERS[imager].image(Request(paths, asked), place)
    assert sorted(p.name for p in place.iterdir() if p.name.startswith(".")) == []
    beam = fit_beam(planes.psf, cell)
    assert beam.major == pytest.approx(np.radians(planes.beam_deg[0]), rel=0.2)
    return Made(restore(planes.model, planes.residual, beam, cell), planes.residual, beam, planes.program)


@pytest.mark.parametrize(
    ("imager", "option", "named"),
    [
        ("wsclean", {"uvrange": ">50m"}, "uvrange in metres"),
        ("wsclean", {"far_sigma": 5.0}, "far_sigma"),
        ("tclean", {"memory_gb": 2.0}, "memory_gb"),
    ],
)
def test_what_an_imager_cannot_do_is_refused_by_name(imager, option, named):
    options = ImageOptions(**option)
    require(options, "native")
    with pytest.raises(ImagingError, match=f"{imager} does not do {named}"):
        require(options, imager)
    require(ImageOptions(uvrange="0.1~2klambda", subbands=4, per_integration=True, deconvolver="mtmfs"), imager)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    dataset = simulated(noise_jy=0.001)
    names = ("native", "wsclean", "tclean")
    return {name: made_by(name, [dataset], OPTIONS, tmp_path_factory.mktemp(name)) for name in names}


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    dataset = simulated(noise_jy=2.0)
    names = ("native", "wsclean", "tclean")
    return {name: made_by(name, [dataset], OPTIONS, tmp_path_factory.mktemp(name)) for name in names}


def test_no_step_of_tclean_takes_more_than_earlier_ones_left():
    options = ImageOptions(quick=True, max_major_cycles=3)
    steps = [tclean._Step({}, minor, major) for minor, major in ((200, 1), (99, 1), (1, 0))]
    assert [tclean._left(options, steps[:done]) for done in range(4)] == [
        {"niter": 300, "nmajor": 3},
        {"niter": 100, "nmajor": 2},
        {"niter": 1, "nmajor": 1},
        None,
    ]
    assert tclean._left(options, [tclean._Step({}, 10, 3)]) is None


@pytest.mark.parametrize("imager", ["native", "wsclean", "tclean"])
def test_without_noise_each_flux_is_true_to_half_a_per_cent(quiet, imager):
    np.testing.assert_allclose(quiet[imager].fluxes(SOURCES) / SOURCES[:, 2], 1.0, atol=5e-3)


@pytest.mark.parametrize("imager", ["native", "wsclean", "tclean"])
def test_sources_stand_where_they_are(quiet, imager):
    assert quiet[imager].offsets(SOURCES, np.radians(CELL / 3600)).max() < 0.05


@pytest.mark.parametrize("imager", ["wsclean", "tclean"])
def test_imagers_agree_on_noise_and_fluxes(noisy, imager):
    one, other = noisy["native"], noisy[imager]
    noise = robust_rms(one.residual)
    bright = SOURCES[SOURCES[:, 2] > 20 * noise]
    assert len(bright) == len(SOURCES)
    assert robust_rms(other.residual) == pytest.approx(noise, rel=0.05)
    np.testing.assert_allclose(other.fluxes(bright) / one.fluxes(bright), 1.0, atol=0.01)
    assert (
        np.abs(other.offsets(bright, np.radians(CELL / 3600)) - one.offsets(bright, np.radians(CELL / 3600))).max()
        < 0.05
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """3C286 of the VLA in two spectral windows, as three imagers make it."""
    uvfits = load_settings().validation_data / "vla" / "3C286_VLA_1400MHz.uvfits"
    if not uvfits.is_file():
        pytest.skip(f"no {uvfits}: DSA110_VALIDATION_DATA names the folder of real data")
    place = tmp_path_factory.mktemp("real")
    casa.import_uvfits(uvfits, place / "vla.ms", workdir=place)
    datasets = foreign.open_foreign(place / "vla.ms")
    options = ImageOptions(n_pixels=512, cell_arcsec=1.0, averaging_loss=0.0)
    return {
        name: made_by(name, datasets, options, tmp_path_factory.mktemp(name))
        for name in ("native", "wsclean", "tclean")
    }


@pytest.mark.parametrize("imager", ["wsclean", "tclean"])
def test_imagers_agree_on_a_real_source(real, imager):
    one, other, centre = real["native"], real[imager], np.zeros((1, 2))
    assert 12.5 < one.fluxes(centre)[0] < 15.0
    np.testing.assert_allclose(other.fluxes(centre), one.fluxes(centre), rtol=0.01)
    assert robust_rms(other.residual) == pytest.approx(robust_rms(one.residual), rel=0.05)
    apart = other.offsets(centre, np.radians(1 / 3600)) - one.offsets(centre, np.radians(1 / 3600))
    assert np.abs(apart).max() < 0.05

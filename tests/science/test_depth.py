"""An absolute threshold is the depth of the deconvolution where it lies above that in sigma."""

import numpy as np
import pytest

from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.deconvolution import clean
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.weighting import imaging_weights

N, CELL = 512, np.radians(8.0 / 3600)


@pytest.mark.parametrize("threshold_jy", [0.0, 0.2])
def test_what_is_fainter_than_the_threshold_stays_in_the_residual(flat_sky, observe, threshold_jy):
    data = from_dataset(observe([(0.004, -0.003, 0.8)], n_times=4, noise_jy=0.05), 0.001, 0.0237)
    gridder = Gridder(data, imaging_weights(data, N, CELL, "briggs", 0.5), N, CELL, 1e-4, 2)
    options = ImageOptions(n_pixels=N, cell_arcsec=8.0, threshold_jy=threshold_jy)
    result = clean(gridder, gridder.psf(), options, flat_sky(gridder))
    peak = float(np.abs(result.residual).max())
    if threshold_jy:
        # a minor iteration takes a tenth, so the last one leaves no less than 0.9 of the threshold
        assert 0.9 * threshold_jy < peak < 1.1 * threshold_jy
    else:
        assert peak < 0.05

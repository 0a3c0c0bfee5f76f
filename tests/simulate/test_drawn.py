"""A drawn image holds what it was drawn from."""

import numpy as np
import pytest

import dsa110_contimg as dc
from dsa110_contimg.simulate.drawn import draw_image


def test_a_drawn_image_has_its_noise_and_its_sources(tmp_path):
    img = dc.open_image(draw_image(tmp_path, n_pixels=600))
    found = img.dsa.plot.explore().at(300, 300)
    values = img["SKY"].values
    assert float(np.median(np.abs(values)) * 1.4826) == pytest.approx(3e-4, rel=0.05)
    # 3C138 is in the centre, bright enough that noise is nothing
    assert found.flux_jy / found.catalog_flux_jy == pytest.approx(1.0, rel=0.01)
    assert found.separation_arcsec < 1.0

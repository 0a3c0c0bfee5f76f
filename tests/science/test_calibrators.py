"""Which calibrator crosses which group."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from dsa110_contimg import telescope
from dsa110_contimg.science.calibrators import transits

STEP = 2 * np.pi * telescope.INTEGRATION_S / 86164.0905


def pointing(first_ra):
    return (first_ra + STEP * np.arange(24)) % (2 * np.pi), np.full(24, np.radians(16.6))


def candidate(ra_rad, dec=16.6, flux=5.0):
    return pd.DataFrame({"name": ["J"], "ra_deg": [np.degrees(ra_rad) % 360], "dec_deg": [dec], "flux_jy": [flux]})


@given(st.floats(0, 2 * np.pi), st.floats(0.001, 0.999))
def test_every_right_ascension_belongs_to_exactly_one_of_consecutive_groups(first_ra, fraction):
    source = candidate(first_ra + (fraction * 24 - 0.5) * STEP)
    found = [bool(transits(source, *pointing(first_ra + n * 24 * STEP), 1.0, 1.5)) for n in (-1, 0, 1)]
    assert found == [False, True, False]


def test_a_source_across_zero_hours_is_found():
    assert transits(candidate(2 * np.pi - 1e-4), *pointing(2 * np.pi - 0.01), 1.0, 1.5)


def test_faint_or_distant_sources_are_no_calibrators():
    ra = 1.0 + 12 * STEP
    assert not transits(candidate(ra, flux=0.9), *pointing(1.0), 1.0, 1.5)
    assert not transits(candidate(ra, dec=18.2), *pointing(1.0), 1.0, 1.5)
    assert not transits(candidate(ra, flux=float("nan")), *pointing(1.0), 1.0, 1.5)


def test_the_strongest_apparent_flux_comes_first():
    both = pd.concat([candidate(1.05, dec=17.9, flux=6.0).assign(name="off"), candidate(1.05).assign(name="on")])
    assert [t.name for t in transits(both, *pointing(1.04), 1.0, 1.5)] == ["on", "off"]

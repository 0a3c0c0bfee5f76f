"""The observation at a glance is true, cheap, and safe to show."""

from __future__ import annotations

import re

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from dsa110_contimg import telescope
from dsa110_contimg.views.planes import flag_fractions
from dsa110_contimg.views.summary import glance


def text_of(page: str) -> str:
    return re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))


def test_it_says_what_the_observation_is(corrected: xr.Dataset) -> None:
    text = text_of(glance(corrected.assign_attrs(missing_subbands=[3, 12])))
    for expected in ("2026-01-25T04:48:00", "8, 28 baselines and 8 autocorrelations", "XX, YY", "sb03, sb12", "MHz"):
        assert expected in text
    low = corrected["frequency"].values[0] - corrected.attrs["channel_width"] / 2
    assert f"{low / 1e6:.2f} to" in text


def test_the_sidereal_time_is_that_of_the_longitude(corrected: xr.Dataset) -> None:
    found = re.search(r"Sidereal time\s+(\d+):(\d+):(\d+)", text_of(glance(corrected)))
    assert found is not None
    hours = sum(int(part) / 60**i for i, part in enumerate(found.groups()))
    start = corrected["time"].values[0] - corrected.attrs["integration_time"] / 2 / 86400
    # IAU 1982: Greenwich mean sidereal time, UT1 for UTC; 1 s, and 1 s for UT1
    days = start - 51544.5
    expected = (18.697374558 + 24.06570982441908 * days + telescope.LONGITUDE_DEG / 15) % 24
    assert abs((hours - expected + 12) % 24 - 12) * 3600 < 2


def test_flags_are_shown_by_fraction_subband_and_antenna(corrected: xr.Dataset) -> None:
    names = corrected["baseline_antenna1_name"].values, corrected["baseline_antenna2_name"].values
    antenna = names[0][0]
    flag = corrected["FLAG"].values.copy()
    flag[:, (names[0] == antenna) | (names[1] == antenna)] = True
    flagged = corrected.assign(FLAG=(corrected["FLAG"].dims, flag))
    page = glance(flagged)
    assert f"{flag_fractions(flagged).attrs['flagged']:.1%}" in text_of(page)
    assert f"{antenna} (100%)" in text_of(page)
    heights = [int(height) for height in re.findall(r"height:(\d+)px\" title", page)]
    assert heights[0] == 22  # the lowest sixteenth of the band is flagged
    assert max(heights[1:]) < 11


def test_a_missing_subband_is_a_dashed_place(corrected: xr.Dataset) -> None:
    holed = corrected.isel(frequency=np.r_[0:36, 42:96])
    assert glance(holed).count('class="gone"') == 1


def test_large_lazy_data_are_not_read_to_be_shown(corrected: xr.Dataset) -> None:
    def never(block: np.ndarray) -> np.ndarray:
        raise AssertionError("the data were read")

    shape, dims = (24, 36, 4656, 2), corrected["VISIBILITY"].dims
    lazy = {
        name: (dims, da.zeros(shape, dtype=dtype, chunks=(8, 36, 48, 2)).map_blocks(never, dtype=dtype))
        for name, dtype in (("VISIBILITY", np.complex64), ("FLAG", bool), ("WEIGHT", np.float32))
    }
    uvw = np.ones((24, 36, 3))
    vis = xr.Dataset(
        lazy | {"UVW": (("time", "baseline_id", "uvw_label"), uvw)},
        coords={
            "time": 61065.2 + np.arange(24) * 1e-4,
            "frequency": 1.3e9 + 4e4 * np.arange(4656),
            "polarization": ["XX", "YY"],
            "baseline_antenna1_name": corrected["baseline_antenna1_name"],
            "baseline_antenna2_name": corrected["baseline_antenna2_name"],
        },
    )
    assert "not read yet" in text_of(glance(vis))
    known = flag_fractions(vis.assign(FLAG=(dims, np.zeros(shape, bool))))
    assert "0.0%" in text_of(glance(vis, known))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", 'x" onload="y'])
def test_what_comes_from_a_file_is_escaped(corrected: xr.Dataset, name: str) -> None:
    page = glance(corrected.assign_attrs(group_id=name, telescope_name=name))
    assert name not in page

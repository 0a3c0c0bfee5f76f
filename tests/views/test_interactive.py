"""Interactive figures carry all their numbers and everything that draws them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from bokeh.models import ColumnDataSource, HoverTool

from dsa110_contimg import views
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.views import raster
from dsa110_contimg.views.explore import FIGURES, draw


def sources(figure: Any) -> Iterator[dict[str, Any]]:
    for source in figure.figure.select({"type": ColumnDataSource}):
        yield source.data


def test_the_image_holds_the_counts_of_the_raster(corrected: xr.Dataset) -> None:
    (image,) = (data["count"][0] for data in sources(views.interactive_amplitude(corrected)) if "count" in data)
    expected = raster.amplitude(corrected).count
    np.testing.assert_array_equal(np.nan_to_num(image), expected)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_page_needs_no_network_and_tells_what_it_shows(corrected: xr.Dataset, figure: str) -> None:
    made = draw(corrected, figure=figure)
    page = made.to_html()
    assert not re.search(r"<(script[^>]*\ssrc|link[^>]*\shref)=", page)
    assert html.escape(made.caption) in page
    assert made.figure.select({"type": HoverTool})
    frame = made._repr_html_()
    inside = re.search(r'srcdoc="([^"]*)"', frame)
    assert inside is not None
    framed = html.unescape(inside.group(1))  # each page has identifiers of its own
    assert (len(framed), framed[:200]) == (len(page), page[:200])


def test_uneven_columns_are_cut_into_even_pixels_of_the_right_place(corrected: xr.Dataset) -> None:
    holed = corrected.isel(frequency=np.r_[0:30, 40:96])
    (image,) = (data["count"][0] for data in sources(views.interactive_phase(holed, "frequency")) if "count" in data)
    there = np.nansum(image, axis=0) > 0
    # 6 flagged channels and 10 missing ones of 96
    np.testing.assert_array_equal(np.flatnonzero(~there), np.r_[0:6, 30:40])


def test_a_page_can_be_kept(corrected: xr.Dataset, tmp_path: Path) -> None:
    path = views.interactive_uv(corrected).save(tmp_path / "uv.html")
    assert "<html" in path.read_text(encoding="utf-8")


def test_selectors_redraw_what_is_chosen(corrected: xr.Dataset) -> None:
    panel = views.explorer(corrected)
    first = panel.page["text/html"]
    assert panel.page["text/plain"] == "Amplitude against projected baseline"
    panel.selectors["x"].value = "time"
    assert panel.page["text/plain"] == "Amplitude against time"
    assert panel.page["text/html"] != first
    panel.selectors["figure"].value = "waterfall"
    assert panel.selectors["x"].disabled
    antenna = panel.selectors["antenna"].options[1]
    panel.selectors["antenna"].value = antenna
    assert panel.page["text/plain"] == f"Waterfall: Antenna {antenna}"


def test_a_choice_of_antenna_and_hand_is_all_that_is_counted(corrected: xr.Dataset) -> None:
    antenna = str(corrected["baseline_antenna1_name"].values[0])
    made = draw(corrected, antenna=antenna, polarization="YY", x="time")
    number = 4 * 7 * 90  # integrations, baselines and unflagged channels
    assert f"{number:,} unflagged" in made.caption
    assert "(YY)" in made.caption


def test_what_is_not_there_is_refused(corrected: xr.Dataset) -> None:
    with pytest.raises(InputError):
        draw(corrected, antenna="116")

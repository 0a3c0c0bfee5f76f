"""Every figure has its axes labelled, shows what there is, and says so where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.coordinates import Angle
from astropy.visualization.wcsaxes import WCSAxes
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from dsa110_contimg import views
from dsa110_contimg.exceptions import CorruptFileError
from dsa110_contimg.records import ImageProduct
from dsa110_contimg.views.fluxes import bright, repeated_sources
from dsa110_contimg.views.image import read_plane
from dsa110_contimg.views.tables import _sexagesimal

IMAGES = [
    {"mjd_start": 61065.2, "mjd_end": 61065.204, "noise_jy": 6e-4, "thermal_noise_jy": 5e-4},
    {"mjd_start": 61065.3, "mjd_end": 61065.304, "noise_jy": 7e-4, "thermal_noise_jy": None},
]


def labels(axes: Any) -> tuple[str, str]:
    if isinstance(axes, WCSAxes):
        return axes.coords[0].get_axislabel(), axes.coords[1].get_axislabel()
    return axes.get_xlabel(), axes.get_ylabel()


def require_labels(figure: Figure) -> None:
    figure.savefig(BytesIO(), dpi=40)  # drawing finds what building does not
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        is_bar = hasattr(axes, "_colorbar")
        assert any(labels(axes)) if is_bar else all(labels(axes)), f"{labels(axes)} in {axes.get_title(loc='left')!r}"


def text_of(figure: Figure) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title, axes._left_title))


@pytest.fixture
def figures(
    raw: xr.Dataset,
    corrected: xr.Dataset,
    tables: list[xr.Dataset],
    image: ImageProduct,
    fluxes: pd.DataFrame,
    night: pd.DataFrame,
) -> dict[str, Callable[[], Figure]]:
    return {
        "uv_coverage": lambda: views.uv_coverage(raw),
        "amplitude_phase": lambda: views.amplitude_phase(raw, corrected),
        "amplitude": lambda: views.amplitude(raw),
        "amplitude of one integration": lambda: views.amplitude(raw.isel(time=[0]), "time"),
        "phase": lambda: views.phase(corrected, "frequency"),
        "flags": lambda: views.flags(corrected),
        "gain_solutions": lambda: views.gain_solutions(tables),
        "image_view": lambda: views.image_view(image, fluxes),
        "flux_ratio": lambda: views.flux_ratio(fluxes),
        "position_offsets": lambda: views.position_offsets(fluxes, image),
        "light_curves": lambda: views.light_curves(night),
        "noise_vs_time": lambda: views.noise_vs_time(IMAGES),
        "ratio_by_group": lambda: views.ratio_by_group(night.to_dict("records")),
    }


@pytest.mark.parametrize(
    "name",
    [
        "uv_coverage", "amplitude_phase", "amplitude", "amplitude of one integration", "phase", "flags",
        "gain_solutions", "image_view", "flux_ratio", "position_offsets",
        "light_curves", "noise_vs_time", "ratio_by_group",
    ],
)  # fmt: skip
def test_every_axis_has_its_label(figures: dict[str, Callable[[], Figure]], name: str) -> None:
    require_labels(figures[name]())


def test_flagged_data_give_an_empty_figure_that_says_so(raw: xr.Dataset) -> None:
    flagged = raw.assign(FLAG=raw["FLAG"] | True)
    assert "all data are flagged" in text_of(views.uv_coverage(flagged))
    assert "all data are flagged" in text_of(views.amplitude_phase(flagged, flagged))


def test_nothing_measured_gives_empty_figures_that_say_so(fluxes: pd.DataFrame, image: ImageProduct) -> None:
    none = fluxes.iloc[:0]
    assert "no source" in text_of(views.flux_ratio(none))
    assert "no source" in text_of(views.position_offsets(none, image))
    assert "no images" in text_of(views.noise_vs_time([]))
    assert "no source" in text_of(views.light_curves([]))
    assert "no source" in text_of(views.ratio_by_group([]))
    assert "no solutions" in text_of(views.gain_solutions([]))


def test_the_uv_plane_is_hermitian(raw: xr.Dataset) -> None:
    shown = views.uv_coverage(raw).axes[1].images[0].get_array()
    np.testing.assert_array_equal(np.nan_to_num(shown), np.nan_to_num(shown[::-1, ::-1]))


def test_a_waterfall_has_a_row_for_each_hand_and_says_what_a_pixel_is(raw: xr.Dataset) -> None:
    antenna = str(raw["baseline_antenna1_name"].values[0])
    figure = views.waterfall(raw, antenna=antenna)
    figure.savefig(BytesIO(), dpi=40)
    panels = [axes for axes in figure.axes if not hasattr(axes, "_colorbar")]
    assert [axes.get_title(loc="left") for axes in panels[::2]] == [
        f"Antenna {antenna} {h}: amplitude" for h in ("XX", "YY")
    ]
    assert [axes.get_ylabel() for axes in panels[::2]] == ["minutes", "minutes"]
    assert [axes.get_xlabel() for axes in panels[2:]] == ["frequency (MHz)"] * 2
    assert "7 baselines: mean of |V|" in figure.get_supxlabel().replace("\n", " ")


def test_figures_of_all_visibilities_say_how_many_they_show(corrected: xr.Dataset) -> None:
    cross = corrected["baseline_antenna1_name"] != corrected["baseline_antenna2_name"]
    number = f"{int((~corrected['FLAG'].isel(baseline_id=cross.values)).sum()):,} unflagged visibilities"
    for figure in (views.uv_coverage(corrected), views.amplitude(corrected), views.phase(corrected, "time")):
        assert figure.get_supxlabel().startswith(number)


@pytest.mark.parametrize("draw", [views.amplitude, views.phase, views.waterfall, views.flags])
def test_a_figure_of_flagged_data_says_so(corrected: xr.Dataset, draw: Callable[[xr.Dataset], Figure]) -> None:
    figure = draw(corrected.assign(FLAG=corrected["FLAG"] | True))
    figure.savefig(BytesIO(), dpi=40)
    assert "all data are flagged" in text_of(figure) or "100.00%" in figure.get_supxlabel()


def test_the_amplitude_after_calibration_is_that_of_the_source(raw: xr.Dataset, corrected: xr.Dataset) -> None:
    (median,) = views.amplitude_phase(raw, corrected).axes[1].lines
    assert np.nanmedian(median.get_ydata()) == pytest.approx(2.0, abs=0.02)


def test_the_median_is_of_bright_sources_inside_half_power(fluxes: pd.DataFrame) -> None:
    fluxes.loc[0, ["flux_raw_jy", "local_noise_jy", "beam_response"]] = [0.1, 0.01, 0.9]
    fluxes.loc[1, ["flux_raw_jy", "local_noise_jy", "beam_response"]] = [1.0, 0.01, 0.4]
    fluxes.loc[2, ["flux_raw_jy", "local_noise_jy", "beam_response"]] = [1.0, 0.01, 0.9]
    assert list(bright(fluxes)[:3]) == [False, False, True]
    median = fluxes.loc[bright(fluxes), "ratio"].median()
    assert f"Median {median:.3f}" in text_of(views.flux_ratio(fluxes))


def test_a_light_curve_needs_two_groups(night: pd.DataFrame) -> None:
    names = repeated_sources(night, 100)
    counted = night.groupby("source")["group"].nunique()
    assert set(names) == set(counted.index[counted > 1])
    assert len(names) < len(counted)
    mean = night.groupby("source")["flux_jy"].median()
    assert names[0] == mean.idxmax()


def test_the_zoom_is_on_the_brightest_source(image: ImageProduct, fluxes: pd.DataFrame) -> None:
    figure = views.image_view(image, fluxes)
    peak = np.nanmax(read_plane(image.path).values) * 1e3
    assert f"{peak:.0f} mJy/beam" in text_of(figure)


def test_the_thumbnail_is_a_small_jpeg_with_the_brightest_source_in_it(image: ImageProduct) -> None:
    with Image.open(BytesIO(views.thumbnail(image, 120))) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (120, 120)
        grey = np.asarray(picture.convert("L"), float)
    values = read_plane(image.path).values
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    row, column = (values.shape[0] - 1 - y) // 2, x // 2
    assert grey[row - 2 : row + 3, column - 2 : column + 3].max() > 4 * np.median(grey)


@pytest.mark.parametrize("content", [b"not FITS", b""])
def test_a_file_that_is_not_an_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.fits"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"image\.fits"):
        read_plane(path)


def test_a_figure_leaves_no_state_behind(fluxes: pd.DataFrame) -> None:
    import matplotlib as mpl

    before = mpl.rcParams["font.size"], mpl.rcParams["axes.spines.top"]
    views.flux_ratio(fluxes)
    assert (mpl.rcParams["font.size"], mpl.rcParams["axes.spines.top"]) == before


def test_points_of_groups_between_calibrators_are_open(night: pd.DataFrame) -> None:
    source = repeated_sources(night, 1)[0]
    chosen = np.flatnonzero((night["source"] == source).to_numpy())[:1]
    quality = np.where(np.arange(len(night)) == chosen, 128 + 16, 16)
    (axes, *_) = views.light_curves(night.assign(quality=quality), 1).axes
    (opened,) = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert len(opened.get_xdata()) == 1
    assert opened.get_ydata()[0] == night["flux_jy"].iloc[chosen[0]]


def test_the_table_of_the_brightest_is_sorted_and_has_units(fluxes: pd.DataFrame) -> None:
    shown = views.brightest_sources(fluxes, 5)
    assert list(shown.index) == list(fluxes.sort_values("flux_jy", ascending=False)["source"][:5])
    told = views.brightest_sources(fluxes.assign(quality=[320, *[0] * (len(fluxes) - 1)]), len(fluxes))["quality"]
    assert told[str(fluxes["source"].iloc[0])] == "gains extrapolated, drift assumed"
    assert (told == "–").sum() == len(fluxes) - 1
    assert {"flux (mJy)", "catalogue (mJy)", "offset E, N (arcsec)"} <= set(shown.columns)


def test_a_table_shows_long_values_whole_and_as_text() -> None:
    long = "x" * 500
    shown = views.key_values({"path": long, "<b>": "a & b"})
    assert long in shown.body
    assert "<td>a &amp; b</td>" in shown.body
    assert "&lt;b&gt;" in shown.body


@given(st.floats(-90, 90), st.integers(0, 3))
def test_sexagesimal_is_that_of_astropy(degrees: float, digits: int) -> None:
    text = _sexagesimal(degrees, digits, sign=True)
    step = 10.0**-digits
    assert Angle(text, unit="deg").arcsecond == pytest.approx(degrees * 3600, abs=0.5 * step + 1e-6)
    assert "60" not in text[1:].split(".")[0].split(":")[1:]


def test_a_phase_only_table_shows_its_signal_to_noise(tables: list[xr.Dataset]) -> None:
    figure = views.gain_solutions(tables)
    assert "GP: S/N (amplitudes are 1)" in text_of(figure)
    assert "Bandpass: amplitude" in text_of(figure)

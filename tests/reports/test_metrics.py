from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsa110_contimg import records
from dsa110_contimg.exceptions import SettingsError
from dsa110_contimg.reports.metrics import (
    LEVELS,
    VERDICT_MIME,
    Verdict,
    judge,
    judge_group,
    load_bounds,
    measurements,
    median_offset_arcsec,
)

GOOD = {
    "flagged_fraction": 0.05,
    "calibration_flagged_fraction": 0.02,
    "noise_over_thermal": 1.05,
    "median_flux_ratio": 1.01,
    "flux_scale_error": 0.004,
    "astrometric_offset_beams": 0.02,
    "beam_axis_ratio": 2.2,
}
NAMES = [bound.name for bound in load_bounds().metrics]


def test_the_packaged_bounds_are_dated_and_each_has_its_reason() -> None:
    bounds = load_bounds()
    assert len(bounds.date.split("-")) == 3
    assert all(bound.why and bound.label for bound in bounds.metrics)
    assert set(NAMES) == set(GOOD)


def test_all_within_bounds_is_good() -> None:
    verdict = judge(GOOD)
    assert verdict.level == "good"
    assert verdict.reasons == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", ["absent", "nan"])
def test_one_number_that_is_not_known_is_never_good(name: str, missing: str) -> None:
    values = {k: v for k, v in GOOD.items() if k != name} | ({} if missing == "absent" else {name: math.nan})
    verdict = judge(values)
    assert verdict.level == "unknown"
    assert "not known" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("name", "value", "level"),
    [
        ("flagged_fraction", 0.20, "good"),
        ("flagged_fraction", 0.21, "suspect"),
        ("flagged_fraction", 0.51, "bad"),
        ("noise_over_thermal", 1.31, "suspect"),
        ("noise_over_thermal", 0.5, "bad"),
        ("median_flux_ratio", 0.94, "suspect"),
        ("median_flux_ratio", 1.11, "bad"),
        ("astrometric_offset_beams", 0.3, "bad"),
        ("beam_axis_ratio", 4.0, "suspect"),
        ("calibration_flagged_fraction", 1.0, "bad"),
        ("flux_scale_error", 0.04, "suspect"),
        ("flux_scale_error", 0.11, "bad"),
    ],
)
def test_the_worst_number_is_the_verdict_and_is_named(name: str, value: float, level: str) -> None:
    verdict = judge(GOOD | {name: value})
    assert verdict.level == level
    label = next(bound.label for bound in load_bounds().metrics if bound.name == name)
    assert all(label in reason for reason in verdict.reasons)
    assert len(verdict.reasons) == (0 if level == "good" else 1)


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(allow_infinity=True)))
def test_a_verdict_survives_json_and_is_as_bad_as_its_worst(values: dict[str, float]) -> None:
    verdict = judge(values)
    body = json.loads(json.dumps(verdict._repr_mimebundle_()[VERDICT_MIME], allow_nan=False))
    assert Verdict.from_dict(body) == verdict
    assert LEVELS.index(verdict.level) == max(LEVELS.index(item.level) for item in verdict.judged)
    if not all(math.isfinite(values.get(name, math.nan)) for name in NAMES):
        assert verdict.level != "good"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "date: 2026-01-01",
        "metrics: [",
        "date: 2026-01-01\nmetrics: {x: {label: X, unit: '', scale: 1, good: [0, 5], suspect: [0, 3], why: w}}",
        "date: 2026-01-01\nmetrics: {x: {label: X, unit: '', scale: 1, good: [0], suspect: [0, 3], why: w}}",
    ],
)
def test_bounds_that_do_not_parse_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bounds.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"bounds\.yaml"):
        load_bounds(path)


def a_group() -> dict[str, object]:
    here = Path("x")
    ms = records.MeasurementSet(here, "2026-01-25T05:01:12", 80.0, 16.6, 61065.2, 61065.204, 96)
    tables = tuple(
        records.CalTable(here, kind, "s", i, "g", "3", 61065.2, 61065.0, 61066.0, flagged, 40.0, calibrator)
        for i, (kind, flagged, calibrator) in enumerate((("B", 0.03, "3C138"), ("GP", 0.01, "")))
    )
    image = records.ImageProduct(
        *[here] * 7, ms.group_id, 80.0, 16.6, 61065.2, 61065.204, 2400, 6.0, 44 / 3600, 20 / 3600, 3.0, 3.3e-4, 3e-4,
        1.4e9, 0.01, dynamic_range=5000.0,
    )  # fmt: skip
    return {
        "convert": ms,
        "flag": records.FlagSummary(ms, (("dead antenna", 0.02),), 0.02, ("12",)),
        "calibrate": records.CalTableSet(tables, math.nan, solved=tables),
        "apply": records.CalTableSet(tables, 0.01),
        "image": image,
        "measure": records.Photometry(here, ms.group_id, here, 50, 20, 1.004, 0.01, 0.006),
    }


def test_the_numbers_of_a_group_come_from_its_records() -> None:
    offsets = pd.DataFrame({"offset_ra_arcsec": [3.0, 3.0, math.nan], "offset_dec_arcsec": [4.0, 4.0, math.nan]})
    found = measurements(a_group(), offsets)
    assert found["flagged_fraction"] == 0.02
    assert found["calibration_flagged_fraction"] == 0.03
    assert found["noise_over_thermal"] == pytest.approx(1.1)
    assert found["median_flux_ratio"] == 1.004
    assert found["flux_scale_error"] == 0.006
    assert found["beam_axis_ratio"] == pytest.approx(2.2)
    assert found["astrometric_offset_beams"] == pytest.approx(5.0 / math.sqrt(44 * 20))


def test_a_group_without_image_is_not_judged_by_one() -> None:
    steps = {name: record for name, record in a_group().items() if name not in ("image", "measure")}
    verdict = judge_group(steps)
    assert verdict.level == "unknown"
    assert "image" not in verdict.summary


def test_the_summary_holds_what_the_index_shows() -> None:
    summary = judge_group(a_group()).summary
    assert summary["calibrator"] == "3C138"
    assert summary["gains"] == "own calibrator"
    assert summary["noise_jy"] == 3.3e-4
    assert records.ImageProduct.from_json(summary["image"]) == a_group()["image"]


@pytest.mark.parametrize(
    ("kinds", "quality", "gains"),
    [
        (("GP",), 0, "gains in their validity"),
        (("GA", "GP"), 2, "amplitudes between two solutions"),
        (("GA", "GP"), 3, "amplitudes of one side"),
    ],
)
def test_where_the_gains_of_a_target_are_from_is_in_the_summary(
    kinds: tuple[str, ...], quality: int, gains: str
) -> None:
    here = Path("x")
    own = tuple(records.CalTable(here, kind, "s", 2, "g", "3", 1.0, 0.9, 1.1, 0.0, 40.0) for kind in kinds)
    tables = records.CalTableSet(own, 0.01, solved=own, quality=quality)
    applied = records.CalTableSet(own, 0.01, quality=quality)
    assert judge_group({"calibrate": tables, "apply": applied}).summary["gains"] == gains


def test_no_fitted_position_is_no_offset() -> None:
    none = pd.DataFrame({"offset_ra_arcsec": [math.nan], "offset_dec_arcsec": [math.nan]})
    assert math.isnan(median_offset_arcsec(none))

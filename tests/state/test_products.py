"""Products: recorded whole, the newest current, labelled runs kept apart, lists ready for JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from dsa110_contimg.exceptions import StateError
from dsa110_contimg.records import Photometry
from dsa110_contimg.state.database import Database
from dsa110_contimg.state.products import Products, Report

GROUP = "2026-01-25T22:26:05"
LATER = "2026-01-25T22:31:14"


@pytest.fixture
def products(database: Database) -> Products:
    return Products(database)


def _fluxes(group: str = GROUP, n: int = 3, mjd: float = 61065.932) -> pd.DataFrame:
    i = np.arange(n)
    return pd.DataFrame(
        {
            "source": [f"NVSS J05{k:02d}+16" for k in i],
            "group": group,
            "mjd": mjd,
            "ra_deg": 80.0 + i,
            "dec_deg": 16.0,
            "flux_jy": 1.0 + i.astype(">f4"),
            "flux_error_jy": 0.01,
            "flux_raw_jy": np.where(i == 1, np.nan, 0.9),
            "quality": i.astype(np.int16),
            "image": "as the stage wrote it",
        }
    )


@pytest.fixture
def record(products: Products, make_image, tmp_path: Path) -> Callable[..., int]:
    """Record an image and fluxes measured on it."""

    def act(table: pd.DataFrame | Table, group: str = GROUP, name: str = "a", **how: str) -> int:
        image = make_image(name, group)
        products.record_image(image, **how)
        return products.record_photometry(
            Photometry(tmp_path / "p.ecsv", group, image.path, len(table), 0, 1.0, 0.0), table, **how
        )

    return act


def test_records_come_back(products: Products, make_ms, make_image) -> None:
    ms = make_ms(missing_subbands=(3, 7))
    image = make_image(flux_scale_error=float("nan"))
    products.record_measurement_set(ms)
    products.record_image(image)
    assert products.measurement_set(GROUP) == ms
    assert products.image(GROUP).to_json() == image.to_json()
    assert products.image(LATER) is None
    assert products.measurement_set(LATER) is None


def test_the_newest_product_of_a_group_is_current(products: Products, make_image, make_ms) -> None:
    for name in ("old", "new"):
        products.record_image(make_image(name))
        products.record_measurement_set(make_ms(f"{name}.ms"))
    products.record_image(make_image("other", LATER))
    assert products.image(GROUP) == make_image("new")
    assert [row["group"] for row in products.list_images()] == [GROUP, LATER]
    assert [Path(row["path"]).name for row in products.list_measurement_sets()] == ["new.ms"]
    products.record_image(make_image("old"))
    assert products.image(GROUP) == make_image("old")


def test_image_rows_hold_what_the_command_line_promises(products: Products, make_image) -> None:
    image = make_image(noise_jy=3.1e-4)
    products.record_image(image)
    (row,) = products.list_images()
    assert row["path"] == str(image.path)
    assert row["pbcor_path"] == str(image.pbcor_path)
    assert row["group"] == GROUP
    assert row["beam"] == pytest.approx([44.0, 20.0, 88.0])
    assert row["noise_jy"] == 3.1e-4
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_photometry_rows_hold_what_the_command_line_promises(products: Products, record, make_image) -> None:
    assert record(_fluxes()) == 3
    rows = products.list_photometry()
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    row = rows[1]
    wanted = {"source": "NVSS J0501+16", "group": GROUP, "mjd": 61065.932, "ra_deg": 81.0, "dec_deg": 16.0}
    wanted |= {"flux_jy": 2.0, "flux_error_jy": 0.01, "image": str(make_image().path), "quality": 1}
    assert wanted.items() <= row.items()
    assert row["flux_raw_jy"] is None, "missing is not zero"
    assert row["smearing"] is None, "a column that was not measured is missing in every row"


def test_an_astropy_table_is_as_good_as_a_frame(products: Products, record) -> None:
    table = Table.from_pandas(_fluxes().astype({"flux_jy": "f8"}))
    masked = Table(table, masked=True)
    masked["flux_jy"].mask[2] = True
    record(masked)
    assert [row["flux_jy"] for row in products.list_photometry()] == [1.0, 2.0, None]


def test_photometry_is_selected_by_source_group_and_time(products: Products, record) -> None:
    record(_fluxes())
    record(_fluxes(LATER, mjd=61065.936), LATER, "b")
    assert len(products.list_photometry()) == 6
    assert [row["mjd"] for row in products.list_photometry("NVSS J0501+16")] == [61065.932, 61065.936]
    assert {row["group"] for row in products.list_photometry(group=LATER)} == {LATER}
    assert {row["group"] for row in products.list_photometry(mjd_range=(61065.932, 61065.936))} == {GROUP}
    assert products.list_photometry("nobody") == []


def test_measuring_again_replaces_the_rows_of_the_group(products: Products, record) -> None:
    record(_fluxes(n=3))
    record(_fluxes(LATER), LATER, "b")
    record(_fluxes(n=2))
    assert len(products.list_photometry(group=GROUP)) == 2
    assert len(products.list_photometry(group=LATER)) == 3
    record(_fluxes(n=0))
    assert products.list_photometry(group=GROUP) == []


def test_labelled_runs_never_appear_unasked(products: Products, record, make_ms) -> None:
    record(_fluxes())
    record(_fluxes(n=1), name="mine", run_label="mine")
    products.record_measurement_set(make_ms(), run_label="mine")
    assert len(products.list_photometry()) == 3
    assert [row["run_label"] for row in products.list_images()] == [""]
    assert products.list_measurement_sets() == []
    assert products.measurement_set(GROUP) is None
    assert len(products.list_photometry(run_label="mine")) == 1
    assert [row["run_label"] for row in products.list_images(run_label="mine")] == ["mine"]
    assert len(products.list_images(run_label=None)) == 2
    assert products.measurement_set(GROUP, run_label="mine") == make_ms()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="mjd"), "absent.*mjd"),
        (lambda t: t.assign(flux=1.0), "unknown.*flux"),
        (lambda t: t.assign(source="same"), "twice.*same"),
        (lambda t: t.assign(group=LATER), "another group"),
        (lambda t: t.assign(quality=0.5), "integer"),
        (lambda t: t.assign(mjd=np.nan), "(?i)not.null"),
    ],
)
def test_a_wrong_table_changes_nothing(products: Products, record, change: Callable, message: str) -> None:
    record(_fluxes())
    with pytest.raises(StateError, match=message):
        record(change(_fluxes(n=2)))
    assert len(products.list_photometry()) == 3


def test_photometry_needs_a_recorded_image(products: Products, tmp_path: Path) -> None:
    photometry = Photometry(tmp_path / "p.ecsv", GROUP, tmp_path / "none.fits", 3, 0, 1.0, 0.0)
    with pytest.raises(StateError, match=r"not recorded.*none\.fits"):
        products.record_photometry(photometry, _fluxes())


def test_reports_are_listed_with_their_summary(products: Products, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    report = Report(page, tmp_path / "a.ipynb", "group", "2026-01-25", GROUP, "bad", "image", "diverged", {"noise": 1})
    products.record_report(report)
    products.record_report(Report(tmp_path / "night.html", tmp_path / "night.ipynb", "night", "2026-01-25"))
    night, group = products.list_reports("2026-01-25")
    assert (night["kind"], night["verdict"], night["summary"]) == ("night", "unknown", {})
    assert (group["failed_step"], group["error"], group["summary"]) == ("image", "diverged", {"noise": 1})
    products.record_report(Report(page, tmp_path / "a.ipynb", "group", "2026-01-25", GROUP, "good"))
    assert [row["verdict"] for row in products.list_reports()] == ["unknown", "good"]
    assert products.list_reports("2026-01-26") == []

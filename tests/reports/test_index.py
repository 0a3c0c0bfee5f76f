from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dsa110_contimg.exceptions import OutputError
from dsa110_contimg.reports.index import ReportRow, nights, write_index
from dsa110_contimg.reports.render import ReportProduct


class Page(HTMLParser):
    """Links, pictures and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("a", "link") and given.get("href"):
            self.links.append(str(given["href"]))
        if tag in ("img", "script", "iframe") and given.get("src"):
            self.pictures.append(str(given["src"]))

    def handle_data(self, data: str) -> None:
        self.text += data


def row(folder: Path, night: str, clock: str, verdict: str = "good", **more: object) -> ReportRow:
    group = f"{night}T{clock}"
    return ReportRow(
        folder / night / f"{group}.html", folder / night / f"{group}.ipynb", "group", night, group, verdict, **more
    )  # type: ignore[arg-type]


@pytest.fixture
def rows(tmp_path: Path) -> list[ReportRow]:
    numbers = {"noise_jy": 3.1e-4, "thermal_noise_jy": 2.9e-4, "median_ratio": 1.003, "n_sources": 61}
    failed = {"failed_step": "calibrate", "error": "No table covers <this> time. Expected: a bandpass."}
    return [
        row(tmp_path, "2026-01-25", "05:06:22", "failed", **failed),
        row(tmp_path, "2026-01-25", "05:01:12", summary=numbers | {"thumbnail": "a.jpg", "calibrator": "3C138"}),
        row(tmp_path, "2026-01-26", "00:00:10", "suspect", summary={"noise_jy": None, "reasons": ["Noise 1.5"]}),
        ReportRow(tmp_path / "2026-01-25/night.html", tmp_path / "2026-01-25/night.ipynb", "night", "2026-01-25"),
    ]


def test_nights_come_newest_first_and_groups_in_time(rows: list[ReportRow]) -> None:
    found = nights(rows)
    assert [night.date for night in found] == ["2026-01-26", "2026-01-25"]
    assert [group.group_id[11:] for group in found[1].groups] == ["05:01:12", "05:06:22"]
    assert found[1].counts == (("failed", 1), ("good", 1))
    assert found[0].page is None


def test_the_index_names_the_failed_step_and_why(tmp_path: Path, rows: list[ReportRow]) -> None:
    page = Page(write_index(tmp_path, rows).read_text())
    assert "Failed at calibrate." in page.text
    assert "No table covers <this> time." in page.text


def test_links_are_relative_and_nothing_comes_from_elsewhere(tmp_path: Path, rows: list[ReportRow]) -> None:
    text = write_index(tmp_path, rows).read_text()
    page = Page(text)
    assert "2026-01-25/2026-01-25T05:01:12.html" in page.links
    assert "2026-01-25/night.html" in page.links
    assert page.pictures == ["2026-01-25/a.jpg"]
    assert not [link for link in page.links if "://" in link]
    assert "@import" not in text
    assert "url(" not in text


def test_a_number_that_is_missing_is_a_dash(tmp_path: Path, rows: list[ReportRow]) -> None:
    text = Page(write_index(tmp_path, rows).read_text()).text
    assert "0.31" in text
    assert "1.003" in text
    assert "–" in text
    assert "None" not in text
    assert "nan" not in text


def test_an_index_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    assert "No reports yet" in write_index(tmp_path, []).read_text()


def test_a_row_survives_the_database(rows: list[ReportRow]) -> None:
    for given in rows:
        listed = {
            "html_path": str(given.html_path), "notebook_path": str(given.notebook_path), "kind": given.kind,
            "night": given.night, "group": given.group_id, "verdict": given.verdict, "failed_step": given.failed_step,
            "error": given.error, "summary": json.dumps(given.summary), "run_label": "", "registered_at": "now",
        }  # fmt: skip
        assert ReportRow.from_database(listed) == given


def test_a_row_of_a_product_keeps_the_thumbnail_by_name(tmp_path: Path) -> None:
    product = ReportProduct(
        tmp_path / "g.ipynb", tmp_path / "g.html", "complete", "good", thumbnail=tmp_path / "g.jpg",
        summary={"noise_jy": 1e-3, "image": "{}"},
    )  # fmt: skip
    made = ReportRow.from_product(
        product, kind="group", night="2026-01-25", group_id="g", extra={"calibrator": "3C138"}
    )
    assert made.summary == {"noise_jy": 1e-3, "thumbnail": "g.jpg", "calibrator": "3C138"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="file"):
        write_index(blocked, [])

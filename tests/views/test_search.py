"""The panel of the calibrator search, driven as a person drives it."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

from dsa110_contimg import telescope, views
from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.io import catalogs
from dsa110_contimg.options import SearchOptions
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.reports.engine import OwnKernelManager
from dsa110_contimg.science.calibrators import is_warning
from dsa110_contimg.science.search import search, span_of_day, span_of_groups
from dsa110_contimg.views.search import calibrator_sky, calibrator_tracks, coverage_line, transit_table
from dsa110_contimg.views.style import VERMILION

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "calibrator_search.ipynb"
STEP = telescope.GROUP_S / 86400


def evening(n_groups=12, dec=16.64):
    """Groups one after another about a transit of 3C138 (04:53:48 UTC)."""
    first = 61066.2023 - n_groups // 2 * STEP
    return tuple(SubbandGroup(f"group {k}", first + k * STEP, dec, ()) for k in range(n_groups))


def stored(path):
    """A store that has one directory."""
    return evening() if path == "/data/evening" else ()


def panel(**more):
    given = {"date": "2026-01-26", "dec_deg": 16.64} | more
    return views.calibrator_search(catalogs.calibrators(), **given)


def test_it_shows_every_transit_with_the_group_that_holds_it():
    shown = panel(path="/data/evening", find_groups=stored)
    assert shown.page["text/html"].count("<tr>") == len(shown.found.transits) + 1
    assert "J0521+166 3C138" in shown.page["text/html"]
    assert shown.page["text/html"].count('<img src="data:image/png') == 2
    held = shown.found.transits.set_index("name").loc["J0521+166"]
    assert "group 6" in set(np.atleast_1d(held["group"]))
    assert [label for label, _ in shown.transit.options] == ["J0521+166 3C138 in group 6"]
    assert shown.transit.value.group_id == "group 6"


def test_what_a_person_changes_is_searched_anew():
    shown = panel()
    first = len(shown.found.candidates)
    shown.inputs["min_flux"].value = 5.0
    assert len(shown.found.candidates) < first
    assert (shown.found.candidates["flux_jy"] >= 5).all()
    shown.inputs["radius"].value = 0.2
    assert (shown.found.candidates["offset_deg"].abs() <= 0.2).all()
    shown.inputs["min_flux"].value, shown.inputs["radius"].value, shown.inputs["top_n"].value = 1.0, 1.5, 3
    assert len(shown.found.candidates) == 3
    shown.inputs["dec"].value = 54.6
    assert shown.found.span.dec_deg == 54.6
    assert set(shown.found.candidates["name"].str[-3:-1]) <= {"53", "54", "55"}
    shown.inputs["date"].value = "2026-02-01"
    assert shown.found.span.mjd_start == 61072.0


def test_a_directory_takes_the_place_of_date_and_declination_and_gives_it_back():
    shown = panel(find_groups=stored, dec_deg=54.6)
    assert shown.solve.disabled and shown.transit.value is None
    shown.inputs["path"].value = "/data/evening"
    assert shown.found.span.dec_deg == 16.64
    assert shown.inputs["date"].disabled and shown.inputs["dec"].disabled
    shown.inputs["path"].value = ""
    assert shown.found.span.dec_deg == 54.6
    assert not shown.inputs["dec"].disabled


def test_what_cannot_be_searched_is_said_and_leaves_nothing_to_solve():
    shown = panel(find_groups=stored, on_solve=lambda _: ())
    faults = (
        ("dec", -60.0, "below the horizon"),
        ("dec", float("nan"), "Not a declination"),
        ("date", "yesterday", "Not a date"),
        ("radius", -1.0, "radius: Input should be greater than 0"),
        ("min_flux", 1000.0, "No calibrator crosses the beam"),
        ("path", "/data/nothing", "no groups to search"),
    )
    for name, value, said in faults:
        good = shown.inputs[name].value
        shown.inputs[name].value = value
        assert said in shown.page["text/plain"]
        assert shown.found is None
        assert shown.solve.disabled and shown.transit.value is None
        shown.inputs[name].value = good
        assert shown.found is not None


ROW = {"kind": "B", "calibrator": "J0521+166", "refant": "24", "flagged_fraction": 0.031, "median_snr": 88.4}


class Asked:
    """Something that solves, and waits until it is told how that ends."""

    command = "solve <it>"

    def __init__(self, outcome):
        self.outcome, self.groups, self.go, self.said, self.cancelled = outcome, [], Event(), Event(), False

    def __call__(self, group):
        self.groups.append(group)
        return self

    def follow(self, tell):
        tell("convert 3/16 <b>")
        self.said.set()
        assert self.go.wait(20)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def cancel(self):
        self.cancelled, self.outcome = True, CalibrationError("The solution was cancelled")
        self.go.set()


def clicked(outcome):
    job = Asked(outcome)
    shown = panel(path="/data/evening", find_groups=stored, on_solve=job)
    assert shown.cancel.disabled
    shown.solve.click()
    assert job.said.wait(20)
    return shown, job


def finished(shown):
    shown.follower.join(20)
    assert not shown.follower.is_alive()


def test_the_button_solves_the_group_that_is_chosen_and_the_panel_stays_free():
    shown, job = clicked([ROW | {"path": "/x/b.B"}])
    # it runs: what it says is seen, nothing else can be started, and a person can search on
    assert "solve &lt;it&gt;" in shown.status.value and "convert 3/16 &lt;b&gt;" in shown.output.value
    assert shown.solve.disabled and not shown.cancel.disabled
    shown.inputs["radius"].value = 1.2
    assert shown.found.candidates["offset_deg"].abs().max() <= 1.2
    assert shown.solve.disabled
    job.go.set()
    finished(shown)
    assert [group.group_id for group in job.groups] == ["group 6"]
    for text in ("3.1%", "88", "b.B", "<code>/x</code>", "24"):
        assert text in shown.status.value
    assert shown.output.value == ""
    assert not shown.solve.disabled and shown.cancel.disabled


def test_a_solution_that_fails_is_said_and_can_be_tried_again():
    shown, job = clicked(CalibrationError("Nothing <converged>", found="group 6"))
    job.go.set()
    finished(shown)
    assert "Not solved" in shown.status.value
    assert "Nothing &lt;converged&gt;. Found: group 6" in shown.status.value
    # what it said last stays, to see why
    assert "convert 3/16" in shown.output.value
    assert not shown.solve.disabled


def test_a_solution_can_be_cancelled():
    shown, job = clicked([])
    shown.cancel.click()
    finished(shown)
    assert job.cancelled
    assert "Not solved" in shown.status.value and "cancelled" in shown.status.value
    assert shown.cancel.disabled and not shown.solve.disabled


def test_a_group_that_cannot_be_solved_on_is_said_at_once():
    def refuses(group):
        raise InputError("The group has no files to solve on", found=group.group_id)

    shown = panel(path="/data/evening", find_groups=stored, on_solve=refuses)
    shown.solve.click()
    assert "no files to solve on. Found: group 6" in shown.status.value
    assert shown.follower is None and not shown.solve.disabled


def test_without_something_that_solves_the_button_stays_off():
    assert panel(path="/data/evening", find_groups=stored).solve.disabled


def test_the_best_of_the_transits_is_chosen_first():
    groups = tuple(SubbandGroup(f"group {k}", 61066.0 + k * STEP, 16.64, ()) for k in range(279))
    shown = panel(path="x", find_groups=lambda _: groups)
    scores = shown.found.transits.set_index("group")["score"]
    chosen = [group.group_id for _, group in shown.transit.options]
    assert len(chosen) == len(shown.found.transits)
    assert scores[chosen].is_monotonic_decreasing


def test_figures_mark_every_transit_of_the_day_and_every_group():
    found = search(catalogs.calibrators(), span_of_groups(evening()), SearchOptions())
    high, low = calibrator_tracks(found).axes
    first_day = found.transits[found.transits["mjd"] < found.span.mjd_start + 1]
    assert len([line for line in high.lines if line.get_marker() == "v"]) == len(first_day)
    assert len(low.patches) == len(found.span.groups)
    # a transit is where the beam response of its source peaks
    for _, row in first_day.iterrows():
        hours = (row["mjd"] - found.span.mjd_start) * 24
        peaks = [line.get_xdata()[np.nanargmax(line.get_ydata())] for line in low.lines]
        assert np.min(np.abs(np.array(peaks) % 23.934 - hours % 23.934)) < 0.05
    (axes,) = calibrator_sky(found).axes
    assert sum(len(points.get_offsets()) for points in axes.collections) == len(found.candidates)


def test_a_day_without_a_transit_says_so():
    found = search(catalogs.calibrators(), span_of_day("2026-01-26", 16.64), SearchOptions())
    nothing = type(found)(found.span, found.candidates, found.transits.iloc[:0], found.coverage)
    assert "No calibrator crosses" in transit_table(nothing).text
    assert coverage_line(found).startswith("10 transits in 24 h")


def test_groups_of_several_declinations_or_months_are_refused():
    with pytest.raises(InputError, match="several declinations"):
        span_of_groups([*evening(2), *evening(2, dec=54.6)])
    late = SubbandGroup("late", 61166.0, 16.64, ())
    with pytest.raises(InputError, match="too far apart"):
        span_of_groups([*evening(2), late])


def test_what_may_vary_stands_out_in_the_table():
    found = search(catalogs.calibrators(), span_of_day("2026-01-26", 16.64), SearchOptions())
    shown = transit_table(found)
    warned = found.transits["variability"].map(is_warning)
    assert shown.body.count(VERMILION) == warned.sum() > 0
    for said in found.transits["variability"]:
        assert said in shown.text


def test_the_notebook_answers_in_a_kernel(tmp_path, monkeypatch):
    for name in ("OUTPUT", "SCRATCH", "STATE"):
        monkeypatch.setenv(f"PIPELINE_{name}_DIR", str(tmp_path / name.lower()))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    driving = [
        'panel.inputs["path"].value = ""\npanel.inputs["dec"].value = 54.6\nlen(panel.found.transits)',
        'panel.inputs["path"].value = "../data-samples"\npanel.transit.value.group_id',
        # the kernel answers while a process solves
        "panel.solve.click()\n(panel.solve.disabled, panel.cancel.disabled, panel.follower.is_alive())",
        "import time\nwhile 'solving' not in panel.output.value: time.sleep(0.1)\npanel.output.value",
        "panel.cancel.click()\npanel.follower.join(40)\n(panel.status.value, panel.solve.disabled)",
        'panel.inputs["radius"].value = 0.0001\npanel.page["text/plain"]',
    ]
    notebook.cells += [nbformat.v4.new_code_cell(text) for text in driving]
    (tmp_path / "ipython").mkdir()
    connection = {"transport": "ipc", "connection_file": str(tmp_path / "kernel.json")}
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_manager_class=OwnKernelManager,
        config=Config({"OwnKernelManager": {"log_path": str(tmp_path / "kernel.log"), **connection}}),
        extra_arguments=[f"--ipython-dir={tmp_path / 'ipython'}"],
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    )
    done = client.execute()
    last = [cell.outputs[-1]["data"]["text/plain"] for cell in done.cells[-len(driving) :]]
    assert last[0] == "12"
    assert last[1] == "'2026-01-26T04:51:13'"
    assert last[2] == "(True, False, True)"
    assert "0/?" in last[3]
    assert "The solution was cancelled" in last[4] and last[4].endswith("False)")
    assert "No calibrator crosses the beam" in last[5]
    shown = next(cell for cell in done.cells if cell.id == "show-search").outputs
    # what was shown first is drawn anew in its place
    assert any("No calibrator crosses the beam" in output.get("data", {}).get("text/html", "") for output in shown)
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in shown)

"""The calibration notebook: its contract, and that it comes to the verdict of the figures it shows."""

import ast
import inspect
import itertools

import nbformat
import numpy as np
import pytest
import xarray as xr

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io.caltable import write_caltable
from dsa110_contimg.records import CalTable
from dsa110_contimg.reports import run_template, template_parameters, template_path
from dsa110_contimg.reports.calibration import CalibrationReview
from dsa110_contimg.reports.metrics import VERDICT_MIME
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.registry import Registry

TEMPLATE = template_path("calibration_qa")


def table(kind, n_times, frequency, snr, seed=3):
    rng = np.random.default_rng(seed)
    shape = (n_times, 12, len(frequency), 2)
    phase = 0.05 * np.cumsum(rng.normal(size=(n_times, 12, 1, 2)), axis=0) + rng.normal(size=(1, 12, 1, 2))
    phase = phase - phase[:, 2:3]
    dims = ("time", "antenna_name", "frequency", "polarization")
    return xr.Dataset(
        {
            "GAIN": (dims, 0.07 * np.exp(1j * np.broadcast_to(phase, shape))),
            "FLAG": (dims, np.zeros(shape, bool)),
            "SNR": (dims, np.full(shape, snr, np.float32)),
        },
        coords={
            "time": 61066.2 + 1.5e-4 * np.arange(n_times),
            "antenna_name": [str(k + 1) for k in range(12)],
            "frequency": frequency,
            "polarization": ["X", "Y"],
        },
        attrs={"kind": kind, "refant": "3"},
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    base = tmp_path_factory.mktemp("tables")
    band = 1.35e9 + 1e6 * np.arange(40)
    made = {
        "B": table("B Jones", 1, band, 40),
        "G": table("G Jones", 1, band[:1], 300),
        "GP": table("G Jones", 10, band[:1], 60),
    }
    return [write_caltable(one, base / f"2026-01-26T04:51:13.{kind}") for kind, one in made.items()]


def cells(kind="code"):
    notebook = nbformat.read(TEMPLATE, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_the_parameters_are_those_of_the_function_that_takes_them():
    signature = inspect.signature(CalibrationReview.open)
    assert set(template_parameters(TEMPLATE)) == set(signature.parameters)
    assert all(p.annotation == "str" for p in signature.parameters.values())
    (parameters,) = [cell for cell in cells() if "parameters" in cell.metadata.get("tags", [])]
    assert all(ast.literal_eval(node.value) == "" for node in ast.parse(parameters.source).body)


def test_the_verdict_comes_first_and_each_figure_after_prose_that_says_what_good_is():
    names = [cell.id for cell in cells()]
    assert names[:3] == ["parameters", "open-calibration_qa", "verdict"]
    assert all(name.startswith("show-") for name in names[3:])
    whole = nbformat.read(TEMPLATE, as_version=4).cells
    for before, cell in itertools.pairwise(whole):
        if cell.id.startswith("show-"):
            assert cell.metadata["tags"] == ["raises-exception"]
            assert before.cell_type == "markdown"
            assert "Good" in before.source or cell.id == "show-provenance", cell.id


def run(tables, out_dir, **more):
    parameters = {"tables": "\n".join(map(str, tables))} | more
    product = run_template(TEMPLATE, out_dir, parameters, name="qa", title="Calibration")
    return product, nbformat.read(product.notebook, as_version=4)


def test_it_runs_to_a_verdict_and_shows_every_figure(tables, tmp_path):
    product, notebook = run(tables, tmp_path)
    assert (product.status, product.verdict, product.error) == ("complete", "good", "")
    shown = {cell.id: [o.data for o in cell.outputs] for cell in notebook.cells if cell.get("outputs")}
    assert VERDICT_MIME in shown["verdict"][0]
    for name in ("show-solutions", "show-snr", "show-first-amplitudes", "show-first-phases", "show-last-phases"):
        assert any("image" in kind for data in shown[name] for kind in data), name
    assert product.summary["tables"] == [path.name for path in tables]


def test_a_bad_calibration_is_judged_bad_with_its_reason(tables, tmp_path):
    worse = table("G Jones", 1, [1.35e9], 8.0)
    worse["FLAG"][:, :8] = True
    path = write_caltable(worse, tmp_path / "worse.G")
    review = CalibrationReview.open(tables=f"{tables[0]}\n{path}", previous=str(tables[1]))
    assert list(review.tables) == ["B", "G"]
    assert review.verdict.level == "bad"
    assert "G: Solutions flagged" in str(review.verdict)
    assert {f.name for f in review.judgement.figures if f.table == "G"} >= {"amplitude_change", "snr_gain"}
    assert review.refants().empty and review.comparison is None


def test_nothing_to_review_is_an_error():
    with pytest.raises(InputError, match="Nothing to review"):
        CalibrationReview.open()


def test_interpolated_gains_of_a_group_are_judged_as_the_pipeline_judges_them(tmp_path):
    """By their gap and predicted error, which the registry keeps; a low SNR of them is the drift, no fault."""
    group = "2026-01-26T04:51:13"
    registry = Registry(open_database(tmp_path / "state"))
    for kind, n_times, snr in (("GA", 1, 15), ("GP", 10, 60)):
        path = write_caltable(table("G Jones", n_times, [1.35e9], snr), tmp_path / f"{group}.{kind}")
        record = CalTable(path, kind, f"{group}_field", 2, group, "", 61066.2, 61066.1, 61066.3, 0.0, snr)
        figures = {"gap_hours": 9.0, "flux_scale_error": 0.02} if kind == "GA" else {}
        registry.register([record], quality={path: figures})
    review = CalibrationReview.open(group_id=group, state_dir=str(tmp_path / "state"))
    told = {f.name: f.value for f in review.judgement.figures if f.table == "GA"}
    assert told == {"flagged_fraction": 0.0, "gap_hours": 9.0, "flux_scale_error": 0.02}
    assert review.verdict.level == "suspect"

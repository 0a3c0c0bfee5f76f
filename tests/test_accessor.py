"""``ds.dsa`` gives what the functions behind it give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import dsa110_contimg as dc
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science import phasing, reduction, selection, stokes
from dsa110_contimg.views import Interactive


@pytest.fixture(scope="module")
def vis(night16: Any) -> xr.Dataset:
    return dc.open_group(night16.groups[1])


@pytest.mark.parametrize("backend", ["matplotlib", "bokeh"])
@pytest.mark.parametrize(
    "draw",
    [
        lambda plot, backend: plot.uv(backend=backend),
        lambda plot, backend: plot.amplitude("time", backend=backend),
        lambda plot, backend: plot.phase("frequency", backend=backend),
        lambda plot, backend: plot.waterfall(backend=backend),
    ],
    ids=["uv", "amplitude", "phase", "waterfall"],
)
def test_both_backends_draw(vis: xr.Dataset, draw: Callable[[Any, str], Any], backend: str) -> None:
    part = vis.isel(frequency=slice(0, 96))
    assert isinstance(draw(part.dsa.plot, backend), Figure if backend == "matplotlib" else Interactive)


def test_another_backend_is_refused(vis: xr.Dataset) -> None:
    with pytest.raises(InputError, match="matplotlib or bokeh"):
        vis.dsa.plot.uv(backend="gnuplot")


def test_the_methods_are_the_functions(vis: xr.Dataset) -> None:
    part = selection.select(vis, uvrange=(100, 300), autocorrelations=False).isel(time=slice(0, 4))
    chosen = vis.dsa.select(uvrange=(100, 300), autocorrelations=False)
    np.testing.assert_array_equal(chosen["baseline_antenna1_name"], part["baseline_antenna1_name"])
    centre = (float(vis["pointing_ra"][2]), float(vis["pointing_dec"][2]))
    turned = phasing.phase_to(part, centre)
    xr.testing.assert_identical(part.dsa.phase_to(centre).compute(), turned.compute())
    xr.testing.assert_identical(part.dsa.stokes_i().compute(), stokes.stokes_i(part).compute())
    averaged = reduction.average(turned, 8, 2)
    xr.testing.assert_identical(turned.dsa.average(8, 2).compute(), averaged.compute())


def test_operations_follow_one_another_and_stay_lazy(vis: xr.Dataset) -> None:
    centre = (float(vis["pointing_ra"][2]), float(vis["pointing_dec"][2]))
    made = vis.dsa.phase_to(centre).dsa.average(channels=48).dsa.stokes_i()
    assert made["VISIBILITY"].chunks is not None
    assert isinstance(made.dsa.plot.phase("time"), Figure)


def test_flags_are_read_once_and_then_shown(vis: xr.Dataset) -> None:
    fresh = vis.copy()
    known = fresh.dsa.flags()
    assert fresh.dsa.flags() is known
    assert "of the cross-correlations" in fresh.dsa._repr_html_()


def test_opening_brings_the_accessor_and_no_figures() -> None:
    program = "import sys, xarray, dsa110_contimg.opening; print(*sys.modules, xarray.Dataset.dsa.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "Dsa"
    assert not {"matplotlib", "bokeh", "ipywidgets", "IPython"} & set(done.stdout.split())


def test_a_dataset_without_visibilities_is_refused_and_still_prints() -> None:
    other = xr.Dataset({"SKY": ("l", np.zeros(3))})
    assert "not a Visibilities" in repr(other.dsa)
    with pytest.raises(InputError, match="no VISIBILITY, FLAG, UVW"):
        _ = other.dsa.plot


def test_what_is_no_calibration_table_is_refused(vis: xr.Dataset) -> None:
    for other, said in (("a.cal", "str"), (vis, "a Dataset without GAIN"), (None, "NoneType")):
        with pytest.raises(InputError, match=f"Not a calibration table. Found: {said}"):
            vis.dsa.apply_gains(other)


def test_a_dataset_that_lacks_something_is_refused_by_every_operation(vis: xr.Dataset) -> None:
    centre = (float(vis["pointing_ra"][2]), float(vis["pointing_dec"][2]))
    less = vis.drop_vars("WEIGHT")
    for work in (
        lambda: less.dsa.select(antenna="25"),
        lambda: less.dsa.average(2),
        lambda: less.dsa.phase_to(centre),
        less.dsa.stokes_i,
    ):
        with pytest.raises(InputError, match="WEIGHT is missing"):
            work()

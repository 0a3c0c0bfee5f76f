"""Memory: the estimate against what a process takes, and the refusal."""

import re
import subprocess
import sys

import pytest

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.imaging import memory_estimate, require_memory

PROGRAM = """
import sys
import numpy as np
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.averaging import Channels, ImagingData, Track
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.deconvolution import clean
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
import dsa110_contimg.stages.image

n, rows, cell = int(sys.argv[1]), int(sys.argv[2]), np.radians(6 / 3600)
rng = np.random.default_rng(0)
uvw = np.concatenate([rng.normal(0, 400, (rows, 2)), rng.normal(0, 5, (rows, 1))], axis=1)
track = Track(np.array([61066.2]), np.array([1.4]), np.array([0.3]), 12.9, 4.65)
channels = (Channels(1.3e9 + 2e6 * np.arange(96), 244140.0, 8),)
size = rows * 96
vis = np.full(size, 0.5 + 0j, np.complex64) + rng.standard_normal(size, np.float32)
data = ImagingData(uvw, np.zeros(rows, int), np.zeros(rows, int), np.arange(rows + 1) * 96, vis.astype(np.complex64),
                   np.ones(size, np.float32), channels, track, 1.4, 0.3, 1.0)
g = Gridder(data, data.weights.copy(), n, cell, 1e-4, 2)
options = ImageOptions(n_pixels=n, max_major_cycles=2)
clean(g, g.psf(), options, ApparentSky(g, SkyGrid(n, cell, 1.4, 0.3), 3))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
sys.stdout.write("peak " + peak.split()[1])
"""


@pytest.mark.parametrize(("n_pixels", "rows"), [(2048, 5000), (512, 60_000)])
def test_the_estimate_is_true_to_30_percent(n_pixels, rows):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(n_pixels), str(rows)], capture_output=True, text=True, check=True
    )
    peak = int(re.search(r"peak (\d+)", done.stdout).group(1)) * 1024
    assert memory_estimate(n_pixels, rows * 96) == pytest.approx(peak, rel=0.3)


def test_what_needs_more_than_there_is_is_refused_with_the_estimate():
    needed = memory_estimate(100_000, 0)
    with pytest.raises(ImagingError, match=r"680\.\d GB by estimate") as caught:
        require_memory(needed, 24_000_000_000)
    assert "at most 24.0 GB" in str(caught.value)
    with pytest.raises(ImagingError, match=r"at most 0\.5 GB"):
        require_memory(memory_estimate(2400, 1000), 24_000_000_000, limit_gb=0.5)


def test_what_fits_or_where_nothing_is_known_is_not_refused():
    require_memory(memory_estimate(2400, 10_000_000), 24_000_000_000, limit_gb=4.0)
    require_memory(memory_estimate(100_000, 0), None)


def test_multiscale_takes_more():
    assert memory_estimate(2400, 0, multiscale=True) > 1.5 * memory_estimate(2400, 0)
    # measured: 1.14 GB of 2048 pixels in four shares, 0.91 GB of 1024 in six with scales
    assert memory_estimate(2048, 200_000, shares=4) == pytest.approx(1.14e9, rel=0.1)
    assert memory_estimate(1024, 100_000, multiscale=True, shares=6) == pytest.approx(0.91e9, rel=0.1)

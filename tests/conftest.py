"""What every test may ask for: a generator, and a small simulated night with its truth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings

from dsa110_contimg import telescope
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.settings import Settings, load_settings

telescope.location()  # astropy takes the installed orientation of the Earth in tests that ask it alone, too
# how long an example takes says how busy the machine is
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")


@pytest.fixture
def rng():
    """A generator with a fixed seed: a test that fails, fails again."""
    return np.random.default_rng(110)


@dataclass(frozen=True)
class Night:
    """A simulated night: its files, its groups, its truth."""

    directory: Path
    groups: tuple[SubbandGroup, ...]
    truth: object


@pytest.fixture(scope="session")
def simulated():
    """A function that simulates a night into a directory."""
    from dsa110_contimg.io import groups
    from dsa110_contimg.simulate import night, truth
    from dsa110_contimg.simulate.plan import demo_night_options

    def make(directory: Path, n_antennas: int = 16, n_groups: int = 2, **options: object) -> Night:
        planned = demo_night_options(seed=7, n_antennas=n_antennas, n_groups=n_groups)
        night.simulate_night(planned.model_copy(update=options), directory)
        return Night(directory, groups.discover(directory).groups, truth.load_truth(directory))

    return make


@pytest.fixture(scope="session")
def night16(simulated, tmp_path_factory) -> Night:
    """Two groups of 16 antennas; 3C138 transits in the second, and sb09 of the first is missing."""
    from dsa110_contimg.simulate.faults import GroupFaults

    return simulated(tmp_path_factory.mktemp("night16"), faults={0: GroupFaults(missing_subbands=(9,))})


@pytest.fixture
def places(tmp_path) -> Settings:
    """Settings whose directories are all in a temporary place."""
    names = ("output_dir", "scratch_dir", "state_dir", "reports_dir")
    return load_settings(**{name: tmp_path / name for name in names})

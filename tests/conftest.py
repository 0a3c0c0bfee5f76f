"""What every test may ask for."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    """A generator with a fixed seed: a test that fails, fails again."""
    return np.random.default_rng(110)

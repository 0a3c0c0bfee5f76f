"""Memory that is kept between arrays is given back in the end."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")

# in a process of its own: what others have left in a heap would be counted
BEGIN = """
import os
from pathlib import Path
import numpy as np
from dsa110_contimg.science.heap import kept_memory
SIZE = 200 * 2**20
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / SIZE
def use():
    np.ones(SIZE, np.uint8)
before = resident()
"""
UNTIL_THE_END = """
with kept_memory():
    use()
    assert resident() - before > 0.9
    with kept_memory():
        use()
    assert 0.9 < resident() - before < 1.1  # the second stands where the first stood; the inner end is not the last
assert resident() - before < 0.1
use()
assert resident() - before < 0.1
"""
AFTER_AN_ERROR = """
@kept_memory()
def fail():
    use()
    raise KeyError
try:
    fail()
except KeyError:
    assert resident() - before < 0.1
else:
    raise AssertionError
"""


@pytest.mark.parametrize("program", [UNTIL_THE_END, AFTER_AN_ERROR], ids=["until the end", "after an error"])
def test_an_array_leaves_its_memory_to_the_next(program):
    ran = subprocess.run([sys.executable, "-c", BEGIN + program], capture_output=True, text=True, check=False)
    assert not ran.returncode, ran.stderr

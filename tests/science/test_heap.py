"""Memory that is kept between arrays is given back in the end."""

import os
import platform
from pathlib import Path

import numpy as np
import pytest

from dsa110_contimg.science.heap import kept_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
SIZE = 200 * 2**20


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def use():
    np.ones(SIZE, np.uint8)


def test_an_array_leaves_its_memory_to_the_next_until_the_end():
    before = resident()
    with kept_memory():
        use()
        assert resident() - before > 0.9 * SIZE
        with kept_memory():
            use()
        assert resident() - before > 0.9 * SIZE  # the inner one is not the last
        assert resident() - before < 1.5 * SIZE  # the second stands where the first stood
    assert resident() - before < 0.1 * SIZE
    use()
    assert resident() - before < 0.1 * SIZE


def test_an_error_gives_it_back_too():
    @kept_memory()
    def fail():
        use()
        raise KeyError

    before = resident()
    with pytest.raises(KeyError):
        fail()
    assert resident() - before < 0.1 * SIZE

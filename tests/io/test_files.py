"""Products appear whole or not at all, and what a killed process left goes with the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from dsa110_contimg.exceptions import OutputError
from dsa110_contimg.io import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("staged", [False, True])
def test_a_product_appears_whole_or_not_at_all(tmp_path, staged):
    staging = files.make_directory(tmp_path / "staging") if staged else None
    target = tmp_path / "out" / "product"
    for content in ("one", "two"):
        with files.beside(target, staging) as partial:
            partial.mkdir()
            (partial / "a").write_text(content)
            assert not target.exists() or (target / "a").read_text() == "one"
        assert (target / "a").read_text() == content

    def half_make():
        with files.beside(target, staging) as partial:
            partial.mkdir()
            raise ValueError("half-made")

    with pytest.raises(ValueError, match="half-made"):
        half_make()
    assert (target / "a").read_text() == "two"
    assert names(target.parent) == ["product"] and (staging is None or names(staging) == [])


def test_what_a_killed_process_left_is_removed_and_a_living_one_s_is_not(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead, living = done.stdout.strip(), str(os.getppid())
    for process in (dead, living):
        (tmp_path / f".product.{platform.node()}.{process}.partial").write_text("half")
    (tmp_path / f".product.elsewhere.{dead}.partial").write_text("of another host")
    with files.beside(tmp_path / "product") as partial:
        partial.write_text("whole")
    left = [f".product.{platform.node()}.{living}.partial", f".product.elsewhere.{dead}.partial", "product"]
    assert names(tmp_path) == sorted(left)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path):
    files.require_room(tmp_path, 1)
    with pytest.raises(OutputError, match=r"no room .*MB free.*MB"):
        files.require_room(tmp_path, 2**60)


def test_shared_memory_is_offered_only_where_it_has_room():
    assert files.shared_memory(2**60) is None

"""What radler has to say reaches nobody, wherever Python's output goes; what others say meanwhile does."""

import ctypes
import io
import os
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout

import nbformat
import pytest
from nbclient import NotebookClient

from dsa110_contimg.science.silence import silence

CLEAN = """
import numpy as np
import radler
from dsa110_contimg.science.silence import silence

n = 256
y, x = np.mgrid[:n, :n] - n // 2
psf = np.exp(-(x**2 + y**2) / 18.0).astype(np.float32)
residual, model = np.roll(psf, (20, 30), (0, 1)), np.zeros((n, n), np.float32)
settings = radler.Settings()
settings.trimmed_image_width = settings.trimmed_image_height = n
settings.pixel_scale.x = settings.pixel_scale.y = 3e-5
settings.algorithm_type = radler.AlgorithmType.generic_clean
settings.thread_count, settings.minor_iteration_count, settings.major_loop_gain = 1, 100, 0.8
print("before")
with silence():
    worker = radler.Radler(settings, psf, residual, model, 3e-5)
    worker.perform(0)
    del worker
print("after", float(model.sum()) > 0.5)
"""

OTHERS = """
import logging, sys, threading
from dsa110_contimg.science.silence import silence

def other():
    print("one", end=" ")
    sys.stdout.writelines(["two ", "three\\n"])
    logging.warning("gr\u00f6\u00dfer")
    print("four", flush=True)

sys.stdout.write("before\\n")  # where it is a pipe this waits in the buffer
with silence():
    print("never")
    sys.stderr.write("never\\n")
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
sys.stdout.write("after\\n")
"""


def say(text):
    """As print does, which the house forbids: to the stream that is there at the time."""
    sys.stdout.write(f"{text}\n")


@pytest.fixture
def process_output(capfd):
    """A function that gives what the process has written since."""
    return lambda: "".join(capfd.readouterr())


def test_neither_python_nor_a_library_is_heard_within(process_output):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        say("one")
        with silence():
            say("two")
            sys.stderr.write("three\n")
            ctypes.CDLL(None).puts(b"four")
            os.write(1, b"five\n")
        say("six")
        assert sys.stdout is out
    assert (out.getvalue(), err.getvalue()) == ("one\nsix\n", "")
    assert process_output() == ""
    os.write(1, b"seven\n")
    assert process_output() == "seven\n"


def test_other_threads_are_heard_and_all_may_overlap(process_output):
    out, entered, leave, done = io.StringIO(), *(threading.Event() for _ in range(3))

    def other():
        with silence():
            say("never")
            entered.set()
            leave.wait(60)
            say("never")
        say("last")
        done.set()

    with redirect_stdout(out):
        with silence():
            thread = threading.Thread(target=other)
            thread.start()
            entered.wait(60)
            say("never")
        say("meanwhile")
        os.write(1, b"closed as long as one is within\n")
        leave.set()
        done.wait(60)
        thread.join()
        assert sys.stdout is out
    assert out.getvalue() == "meanwhile\nlast\n"
    assert process_output() == ""
    os.write(1, b"open\n")
    assert process_output() == "open\n"


def test_other_threads_are_heard_where_output_is_the_process_s_own():
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", OTHERS], capture_output=True, check=True, env=environment)
    assert done.stdout.decode() == "before\none two three\nfour\nafter\n"
    assert done.stderr.decode() == "WARNING:root:größer\n"


def test_an_error_opens_it_again(process_output):
    with pytest.raises(ValueError, match="no"), silence():
        raise ValueError("no")
    os.write(2, b"open\n")
    assert process_output() == "open\n"


def outputs(code):
    cells = [nbformat.v4.new_code_cell(text) for text in code]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return "".join(o.get("text", "") + str(o.get("data", "")) for cell in notebook.cells for o in cell.outputs)


def test_a_notebook_shows_nothing_of_radler():
    assert outputs([CLEAN]) == "before\nafter True\n"


def test_a_program_shows_nothing_of_radler():
    done = subprocess.run([sys.executable, "-c", CLEAN], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("before\nafter True\n", "")

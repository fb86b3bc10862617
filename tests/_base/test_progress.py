"""Progress bars: on a terminal alone, on the standard error, and only where they are wanted."""

import contextlib
import io
import sys
import warnings

import keras
import nbformat
import numpy as np
import pytest
from keras import layers
from nbclient import NotebookClient

import tfprune
from tfprune._base.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def watched(monkeypatch):
    """Replaces the standard error; in a fixture, pytest would put its own back."""

    def replaced(by=Terminal):
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", by())
        return sys.stderr

    return replaced


def test_it_shows_how_many_steps_are_done_and_no_more_than_there_are(watched):
    terminal = watched()
    with progress(3, "pieces of work") as done:
        for _ in range(5):
            done()
    shown = terminal.getvalue()
    assert "pieces of work" in shown and "0/3" in shown and "3/3" in shown and "left:" in shown
    assert "4/3" not in shown
    # It hides the cursor, and shows it again.
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_the_cursor_comes_back_after_an_error(watched):
    terminal = watched()
    with pytest.raises(KeyboardInterrupt), progress(3, "pieces of work"):
        raise KeyboardInterrupt
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


def test_nothing_is_shown_unasked_or_in_a_file(watched):
    terminal = watched()
    with progress(3, "pieces of work", verbose=0) as done:
        done()
    assert terminal.getvalue() == ""
    file = watched(io.StringIO)
    with progress(3, "pieces of work") as done:
        done()
    assert file.getvalue() == ""


def test_a_notebook_shows_it_as_text_and_warns_of_nothing(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    code = """
from tfprune._base.progress import progress
with progress(3, "pieces of work") as done:
    for _ in range(3):
        done()
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert {(output.output_type, output.get("name")) for output in outputs} == {
        ("stream", "stderr")
    }
    text = "".join(output.text for output in outputs)
    assert "pieces of work" in text and "3/3" in text and "ipywidgets" not in text


def small():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(32, "relu", name="first"), layers.Dense(2, name="last")]
    )
    model.compile("sgd", "mse")
    return model


def shrunk(verbose):
    # So small a model may be no faster with fewer channels.
    with contextlib.suppress(ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfprune.plan_shrink(small(), {"latency": 0.5}, verbose=verbose)


X = np.ones((9, 6), "float32")
TASKS = {
    "measurements": lambda folder, verbose: tfprune.sensitivity(
        small(), (X, X[:, :2]), sparsities=[0.5], verbose=verbose
    ),
    "export of m.keras": lambda folder, verbose: tfprune.export(
        small(), folder / "m.keras", verbose=verbose
    ),
    "files written": lambda folder, verbose: tfprune.compare(
        small(), small(), formats=["keras"], latency=False, verbose=verbose
    ),
    "timed runs": lambda folder, verbose: tfprune.compare(
        small(), small(), formats=[], runs=2, verbose=verbose
    ),
    "evaluations": lambda folder, verbose: tfprune.pruners.SensitivitySearch(
        small(), {"parameters": 0.6}, pattern="filter"
    ).run(lambda model: {"loss": 1.0}, verbose=verbose),
    "batches": lambda folder, verbose: tfprune.pruners.one_shot(
        small(), 0.5, criterion="taylor", data=(X, X[:, :2]), verbose=verbose
    ),
    "blocks": lambda folder, verbose: tfprune.pruners.wanda(
        small(), 0.5, np.ones((128, 6), "float32"), verbose=verbose
    ),
    "layers timed": lambda folder, verbose: tfprune.plan_sparse(
        tfprune.pruners.one_shot(small(), 0.9), runs=1, verbose=verbose
    ),
    "candidates written": lambda folder, verbose: shrunk(verbose),
}


@pytest.mark.parametrize("what", TASKS)
def test_long_tasks_show_one_where_it_is_wanted(watched, tmp_path, capfd, what):
    terminal = watched()
    TASKS[what](tmp_path, 0)
    assert terminal.getvalue() == ""
    capfd.readouterr()
    if what == "export of m.keras":
        (tmp_path / "m.keras").unlink()
    TASKS[what](tmp_path, 1)
    assert what in terminal.getvalue()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx"])
def test_an_int8_export_counts_the_batches_that_it_has_seen(watched, tmp_path, name):
    terminal = watched()
    data = np.ones((70, 6), "float32")
    tfprune.export(small(), tmp_path / name, quantize="int8", data=data, tolerance=10)
    assert "batches for ranges" in terminal.getvalue() and "3/3" in terminal.getvalue()

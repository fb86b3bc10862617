"""The first code that a user runs, as a user runs it."""

import gzip
import re

import keras
import numpy as np
import pytest
from tutorial_support import assert_refused, run_tutorial


def quickstart(*arguments):
    return run_tutorial("quickstart.py", *arguments)


def results(printed):
    """`{name: (accuracy in percent, bytes, gzipped bytes)}` from the last table."""
    lines = re.findall(r"^(dense|pruned) +([\d.]+)% +([\d,]+) +([\d,]+)$", printed, re.MULTILINE)
    return {
        name: (float(accuracy), int(raw.replace(",", "")), int(small.replace(",", "")))
        for name, accuracy, raw, small in lines
    }


@pytest.mark.slow
def test_digits(tmp_path):
    done = quickstart("--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"loss: \S+ - sparsity: 0\.9000", done.stdout)
    assert re.search(r"prunable weights │ +│ +151,072 │ 135,965 │ +90\.00%", done.stdout)
    found = results(done.stdout)
    (dense_accuracy, dense_raw, dense_small) = found["dense"]
    (accuracy, raw, small) = found["pruned"]
    assert dense_accuracy > 97 and accuracy > dense_accuracy - 1
    assert raw == (tmp_path / "pruned.keras").stat().st_size
    assert raw == pytest.approx(dense_raw, rel=0.01)
    compressed = len(gzip.compress((tmp_path / "pruned.keras").read_bytes()))
    assert small == pytest.approx(compressed, rel=0.001)  # The header holds the time.
    assert small < dense_small / 5

    model = keras.saving.load_model(tmp_path / "pruned.keras")
    kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
    assert [np.count_nonzero(kernel) for kernel in kernels] == [29, 1843, 13107, 128]
    assert (tmp_path / "saved_model" / "saved_model.pb").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small colour data set, and a file that is none."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.integers(0, 90, (120, 20, 20, 3)).astype("uint8")
    images[..., 0] += (80 * labels)[:, None, None].astype("uint8")
    arrays = {"x_train": images, "x_test": images[:30]}
    columns = labels.reshape(-1, 1)  # As CIFAR-10 has them.
    np.savez(folder / "colours.npz", y_train=columns, y_test=columns[:30], **arrays)
    np.savez(folder / "half.npz", x_train=images, y_train=labels)
    return folder


@pytest.mark.slow
def test_a_folder(folder, tmp_path):
    output = tmp_path / "new" / "folder"
    data = ["--data", folder, "--name", "colours", "--epochs", 12]
    done = quickstart(*data, "--sparsity", 0.5, "--output", output)
    assert done.returncode == 0, done.stderr
    assert results(done.stdout)["pruned"][0] == 100
    kernel = keras.saving.load_model(output / "pruned.keras").layers[0].kernel.numpy()
    assert kernel.shape == (3, 3, 3, 32) and np.count_nonzero(kernel) == kernel.size // 2


BAD = {
    "no such folder": (["--data", "nowhere"], "nowhere: neither digits"),
    "several files": (["--data", "{folder}"], "choose one with --name: colours, half"),
    "no such file": (
        ["--data", "{folder}", "--name", "x"],
        "choose one with --name: colours, half",
    ),
    "missing arrays": (["--data", "{folder}", "--name", "half"], "x_test"),
    "epochs": (["--epochs", "0"], "--epochs has to be at least 1"),
    "no number": (["--epochs", "many"], "invalid int value: 'many'"),
    "percentage": (["--sparsity", "90"], "did you mean 0.9?"),
    "unknown option": (["--prune"], "unrecognized arguments: --prune"),
    "output is a file": (["--output", "{folder}/half.npz"], "half.npz"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, folder):
    arguments, expected = BAD[name]
    assert_refused(
        "quickstart.py", [argument.format(folder=folder) for argument in arguments], expected
    )


def test_bad_input_ends_the_process():
    done = quickstart("--epochs", "0")
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1].startswith("quickstart.py: --epochs has to be")
    assert "Traceback" not in done.stderr and "Epoch" not in done.stdout

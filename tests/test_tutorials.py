"""The tutorials on criteria, scopes and dynamic sparse training, as a user runs them."""

import json
import math
import re

import keras
import matplotlib.image
import numpy as np
import pytest
from tutorial_support import assert_refused, run_tutorial

CHOOSING, DYNAMIC = "choosing_a_criterion_and_scope.py", "dynamic_sparse_training.py"
SHRINKING = "shrinking_filters.py"
# The kernels of the tutorials' CNN on images of 8 x 8 x 1 and 10 classes.
KERNELS = {
    "conv_1": (3, 3, 1, 32),
    "conv_2": (3, 3, 32, 64),
    "hidden": (1024, 128),
    "output": (128, 10),
}


def assert_is_a_plot(path):
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] > 300 and pixels.shape[1] > 400
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20


def erk_shares(kept):
    """`{layer: weights left}` by the paper's formula, before they are rounded."""
    dense: set = set()
    while True:
        free = kept - sum(math.prod(KERNELS[name]) for name in dense)
        scale = free / sum(sum(shape) for name, shape in KERNELS.items() if name not in dense)
        shares = {
            name: math.prod(shape) if name in dense else scale * sum(shape)
            for name, shape in KERNELS.items()
        }
        over = {name for name, share in shares.items() if share > math.prod(KERNELS[name])}
        if not over:
            return shares
        dense |= over


@pytest.mark.slow
def test_choosing(tmp_path):
    arguments = ["--epochs", 4, "--sparsities", 0.95, 0.5, "--output", tmp_path]
    done = run_tutorial(CHOOSING, *arguments)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    criteria, scopes = results["criteria"], results["scopes"]
    assert list(criteria) == ["magnitude", "LAMP", "movement", "saliency", "taylor", "random"]
    assert set(scopes) == {"local", "ERK", "global"}
    assert scopes["global"] == criteria["magnitude"]

    sizes = {name: math.prod(shape) for name, shape in KERNELS.items()}
    total = sum(sizes.values())
    for name, runs in [*criteria.items(), *scopes.items()]:
        assert [run["asked"] for run in runs] == [0.5, 0.95]
        for run in runs:
            layers = {layer: size - zeros for layer, zeros, size in run["layers"]}
            assert {layer: size for layer, _, size in run["layers"]} == sizes
            if name == "local":
                assert layers == {n: round(size * (1 - run["asked"])) for n, size in sizes.items()}
            else:
                assert run["zeros"] == total - round(total * (1 - run["asked"]))
            if name == "ERK":
                for layer, share in erk_shares(round(total * (1 - run["asked"]))).items():
                    assert abs(layers[layer] - share) < 1

    # Far apart at 95 %: by tens of points, whatever the threads do to the last digits.
    accuracies = {name: runs[1]["accuracy"] for name, runs in {**criteria, **scopes}.items()}
    assert accuracies["random"] < 0.4 < 0.8 < min(accuracies["magnitude"], accuracies["taylor"])
    assert accuracies["local"] < accuracies["global"]
    rows = dict(re.findall(r"^│ (\w+) +│ +[\d.]+% │ +([\d.]+)% │$", done.stdout, re.MULTILINE))
    assert rows == {name: f"{100 * accuracy:.2f}" for name, accuracy in accuracies.items()}
    assert re.search(r"criteria at 0\.95, .* worse:.*\brandom by \d", done.stdout, re.DOTALL)
    for plot in ("accuracy.png", "layers.png"):
        assert_is_a_plot(tmp_path / plot)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small images in three colours, in a file such as --data takes."""
    folder = tmp_path_factory.mktemp("data")
    labels = np.arange(192) % 3
    images = np.random.default_rng(0).integers(0, 90, (192, 8, 8, 3)).astype("uint8")
    images[np.arange(192), ..., labels] += 100
    arrays = {"x_train": images, "x_test": images[:60], "y_train": labels, "y_test": labels[:60]}
    np.savez(folder / "colours.npz", **arrays)
    return folder


@pytest.mark.slow
def test_dynamic(folder, tmp_path):
    epochs, steps = 10, 30  # 192 images in batches of 64.
    arguments = ["--epochs", epochs, "--sparsities", 0.9, "--seeds", 1, "--output", tmp_path]
    done = run_tutorial(DYNAMIC, "--data", folder, *arguments)
    assert done.returncode == 0, done.stderr
    assert "bit for bit" in done.stdout
    found = json.loads((tmp_path / "results.json").read_text())["sparse"]
    assert list(found) == ["static", "SET", "SNFS", "RigL", "gradual"]
    runs = {}
    for method, ((result,)) in found.items():
        assert result["sparsity"] == 0.9
        (runs[method],) = result["runs"]

    total = 3 * 3 * 3 * 32 + 3 * 3 * 32 * 64 + 1024 * 128 + 128 * 3
    for run in runs.values():
        assert run["parameters"] == total
        assert run["connections"] == round(total * 0.1)
        assert 0 <= run["idle"] < run["connections"]
        assert 0 <= run["accuracy"] <= 1
    assert runs["static"]["steps"] == runs["gradual"]["steps"] == []
    assert runs["static"]["idle"] == 0
    for method in ("SET", "SNFS", "RigL"):
        run = runs[method]
        # One update a step, and none in the last quarter of the training.
        assert run["steps"][0] == 1 and run["steps"][-1] <= 0.75 * steps
        assert run["steps"] == sorted(set(run["steps"]))
        for step, moved in zip(run["steps"], run["moved"], strict=True):
            cosine = (1 + math.cos(math.pi * step / (0.75 * steps))) / 2
            share = 0.3 if method == "SET" else 0.3 * cosine
            assert 0 < moved <= share * run["connections"]
    rows = re.findall(r"^│ 0\.9 +│ (\w+) .*│ +([\d,]+) │$", done.stdout, re.MULTILINE)
    assert rows == [(method, f"{sum(run['moved']):,}") for method, run in runs.items()]
    assert_is_a_plot(tmp_path / "moves.png")

    import tfprune  # The file is of a wrapped model, half way.

    half = keras.saving.load_model(tmp_path / "half.keras")
    assert half.get_layer("hidden").pruning_step == steps // 2
    masks = [
        keras.ops.convert_to_numpy(weight.mask)
        for layer in half.layers
        if isinstance(layer, tfprune.PruneLowMagnitude)
        for weight in layer.pruned_weights
    ]
    assert sum(int(mask.sum()) for mask in masks) == round(total * 0.1)


@pytest.mark.slow
def test_shrinking(tmp_path):
    done = run_tutorial(SHRINKING, "--epochs", 2, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "32 channels of stem, block_00_b, block_01_b: 31 may go" in done.stdout
    assert "10 channels of output: they are the model's output" in done.stdout
    assert float(re.search(r"the same: (\S+) is", done.stdout).group(1)) < 1e-4
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found) == ["dense", "masked", "shrunk and tuned", "BatchNormalization folded"]
    dense, masked, small, folded = found.values()
    assert dense["macs"] == masked["macs"] and small["macs"] == folded["macs"]

    def parameters(narrow, wide, colors=1, classes=10):
        kernels = [(colors, narrow), *[(narrow, narrow)] * 4, (narrow, wide), *[(wide, wide)] * 4]
        norms = sum(4 * out for _, out in kernels)
        return 9 * sum(i * o for i, o in kernels) + norms + (wide + 1) * classes

    assert dense["parameters"] == parameters(32, 64)
    assert small["parameters"] == parameters(16, 32)
    assert folded["parameters"] == parameters(16, 32) - 3 * (5 * 16 + 5 * 32)
    assert small["file"] < dense["file"] / 2
    model = keras.saving.load_model(tmp_path / "small.keras")
    assert model.count_params() == folded["parameters"]
    assert_is_a_plot(tmp_path / "groups.png")


BAD = {
    "percentage": (["--sparsities", "0.5", "90"], "did you mean 0.9?"),
    "no such folder": (["--data", "nowhere"], "nowhere: neither digits"),
    "epochs": (["--epochs", "0"], "--epochs has to be at least 1"),
    "no number": (["--sparsities", "many"], "invalid float value: 'many'"),
}
CASES = [(name, *case) for name in (CHOOSING, DYNAMIC) for case in BAD.values()]
CASES += [
    (SHRINKING, ["--sparsity", "50"], "did you mean 0.5?"),
    (SHRINKING, ["--data", "nowhere"], "nowhere: neither digits"),
]
CASES.append((CHOOSING, ["--seed", "-1"], "--seed has to be at least 0"))
CASES.append(("pruning_a_language_model.py", ["--steps", "0"], "--steps has to be at least 1"))
CASES.append((DYNAMIC, ["--seeds", "0"], "--seeds has to be at least 1"))


@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_bad_input_is_one_line(name, arguments, expected):
    assert_refused(name, arguments, expected)


@pytest.mark.slow
def test_many_devices():
    pytest.importorskip("jax")
    done = run_tutorial("many_devices.py")
    assert done.returncode == 0, done.stderr
    # Four devices share each weight and its mask; the output layer is whole on each.
    (row,) = [line for line in done.stdout.splitlines() if "second/kernel" in line]
    assert row.count("(256, 64)") == 2 and "(256, 256)" in row
    (row,) = [line for line in done.stdout.splitlines() if "output/kernel" in line]
    assert row.count("(256, 10)") == 3
    assert float(done.stdout.rpartition(": ")[2]) > 0.8

"""Pictures of trainings and trade-offs: each point against the numbers given."""

import sys

import keras
import numpy as np
import pytest
from keras import layers
from picture_support import assert_readable

import tfprune
from tfprune import Latency


def lines(axes):
    """`{colour: [(x, y)]}` of the curves."""
    return {
        line.get_color(): [tuple(map(float, pair)) for pair in line.get_xydata()]
        for line in axes.lines
    }


BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"


@pytest.fixture(scope="module")
def history():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8), layers.Dense(1)])
    schedule = tfprune.PolynomialDecay(0.2, 0.8, begin_step=0, end_step=8, frequency=1)
    pruned = tfprune.prune_low_magnitude(model, schedule)
    pruned.compile("adam", "mse", metrics=["mae"])
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 4)), random.normal(size=(8, 1))
    return pruned.fit(
        x,
        y,
        batch_size=4,
        epochs=5,
        initial_epoch=1,
        validation_data=(x, y),
        validation_freq=2,
        verbose=0,
        callbacks=[tfprune.UpdatePruningStep()],
    )


def test_curves_of_a_real_training(history):
    known = history.history
    assert len(known["loss"]) == 4 and len(known["val_loss"]) == 2
    figure = tfprune.plot_training(history)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "mae", "sparsity"]
    for axes, name in zip(figure.axes[:2], ("loss", "mae"), strict=True):
        assert lines(axes) == {
            BLUE: list(zip([2, 3, 4, 5], known[name], strict=True)),
            RED: list(zip([2, 4], known[f"val_{name}"], strict=True)),
        }
    assert lines(figure.axes[2]) == {GREEN: list(zip([2, 3, 4, 5], known["sparsity"], strict=True))}
    texts = assert_readable(figure)
    assert {"training", "validation", "sparsity", "epoch"} <= set(texts)


def test_curves_of_a_dictionary():
    known = {"accuracy": [0.5, 0.6], "sparsity": [0.1, 0.2], "val_only": [1, 2], "loss": [3, 4]}
    figure = tfprune.plot_training(known)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy", "only", "sparsity"]
    assert lines(figure.axes[2]) == {RED: [(1, 1), (2, 2)]}
    assert [axes.get_xlim() for axes in figure.axes] == [(0.5, 2.5)] * 4
    assert len(tfprune.plot_training({"sparsity": [0.5]}).axes) == 1


@pytest.mark.parametrize("epochs", [1, 5, 300])
def test_curves_are_readable(epochs):
    values = np.linspace(1, 0.001, epochs)
    names = ["loss", "val_loss", "sparse_categorical_accuracy", "learning_rate", "sparsity"]
    assert_readable(tfprune.plot_training(dict.fromkeys(names, values)))


def test_curves_of_wrong_input(monkeypatch):
    for wrong in (None, [0.5], {"sparsity"}):
        with pytest.raises(TypeError, match="History or its dictionary"):
            tfprune.plot_training(wrong)
    for wrong in ({}, {"loss": [1.0]}, {"sparsity": []}, keras.callbacks.History()):
        if isinstance(wrong, keras.callbacks.History):
            wrong.on_train_begin()
            wrong.history = {}
        with pytest.raises(ValueError, match="UpdatePruningStep"):
            tfprune.plot_training(wrong)
    # A single value of three epochs may be of the second or of the third one.
    for wrong in ([1.0], [1.0] * 4, [[1.0]] * 3):
        with pytest.raises(ValueError, match="each of 3 epochs in 'val_loss'"):
            tfprune.plot_training({"sparsity": [0.1, 0.2, 0.3], "val_loss": wrong})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install \"tfprune\[plots\]\""):
        tfprune.plot_training({"sparsity": [0.5]})


# -- Trade-offs ------------------------------------------------------------------------------------


def ranges(axes):
    """Start and end of each thin line."""
    return [part.tolist() for lines in axes.collections for part in lines.get_segments()]


def test_median_and_range_of_several_runs():
    points = {
        "one": [(0.9, 0.7), (0.5, 0.9), (0.9, 0.8), (0.9, 0.75)],
        "two": [(0.5, 0.6), (0.5, 0.8)],
    }
    figure = tfprune.plot_tradeoff(points)
    (axes,) = figure.axes
    assert lines(axes) == {BLUE: [(0.5, 0.9), (0.9, 0.75)], RED: [(0.5, pytest.approx(0.7))]}
    assert ranges(axes) == [[[0.9, 0.7], [0.9, 0.8]], [[0.5, 0.6], [0.5, 0.8]]]
    texts = assert_readable(figure)
    assert {"one", "two", "sparsity", "accuracy", "Accuracy against sparsity"} <= set(texts)
    assert "median, and the range of several runs" in texts


def test_latencies_are_drawn_in_milliseconds():
    points = {"a": [(Latency(0.02, 0.015, 0.03, 10, 1), 0.9), (0.01, 0.8)]}
    figure = tfprune.plot_tradeoff(points, x="latency", y="mean_iou")
    (axes,) = figure.axes
    assert lines(axes) == {BLUE: [(10, 0.8), (20, 0.9)]}
    assert ranges(axes) == [[[15, 0.9], [30, 0.9]]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latency in ms", "mean iou")
    turned = tfprune.plot_tradeoff({"a": [(0.5, Latency(2, 1, 4, 10, 1))]}, y="latency").axes[0]
    assert lines(turned) == {BLUE: [(0.5, 2000)]} and ranges(turned) == [[[0.5, 1000], [0.5, 4000]]]


def test_other_numbers_are_drawn_as_they_are():
    figure = tfprune.plot_tradeoff({"a": [(3e6, 90), (1e6, -4.5)]}, x="MACs", y="score")
    assert lines(figure.axes[0]) == {BLUE: [(1e6, -4.5), (3e6, 90)]}
    assert figure.axes[0].get_xlabel() == "MACs"


@pytest.mark.parametrize("number", [1, 4, 12])
def test_trade_offs_are_readable(number):
    points = {
        f"criterion number {n}": [(s, 1 - s * n / 20) for s in (0.1, 0.5, 0.9)]
        for n in range(number)
    }
    figure = tfprune.plot_tradeoff(points)
    assert_readable(figure)
    styles = {(line.get_color(), line.get_marker()) for line in figure.axes[0].lines}
    assert len(styles) == number


def test_trade_offs_of_wrong_input(tmp_path, monkeypatch):
    latency = Latency(0.02, 0.015, 0.03, 10, 1)
    for wrong in (
        None,
        [(0.5, 0.9)],
        {"a": 3},
        {"a": [0.5]},
        {"a": [(0.5,)]},
        {"a": [("x", 0.9)]},
        {"a": [(0.5, True)]},
        {"a": [(latency, 0.9)]},
    ):
        with pytest.raises(TypeError, match=r"Expected .* Received"):
            tfprune.plot_tradeoff(wrong, tmp_path / "picture.png")
    for wrong in ({}, {"a": []}, {"a": [(90, 0.5)]}, {"a": [(0.5, float("nan"))]}):
        with pytest.raises(ValueError, match=r"Expected .* Received"):
            tfprune.plot_tradeoff(wrong, tmp_path / "picture.png")
    with pytest.raises(ValueError, match="seconds"):
        tfprune.plot_tradeoff({"a": [(-1, 0.5)]}, x="latency")
    for argument in ("x", "y"):
        with pytest.raises(TypeError, match=f"`{argument}` to be the label"):
            tfprune.plot_tradeoff({"a": [(0.5, 0.5)]}, **{argument: 3})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install \"tfprune\[plots\]\""):
        tfprune.plot_tradeoff({"a": [(0.5, 0.5)]})


def test_pictures_are_saved(tmp_path):
    for ending in ("png", "svg", "pdf"):
        for name, draw in (
            ("training", lambda path: tfprune.plot_training({"sparsity": [0.5, 0.6]}, path)),
            ("tradeoff", lambda path: tfprune.plot_tradeoff({"a": [(0.5, 0.5)]}, path)),
        ):
            path = tmp_path / f"{name}.{ending}"
            draw(path)
            assert path.stat().st_size > 5000

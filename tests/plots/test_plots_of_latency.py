"""Plots of widths and of seconds: every bar is compared with its number."""

import keras
import pytest
from keras import layers

import tfprune


def bars(axes):
    return [(round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in axes.patches]


def test_channels_before_and_after(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="stem")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(9, 1, name="point")(x)
    outputs = layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    small = tfprune.remove_channels(model, {"stem": [0], "point": [1, 2, 3]})
    figure = tfprune.plot_channels(model, small, tmp_path / "channels.png")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stem", "point", "head"]
    assert bars(axes) == [(0, 6), (0, 5), (1, 9), (1, 6), (2, 4), (2, 4)]
    assert [text.get_text() for text in axes.texts] == ["6 → 5", "9 → 6", "4"]
    assert (tmp_path / "channels.png").stat().st_size > 5000
    relu = keras.Sequential([keras.Input((3,)), layers.ReLU()])
    with pytest.raises(ValueError, match="which has none"):
        tfprune.plot_channels(relu, relu)
    with pytest.raises(TypeError, match="after=int"):
        tfprune.plot_channels(model, 3)


def test_milliseconds_by_batch_size():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    found = tfprune.compare_latency({"one": model, "two": model}, [1, 4], runs=3)
    figure = tfprune.plot_latency(found)
    assert [axes.get_title() for axes in figure.axes] == ["batch size 1", "batch size 4"]
    for axes, size in zip(figure.axes, (1, 4), strict=True):
        expected = [(n, 1000 * found[name][size].median) for n, name in enumerate(found)]
        assert bars(axes) == pytest.approx(expected)
    assert "1 thread, median (quartiles) of 3 runs" in figure.get_suptitle()
    with pytest.raises(TypeError, match="compare_latency"):
        tfprune.plot_latency({"one": 3})

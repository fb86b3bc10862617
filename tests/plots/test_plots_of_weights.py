"""Pictures of sparsity, weights and masks: what is drawn against the weights themselves."""

import sys

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.image import imread
from picture_support import assert_readable

import tfprune
from tfprune._reports import prunable_weights

pytestmark = pytest.mark.usefixtures("fresh")

HALF = tfprune.ConstantSparsity(0.5, begin_step=0)
# Depthwise kernels are exempt by default.
EVERY_KERNEL = tfprune.Rule(layers.DepthwiseConv2D)


def mixed():
    inputs = keras.Input((10, 10, 3))
    x = layers.Conv2D(4, (2, 3), name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Reshape((-1, 4))(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.LSTM(5, name="lstm")(x)
    return keras.Model(inputs, layers.Dense(6, name="last")(x), name="mixed")


NAMES = [
    "conv",
    "depthwise",
    "attention/query",
    "attention/key",
    "attention/value",
    "attention/attention_output",
    "lstm/lstm_cell",
    "last",
]
WEIGHTS = [*NAMES[:6], "lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel", "last"]


def zeroed(model, shares):
    """A copy of a model with about a share of zeros in each weight, chosen by chance."""
    new = keras.models.clone_model(model)
    new.set_weights(model.get_weights())
    random = np.random.default_rng(0)
    for number, weight in enumerate(prunable_weights.find(new)):
        value = weight.variable.numpy()
        value[random.random(value.shape) < shares[number % len(shares)]] = 0
        weight.variable.assign(value)
    return new


def deep(number):
    """Many layers with long names."""
    inputs = x = keras.Input((4,))
    for block in range(number):
        x = layers.Dense(4, name=f"stage_of_the_network_{block}_block_with_a_very_long_name")(x)
    return keras.Model(inputs, x)


def bars(figure):
    """`{layer: [length of each bar]}`."""
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    found = {name: [] for name in names}
    for bar in axes.patches:
        found[names[round(bar.get_y() + bar.get_height() / 2)]].append(bar.get_width())
    return found


# -- Weights that can be pruned --------------------------------------------------------------------


def test_weights_have_the_same_names_wrapped_or_not():
    model = mixed()
    wrapped = tfprune.prune_low_magnitude(model, HALF, rules=EVERY_KERNEL)
    for one in (model, wrapped, tfprune.strip_pruning(wrapped)):
        found = prunable_weights.find(one)
        assert [weight.name for weight in found] == WEIGHTS
        assert list(dict.fromkeys(weight.path for weight in found)) == NAMES
        assert all((weight.mask is not None) == (one is wrapped) for weight in found)


def test_weights_of_a_subclassed_model_and_of_a_layer():
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first = layers.Dense(3, name="first")

        def build(self, shape):
            self.first.build(shape)
            super().build(shape)

        def call(self, inputs):
            return self.first(inputs)

    model = Own()
    model.build((None, 4))
    wrapped = tfprune.prune_low_magnitude(model, HALF)
    assert isinstance(wrapped, Own)
    for one in (model, wrapped):
        assert [weight.name for weight in prunable_weights.find(one)] == ["first"]
    assert list(bars(tfprune.plot_sparsity({"a": model, "b": wrapped}))) == ["first"]
    layer = tfprune.PruneLowMagnitude(layers.Dense(3, name="alone"), HALF)
    layer.build((None, 4))
    (found,) = prunable_weights.find(layer)
    assert found.name == "alone" and found.mask is not None


def test_weights_are_chosen_by_path_name_or_weight():
    found = prunable_weights.find(mixed())
    for names, expected in (
        (None, WEIGHTS),
        ("query", ["attention/query"]),
        (["last", "conv"], ["conv", "last"]),
        ("lstm_cell", WEIGHTS[6:8]),
        (("lstm/lstm_cell/kernel",), WEIGHTS[6:7]),
    ):
        assert [weight.name for weight in prunable_weights.chosen(found, names)] == expected
    for wrong in ("nobody", [], ["conv", "nobody"]):
        with pytest.raises(ValueError, match="The model has: conv, depthwise"):
            prunable_weights.chosen(found, wrong)
    for wrong in (3, [3], {"conv"}):
        with pytest.raises(TypeError, match="names of layers"):
            prunable_weights.chosen(found, wrong)


def test_a_shared_layer_is_found_once():
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, shared(shared(inputs)))
    assert [weight.name for weight in prunable_weights.find(model)] == ["shared"]


# -- Sparsity --------------------------------------------------------------------------------------


def test_bars_are_the_sparsities_of_the_report():
    model = mixed()
    some, more = zeroed(model, [0.0, 0.5, 0.9]), zeroed(model, [0.3])
    reports = [tfprune.sparsity_report(one) for one in (some, more)]
    expected = {
        one.layer: [one.sparsity, other.sparsity]
        for one, other in zip(*(report.rows for report in reports), strict=True)
    }
    figure = tfprune.plot_sparsity({"some": some, "more": reports[1]})
    assert bars(figure) == expected and list(expected) == NAMES
    labels = [text.get_text() for text in figure.axes[0].texts]
    rows = [row for report in reports for row in report.rows]
    assert labels == [f"{row.sparsity:.1%}" for row in rows]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    count = reports[0].prunable.parameters
    assert legend[0] == f"some: {reports[0].sparsity:.1%} of {count:,} prunable weights"
    assert bars(tfprune.plot_sparsity(some)) == {name: [one] for name, (one, _) in expected.items()}


def test_a_layer_that_only_one_model_has():
    one = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(4, name="b")]
    )
    other = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="b")])
    drawn = bars(tfprune.plot_sparsity({"one": zeroed(one, [0.5]), "other": other}))
    assert [len(lengths) for lengths in drawn.values()] == [1, 2]


def test_almost_all_does_not_read_as_all():
    model = keras.Sequential([keras.Input((100,)), layers.Dense(40), layers.Dense(50)])
    for layer, zeros in zip(model.layers, (3999, 1), strict=True):
        value = np.ones(layer.kernel.shape)
        value.reshape(-1)[:zeros] = 0
        layer.kernel.assign(value)
    texts = [text.get_text() for text in tfprune.plot_sparsity(model).axes[0].texts]
    assert texts == [">99.9%", "0.1%"]


@pytest.mark.parametrize("models", [1, 3, 6])
@pytest.mark.parametrize("number", [1, 20])
def test_bars_are_readable(models, number):
    model = deep(number)
    given = {f"model {n}": zeroed(model, [0.2 * n, 0.99]) for n in range(models)}
    texts = assert_readable(tfprune.plot_sparsity(given))
    assert len(texts) >= number * (1 + models) + models


# -- Weights ---------------------------------------------------------------------------------------


def heights(axes):
    """`[(counts, edges)]` of the histograms, before and after."""
    steps = [patch.get_data() for patch in axes.patches]
    return [(step.values, step.edges) for step in steps]


def test_histograms_count_all_that_is_not_zero():
    before = mixed()
    after = zeroed(before, [0.9, 0.4])
    figure = tfprune.plot_weights(before, after)
    assert [axes.get_title() for axes in figure.axes] == WEIGHTS
    pairs = zip(*(prunable_weights.find(model) for model in (before, after)), strict=True)
    for axes, (old, new) in zip(figure.axes, pairs, strict=True):
        values = [weight.variable.numpy().reshape(-1) for weight in (old, new)]
        for (counts, edges), given in zip(heights(axes), values, strict=True):
            expected = np.histogram(given[given != 0], edges)[0]
            assert counts.tolist() == expected.tolist()
            assert counts.sum() == np.count_nonzero(given)
        shares = " → ".join(f"{np.mean(given == 0):.1%}" for given in values)
        assert [text.get_text() for text in axes.texts] == [f"zeros: {shares}"]


def test_histograms_of_a_shrunk_model_and_of_some_layers():
    before = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, name="a"), layers.Dense(2, name="b")]
    )
    after = tfprune.remove_channels(before, {"a": [0, 1, 2]})
    figure = tfprune.plot_weights(before, after, "a")
    (axes,) = figure.axes
    assert [counts.sum() for counts, _ in heights(axes)] == [48, 24]


def test_histograms_of_nothing_but_zeros():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="a")])
    model.layers[0].kernel.assign(np.zeros((4, 4)))
    (axes,) = tfprune.plot_weights(model, model).axes
    assert [counts.sum() for counts, _ in heights(axes)] == [0, 0]
    assert axes.texts[0].get_text() == "zeros: 100.0% → 100.0%"


@pytest.mark.parametrize("number", [1, 2, 13])
def test_histograms_are_readable(number):
    model = deep(number)
    texts = assert_readable(tfprune.plot_weights(model, zeroed(model, [0.8])))
    assert sum("zeros:" in text for text in texts) == number


def test_histograms_of_wrong_input():
    model = mixed()
    other = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="else")])
    with pytest.raises(ValueError, match="none in common"):
        tfprune.plot_weights(model, other)
    with pytest.raises(ValueError, match="nobody"):
        tfprune.plot_weights(model, model, "nobody")
    for pair in ((3, model), (model, 3)):
        with pytest.raises(TypeError, match="Keras 3"):
            tfprune.plot_weights(*pair)
    value = other.layers[0].kernel.numpy()
    value[0, 0] = np.nan
    other.layers[0].kernel.assign(value)
    with pytest.raises(ValueError, match="finite weights in else"):
        tfprune.plot_weights(other, other)


# -- Masks -----------------------------------------------------------------------------------------


def pixels(figure, number=0):
    return np.ma.filled(figure.axes[number].images[0].get_array(), np.nan)


def test_mask_of_a_matrix_is_the_matrix():
    model = zeroed(mixed(), [0.5])
    kernel = model.get_layer("last").kernel.numpy()
    figure = tfprune.plot_mask(model, "last")
    assert pixels(figure).tolist() == (kernel != 0).astype(float).tolist()
    title = figure.axes[0].get_title()
    assert title == f"last\n5x6, sparsity {np.mean(kernel == 0):.1%}"


def test_mask_of_a_convolution_is_a_grid_of_windows():
    model = zeroed(mixed(), [0.5])
    kernel = model.get_layer("conv").kernel.numpy() != 0
    drawn = pixels(tfprune.plot_mask(model, "conv"))
    assert drawn.shape == (3 * 2, 4 * 3)
    for place in range(3):
        for output in range(4):
            window = drawn[2 * place : 2 * place + 2, 3 * output : 3 * output + 3]
            assert window.tolist() == kernel[:, :, place, output].astype(float).tolist()


def test_mask_of_a_depthwise_convolution_has_its_windows_row_by_row():
    model = zeroed(mixed(), [0.5])
    kernel = model.get_layer("depthwise").kernel.numpy() != 0
    drawn = pixels(tfprune.plot_mask(model, "depthwise"))
    assert drawn.shape == (6, 6)
    for channel, (row, column) in enumerate([(0, 0), (0, 3), (3, 0), (3, 3)]):
        window = drawn[row : row + 3, column : column + 3]
        assert window.tolist() == kernel[:, :, channel, 0].astype(float).tolist()


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (lambda: layers.Conv1D(3, 2, name="x"), (5, 4), (4 * 2, 3)),
        (lambda: layers.Conv3D(2, (2, 3, 2), name="x"), (4, 4, 4, 3), (3 * 6, 2 * 2)),
        (lambda: layers.Conv2DTranspose(4, 3, name="x"), (5, 5, 2), (2 * 3, 4 * 3)),
        (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), name="x"), (5, 4), (4, 6)),
        (lambda: layers.Embedding(7, 3, name="x"), (5,), (7, 3)),
    ],
)
def test_every_weight_is_drawn_once(layer, shape, expected):
    model = keras.Sequential([keras.Input(shape), layer()])
    model = zeroed(model, [0.6])
    drawn = pixels(tfprune.plot_mask(model, "x"))
    (weight,) = prunable_weights.find(model)
    assert drawn.shape == expected
    assert drawn.sum() == np.count_nonzero(weight.variable.numpy())


@pytest.mark.parametrize("pattern", ["filter", "channel", "kernel"])
def test_patterns_show(pattern):
    model = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(8, 3, name="x")])
    kernel = model.layers[0].kernel.numpy()
    mask = tfprune.compute_mask(kernel, 0.5, pattern=pattern)
    model.layers[0].kernel.assign(np.where(mask, kernel, 0))
    drawn = pixels(tfprune.plot_mask(model))
    windows = drawn.reshape(4, 3, 8, 3).transpose(0, 2, 1, 3).reshape(4, 8, 9)
    assert (windows.min(-1) == windows.max(-1)).all()
    whole = windows[..., 0]
    if pattern == "filter":
        assert (whole.min(0) == whole.max(0)).all() and whole[0].sum() == 4
    elif pattern == "channel":
        assert (whole.min(1) == whole.max(1)).all() and whole[:, 0].sum() == 2
    else:
        assert whole.sum() == 16


def test_mask_of_a_wrapped_layer_and_not_its_zeros():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="x")])
    wrapped = tfprune.prune_low_magnitude(model, HALF)
    (weight,) = wrapped.layers[-1].pruned_weights
    mask = np.eye(4, dtype=bool)
    weight.set_mask(mask)
    weight.variable.assign(np.zeros((4, 4)))
    assert pixels(tfprune.plot_mask(wrapped)).tolist() == mask.astype(float).tolist()


@pytest.mark.parametrize("shape", [(700, 500), (2000, 3), (290, 288)])
def test_a_large_matrix_is_drawn_as_means(shape):
    model = keras.Sequential([keras.Input(shape[:1]), layers.Dense(shape[1], name="x")])
    model = zeroed(model, [0.7])
    kept = model.layers[0].kernel.numpy() != 0
    figure = tfprune.plot_mask(model)
    drawn = pixels(figure)
    steps = [-(-size // 288) for size in shape]
    assert drawn.shape == tuple(-(-n // step) for n, step in zip(shape, steps, strict=True))
    corner = kept[: steps[0], : steps[1]].mean()
    end = kept[(drawn.shape[0] - 1) * steps[0] :, (drawn.shape[1] - 1) * steps[1] :].mean()
    np.testing.assert_allclose([drawn[0, 0], drawn[-1, -1]], [corner, end], rtol=1e-6)
    note = f"a dot is the mean of {steps[0]}x{steps[1]} weights"
    assert figure.axes[0].get_xlabel().endswith(note)
    # The scale of the densities has axes of its own.
    assert figure.axes[1].get_xlabel() == "share of weights kept"


def test_a_large_convolution_is_drawn_by_whole_windows():
    model = keras.Sequential([keras.Input((9, 9, 40)), layers.Conv2D(200, 3, name="x")])
    model = zeroed(model, [0.5])
    kept = model.layers[0].kernel.numpy() != 0
    figure = tfprune.plot_mask(model)
    np.testing.assert_allclose(pixels(figure), kept.mean(axis=(0, 1)), rtol=1e-6)
    assert figure.axes[0].get_xlabel().endswith("a dot is the mean of a window of 3x3")


def test_a_large_depthwise_convolution_leaves_the_rest_of_its_last_row_empty():
    model = keras.Sequential([keras.Input((5, 5, 10001)), layers.DepthwiseConv2D(3, name="x")])
    model = zeroed(model, [0.5])
    kept = model.layers[0].kernel.numpy() != 0
    drawn = pixels(tfprune.plot_mask(model))
    assert np.isfinite(drawn).sum() == 10001
    np.testing.assert_allclose(
        drawn[np.isfinite(drawn)], kept.mean(axis=(0, 1)).reshape(-1), rtol=1e-6
    )


def test_masks_are_readable():
    figure = tfprune.plot_mask(zeroed(mixed(), [0.5, 0.9]))
    texts = assert_readable(figure)
    assert [text.split("\n")[0] for text in texts if "sparsity" in text] == WEIGHTS
    big = layers.Dense(300, name="another_layer_with_a_name_that_is_too_long_for_a_picture")
    assert_readable(tfprune.plot_mask(keras.Sequential([keras.Input((300,)), big, big])))
    assert_readable(tfprune.plot_mask(keras.Sequential([keras.Input((2,)), layers.Dense(100)])))


# -- All of them -----------------------------------------------------------------------------------

ALL = {
    "sparsity": tfprune.plot_sparsity,
    "weights": lambda model, path=None: tfprune.plot_weights(model, model, path=path),
    "mask": lambda model, path=None: tfprune.plot_mask(model, path=path),
}


@pytest.mark.parametrize("name", ALL)
def test_pictures_are_saved_and_the_model_is_left_alone(tmp_path, name):
    model = zeroed(mixed(), [0.5])
    before = [weight.numpy() for weight in model.weights]
    open_before = _open_figures()
    for ending in ("svg", "png"):
        path = tmp_path / f"picture.{ending}"
        ALL[name](model, path)
        assert path.stat().st_size > 5000
    image = imread(tmp_path / "picture.png")[..., :3]
    blue = [0, 0x72 / 255, 0xB2 / 255]
    assert (np.abs(image - blue).max(axis=-1) < 0.01).sum() > 300
    assert (image == 1).all(axis=-1).mean() > 0.3
    assert _open_figures() == open_before
    for old, new in zip(before, model.weights, strict=True):
        assert np.array_equal(old, new.numpy())


def _open_figures():
    pyplot = sys.modules.get("matplotlib.pyplot")
    return [] if pyplot is None else pyplot.get_fignums()


@pytest.mark.parametrize("name", ALL)
def test_bad_input_and_no_matplotlib(name, monkeypatch):
    draw = ALL[name]
    with pytest.raises(TypeError, match="Keras 3"):
        draw(3)
    with pytest.raises(ValueError, match=r"prunable weight|weights that can be pruned"):
        draw(keras.Sequential([keras.Input((3,)), layers.ReLU()]))
    with pytest.raises(ValueError, match="built"):
        draw(keras.Sequential([layers.Dense(3)]))
    model = deep(1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install \"tfprune\[plots\]\""):
        draw(model)


def test_number_of_models():
    model = deep(1)
    for number in (0, 7):
        with pytest.raises(ValueError, match="1 to 6 models"):
            tfprune.plot_sparsity({str(n): model for n in range(number)})
    with pytest.raises(ValueError, match="'nobody'"):
        tfprune.plot_mask(model, "nobody")
    with pytest.raises(TypeError, match="`layers` to be names"):
        tfprune.plot_mask(model, 3)

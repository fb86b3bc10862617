"""Group lasso: value and gradient against NumPy, and what it does in training."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from keras_support import outputs

import tfprune
from tfprune.patterns import KernelAxes

BACKEND = keras.backend.backend()
SHAPES = {"dense": (6, 5), "conv": (3, 2, 4, 6)}
# Which axes a unit spans, in a Dense kernel and in a convolution.
SPANS = {
    "filter": ((0,), (0, 1, 2)),
    "channel": ((1,), (0, 1, 3)),
    "kernel": ((), (0, 1)),
    "row": ((1,), (1,)),
    "column": ((0,), (0,)),
    tfprune.Slice((0, -1)): ((0, 1), (0, 3)),
}
CASES = [
    pytest.param(pattern, kind, span, id=f"{pattern}-{kind}")
    for pattern, spans in SPANS.items()
    for kind, span in zip(SHAPES, spans, strict=True)
]


def kernel_of(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def of_spans(weight, span):
    """The penalty and its gradient by the definition."""
    weight = weight.astype("float64")
    size = np.prod([weight.shape[axis] for axis in span])
    norms = np.sqrt((weight**2).sum(axis=span, keepdims=True))
    unit = np.divide(weight, norms, out=np.zeros_like(weight), where=norms > 0)
    return np.sqrt(size) * norms.sum(), np.sqrt(size) * unit


def of_blocks(weight, height, width):
    """The same for blocks, one after the other, those cut off at the edges included."""
    weight = weight.astype("float64")
    total, gradient = 0.0, np.zeros_like(weight)
    for position in np.ndindex(weight.shape[:-2]):
        for row in range(0, weight.shape[-2], height):
            for column in range(0, weight.shape[-1], width):
                part = (*position, slice(row, row + height), slice(column, column + width))
                block = weight[part]
                norm = np.linalg.norm(block)
                total += np.sqrt(block.size) * norm
                if norm:
                    gradient[part] = np.sqrt(block.size) * block / norm
    return total, gradient


def gradient_of(function, value):
    """The gradient of a function of one array, by the backend's own means."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(value)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x).numpy()
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(function)(value))
    import torch

    x = torch.tensor(value, requires_grad=True)
    function(x).backward()
    return x.grad.numpy()


def check_penalty(penalty, weight, truth):
    value, gradient = truth
    strength = penalty.strength
    found = ops.convert_to_numpy(penalty(weight))
    assert found.shape == () and found.dtype == np.float32
    np.testing.assert_allclose(found, strength * value, rtol=1e-5)
    with np.errstate(all="raise"):
        found = gradient_of(penalty, weight)
    np.testing.assert_allclose(found, strength * gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("pattern", "kind", "span"), CASES)
def test_slices(pattern, kind, span):
    weight = kernel_of(SHAPES[kind])
    check_penalty(tfprune.GroupLasso(0.3, pattern), weight, of_spans(weight, span))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("block", [(1, 1), (2, 3), (4, 4), (3, 5)])
def test_blocks(block, kind):
    weight = kernel_of(SHAPES[kind])
    penalty = tfprune.GroupLasso(0.3, tfprune.Block(block))
    check_penalty(penalty, weight, of_blocks(weight, *block))


def test_by_hand():
    # sqrt(2) * 5 + sqrt(2) * 13
    found = tfprune.GroupLasso(2.0)(np.array([[3.0, 5.0], [4.0, 12.0]], dtype="float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(found), 2 * 2**0.5 * 18, rtol=1e-6)


def test_axes_say_what_the_outputs_are():
    weight = kernel_of((3, 3, 5, 4))
    transposed = KernelAxes((-1,), (-2,))
    penalty = tfprune.GroupLasso(1.0, "filter", axes=transposed)
    check_penalty(penalty, weight, of_spans(weight, (0, 1, 3)))
    blocks = tfprune.GroupLasso(1.0, tfprune.Block((2, 3)), axes=transposed)
    value, gradient = of_blocks(weight.swapaxes(-1, -2), 2, 3)
    check_penalty(blocks, weight, (value, gradient.swapaxes(-1, -2)))


@pytest.mark.parametrize("pattern", [*SPANS, tfprune.Block((2, 2))], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradient_is_the_slope(pattern, shape):
    """Central differences of the penalty itself, along random directions."""
    weight = kernel_of(shape)
    penalty = tfprune.GroupLasso(1.0, pattern)
    gradient = gradient_of(penalty, weight)
    for seed in range(3):
        direction = kernel_of(shape, 10 + seed)
        above, below = (
            float(ops.convert_to_numpy(penalty(weight + sign * 1e-2 * direction)))
            for sign in (1, -1)
        )
        slope = (above - below) / 2e-2
        expected = float((gradient * direction).sum())
        assert abs(slope - expected) < 0.02 * np.abs(gradient * direction).sum()


@pytest.mark.parametrize("pattern", [*SPANS, tfprune.Block((2, 2))], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_units_at_zero_have_no_gradient(pattern, shape):
    weight = kernel_of(shape)
    mask = tfprune.compute_mask(weight, 0.5, pattern=pattern)
    penalty = tfprune.GroupLasso(1.0, pattern)
    found = gradient_of(penalty, np.where(mask, weight, 0).astype("float32"))
    assert np.isfinite(found).all() and not found[~mask].any()
    if not mask.all():
        assert found[mask].all()
    none = np.zeros(shape, dtype="float32")
    assert not gradient_of(penalty, none).any()
    assert float(ops.convert_to_numpy(penalty(none))) == 0


def teacher():
    """Data whose targets need three of sixteen hidden units."""
    random = np.random.default_rng(0)
    x = random.normal(size=(512, 8)).astype("float32")
    hidden = np.maximum(x @ random.normal(size=(8, 3)), 0)
    return x, (hidden @ random.normal(size=(3, 1))).astype("float32")


def trained(regularizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu", kernel_regularizer=regularizer, name="hidden"),
            keras.layers.Dense(1, name="last"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x, y = teacher()
    model.fit(x, y, batch_size=32, epochs=40, verbose=0)
    norms = np.linalg.norm(ops.convert_to_numpy(model.get_layer("hidden").kernel), axis=0)
    return model, norms / norms.max()


def test_training_drives_whole_filters_towards_zero():
    model, norms = trained(tfprune.GroupLasso(0.02, "filter"))
    _, without = trained(None)
    small = int((norms < 0.02).sum())
    assert small >= 6 and (without < 0.02).sum() == 0
    # They can go at once, and the model predicts as before. The penalty is on the kernel alone, and
    # so is the mask here: the biases of these units are not small.
    pruned = tfprune.prune_low_magnitude(
        model,
        tfprune.ConstantSparsity(small / 16, begin_step=0),
        pattern=tfprune.Filter(coupled=False),
        rules=[tfprune.Rule("last", prune=False)],
    )
    tfprune.UpdatePruningStep(pruned)
    x, y = teacher()
    before, after = (outputs(m, x) for m in (model, pruned))
    assert np.abs(before - after).max() < 0.05 * y.std()
    # Training on with pruned units neither revives them nor breaks anything.
    pruned.compile("adam", "mse")
    history = pruned.fit(x, y, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    assert np.isfinite(history.history["loss"]).all()
    kernel = ops.convert_to_numpy(tfprune.strip_pruning(pruned).get_layer("hidden").kernel)
    assert (np.abs(kernel).sum(axis=0) == 0).sum() == small


@pytest.mark.parametrize(
    "penalty",
    [
        tfprune.GroupLasso(0.1),
        tfprune.GroupLasso(0.1, tfprune.Block((2, 3))),
        tfprune.GroupLasso(0.1, tfprune.Slice((0,)), KernelAxes((0,), (1,))),
    ],
    ids=["filter", "block", "axes"],
)
def test_saved_with_the_layer(penalty, tmp_path):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(penalty)))
    assert config["registered_name"] == "tfprune>GroupLasso"
    back = keras.saving.deserialize_keras_object(config)
    assert back.get_config() == penalty.get_config()
    assert (back.strength, back.pattern, back.axes) == (
        penalty.strength,
        penalty.pattern,
        penalty.axes,
    )
    layer = keras.layers.Dense(6, kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(loaded.losses[0]) == float(model.losses[0]) > 0


@pytest.mark.parametrize(
    ("arguments", "error", "line"),
    [
        ({"strength": -1}, ValueError, "Expected `strength`.*Received: strength=-1"),
        ({"strength": float("nan")}, ValueError, "Expected `strength`.*Received: strength=nan"),
        ({"strength": "1"}, TypeError, "Expected `strength`.*Received: strength='1'"),
        ({"strength": True}, TypeError, "Expected `strength`.*Received: strength=True"),
        ({"strength": 1, "pattern": "n_of_m"}, ValueError, r"slice pattern or Block.*keras\.reg"),
        ({"strength": 1, "pattern": "unstructured"}, ValueError, r"slice pattern.*L1"),
        ({"strength": 1, "pattern": "filters"}, ValueError, "Expected `pattern` to be one of"),
        ({"strength": 1, "axes": (0, 1)}, TypeError, r"Expected `axes`.*Received: axes=\(0, 1\)"),
    ],
)
def test_bad_input(arguments, error, line):
    with pytest.raises(error, match=line):
        tfprune.GroupLasso(**arguments)


def test_a_pattern_that_does_not_fit_the_weight():
    layer = keras.layers.Dense(2, kernel_regularizer=tfprune.GroupLasso(1, tfprune.Block((4, 4))))
    model = keras.Sequential([keras.Input((4,)), layer])
    with pytest.raises(ValueError, match=r"a block no larger than the weight"):
        model.losses  # noqa: B018

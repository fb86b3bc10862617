"""ADMM, step by step against plain NumPy, on every backend; saved and resumed exactly.

KERAS_BACKEND=jax python -m pytest tests/pruners/test_admm.py
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune import pruners

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(16, 6)).astype("float32")
Y = (X @ RANDOM.normal(size=(6, 2))).astype("float32")
RATE = 0.05


def two_layers():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, use_bias=False, name="first"),
            layers.Dense(2, use_bias=False, name="second"),
        ]
    )


def array(value):
    return np.array(ops.convert_to_numpy(value))


def kernels(model):
    return [array(value) for value in tfprune.strip_pruning(model).get_weights()]


def nearest(moved, sparsity):
    """The nearest point with so many zeros: the smallest magnitudes go."""
    zeros = moved.size - round(moved.size * (1 - sparsity))
    kept = np.ones(moved.size, bool)
    kept[np.argsort(np.abs(moved).ravel(), kind="stable")[:zeros]] = False
    return np.where(kept.reshape(moved.shape), moved, 0)


def by_hand(weights, steps, sparsity, end, rho, growth, every):
    """ADMM on a linear network of two layers, with gradients written out, in float64."""
    first, second = (np.array(w, "float64") for w in weights)
    aims = [nearest(w, sparsity) for w in (first, second)]
    duals = [np.zeros_like(w) for w in (first, second)]
    masks, residuals = [1, 1], []
    for step in range(steps):
        if step and step % every == 0 and step < end:
            before = [a + u for a, u in zip(aims, duals, strict=True)]
            projected = [
                nearest(w + u, sparsity) for w, u in zip((first, second), duals, strict=True)
            ]
            away = [w - z for w, z in zip((first, second), projected, strict=True)]
            change = sum(np.sum((z - b) ** 2) for z, b in zip(projected, before, strict=True))
            residuals.append((np.sqrt(sum(np.sum(a**2) for a in away)), rho * np.sqrt(change)))
            duals = [(u + a) / growth for u, a in zip(duals, away, strict=True)]
            aims = [z - u for z, u in zip(projected, duals, strict=True)]
            rho *= growth
        error = 2 * (X @ first @ second - Y) / Y.size
        gradients = [X.T @ error @ second.T, (X @ first).T @ error]
        if step < end:
            pulls = zip(gradients, (first, second), aims, strict=True)
            gradients = [g + rho * (w - a) for g, w, a in pulls]
        first = (first - RATE * gradients[0]) * masks[0]
        second = (second - RATE * gradients[1]) * masks[1]
        if step + 1 == end:
            # The masks are of W + U.
            moved = [w + u for w, u in zip((first, second), duals, strict=True)]
            masks = [nearest(m, sparsity) != 0 for m in moved]
            first, second = first * masks[0], second * masks[1]
    return [first, second], residuals


def trained(model, admm, epochs, initial=0, **options):
    model.compile(keras.optimizers.SGD(RATE), "mse", **options)
    return model.fit(
        X, Y, 16, initial_epoch=initial, epochs=epochs, verbose=0, shuffle=False, callbacks=[admm]
    )


SETTING = {"end_step": 9, "rho": 0.3, "growth": 1.25, "every": 3}


@pytest.mark.parametrize(
    ("steps", "jit"), [*((steps, False) for steps in (2, 3, 4, 8, 9)), (13, True)]
)
def test_each_step_is_what_numpy_computes(steps, jit):
    model = two_layers()
    admm = pruners.ADMM(0.5, **SETTING)
    wrapped = admm.prune(model)
    # Keras compiles by XLA where it can, which PyTorch cannot here.
    jit = jit and keras.backend.backend() != "torch"
    with pytest.warns(UserWarning) if steps < 9 else does_not_warn():
        history = trained(wrapped, admm, steps, jit_compile=jit).history
    expected, residuals = by_hand(model.get_weights(), steps, 0.5, 9, 0.3, 1.25, 3)
    for found, truth in zip(kernels(wrapped), expected, strict=True):
        np.testing.assert_allclose(found, truth, rtol=2e-4, atol=1e-5)
        assert steps < 9 or np.array_equal(found == 0, truth == 0)
    if 3 < steps < 7:
        assert history["admm_primal"][-1] == pytest.approx(residuals[-1][0], rel=1e-3)
        assert history["admm_dual"][-1] == pytest.approx(residuals[-1][1], rel=1e-3)


class does_not_warn:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


def test_the_first_iteration_pulls_already():
    """Z is a separate point: if it were the weight itself, there would be no pull at first."""
    model = two_layers()
    admm = pruners.ADMM(0.5, end_step=100, rho=1.0, every=50)
    wrapped = admm.prune(model)
    admm.attach(wrapped)
    weight = wrapped.layers[0].pruned_weights[0]
    before = kernels(wrapped)[0]
    np.testing.assert_allclose(array(weight.consensus.aim), nearest(before, 0.5), atol=1e-6)
    assert float(array(weight.consensus.rho)) == 1.0
    # And the square, not its root, is in the loss.
    pull = float(array(sum(wrapped.losses)))
    expected = sum(np.sum((w - nearest(w, 0.5)) ** 2) for w in kernels(wrapped)) / 2
    assert pull == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("when", [4, 8, 10])
def test_a_saved_training_goes_on_exactly(when, tmp_path):
    whole = pruners.ADMM(0.5, **SETTING)
    at_once = whole.prune(two_layers())
    trained(at_once, whole, 12)
    first = pruners.ADMM(0.5, **SETTING)
    model = first.prune(two_layers())
    if when < 9:
        with pytest.warns(UserWarning, match="training to reach"):
            trained(model, first, when)
    else:
        trained(model, first, when)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.fit(
        X,
        Y,
        16,
        initial_epoch=when,
        epochs=12,
        verbose=0,
        shuffle=False,
        callbacks=[pruners.ADMM(0.5, **SETTING)],
    )
    for one, other in zip(kernels(loaded), kernels(at_once), strict=True):
        np.testing.assert_array_equal(one, other)


PATTERNS = {
    "unstructured": {},
    "n_of_m": {"pattern": tfprune.NOfM(2, 4)},
    "block": {"pattern": tfprune.Block((2, 2))},
    "filter": {"pattern": "filter"},
    "row": {"pattern": "row"},
    "lamp": {"scope": "lamp"},
    "global": {"scope": "global"},
}


@pytest.mark.parametrize("name", PATTERNS)
def test_every_kind_of_pattern(name):
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8, activation="relu"),
            layers.Dense(4, activation="relu"),
            layers.Dense(4),
        ]
    )
    admm = pruners.ADMM(0.5, end_step=40, rho=1.0, growth=1.2, every=4, **PATTERNS[name])
    wrapped = admm.prune(model)
    wrapped.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.random.default_rng(3).normal(size=(64, 8)).astype("float32")
    y = x[:, :4]
    primal = []

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            primal.append(admm.residuals["admm_primal"])

    wrapped.fit(x, y, batch_size=16, epochs=12, verbose=0, callbacks=[admm, Note()])
    # The weights come nearer to the pattern, so little is lost where the masks are made.
    assert primal[38] < 0.6 * primal[0]
    masks = [w for layer in wrapped.layers for w in getattr(layer, "pruned_weights", [])]
    assert sum(w.zeros for w in masks) > 0
    plain = tfprune.prune_low_magnitude(
        tfprune.strip_pruning(wrapped),
        tfprune.ConstantSparsity.one_shot(0.5),
        **PATTERNS[name],
    )
    tfprune.UpdatePruningStep(plain)
    for one, other in zip(kernels(plain), kernels(wrapped), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loop_of_ones_own_and_a_user_regularizer():
    inputs = keras.Input((6,))
    outputs = layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.1), name="only")(inputs)
    model = keras.Model(inputs, outputs)
    admm = pruners.ADMM(0.5, end_step=2, rho=1.0, every=1)
    wrapped = admm.prune(model)
    own = 0.1 * float(np.sum(array(model.layers[-1].kernel) ** 2))
    assert float(array(sum(wrapped.losses))) == pytest.approx(own, rel=1e-5)
    admm.attach(wrapped)
    assert float(array(sum(wrapped.losses))) > own
    assert admm.step() and admm.step()
    assert admm.sparsity == 0.5
    assert tfprune.strip_pruning(wrapped).layers[-1].kernel_regularizer is not None


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"sparsity": 0}, "`sparsity` above 0"),
        ({"sparsity": 95}, "did you mean 0.95"),
        ({"end_step": 0}, "`end_step` to be at least 1"),
        ({"rho": -1}, "`rho` to be a positive number"),
        ({"growth": 0.5}, "`growth` to be at least 1"),
        ({"every": 0}, "`every` to be at least 1"),
    ],
    ids=str,
)
def test_arguments_out_of_range(change, line):
    with pytest.raises(ValueError, match=line):
        pruners.ADMM(**{"sparsity": 0.5, "end_step": 10, **change})


def test_a_model_that_was_not_wrapped_for_it():
    model = tfprune.prune_low_magnitude(two_layers())
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"wrapped for ADMM with end_step=9.*callback.prune"):
        model.fit(X, Y, verbose=0, callbacks=[pruners.ADMM(0.5, **SETTING)])

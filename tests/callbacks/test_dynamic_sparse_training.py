"""Dynamic sparse training, step by step against NumPy, on every backend."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

import tfprune
from tfprune import _keras, drop_fractions
from tfprune._wrapping.wrapper import mask_owners

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 6)).astype("float32")
Y = RANDOM.normal(size=(24, 3)).astype("float32")


def two_layers(activation="relu"):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation=activation, name="hidden"),
            keras.layers.Dense(3, name="last"),
        ]
    )


def weights_of(model):
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


def host(variable):
    return np.array(ops.convert_to_numpy(variable))


class Record(keras.callbacks.Callback):
    """Masks, weights and optimizer slots after every batch; listed after the other callbacks."""

    def __init__(self):
        super().__init__()
        self.masks, self.weights, self.slots = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        if _keras.backend() == "jax":
            self.model.jax_state_sync()
        weights = weights_of(self.model)
        self.masks.append([host(weight.mask) for weight in weights])
        self.weights.append([host(weight.variable) for weight in weights])
        self.slots.append(
            [
                [host(slot) for slot in _keras.slots(self.model.optimizer, weight.variable)]
                for weight in weights
            ]
        )


def trained(callback, optimizer=None, model=None, epochs=3, **arguments):
    model = callback.prune(two_layers() if model is None else model, **arguments)
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    record = Record()
    fit = {"batch_size": 4, "epochs": epochs, "shuffle": False, "verbose": 0}
    model.fit(X, Y, callbacks=[callback, record], **fit)
    return model, record


# -- The truth -------------------------------------------------------------------------------------


def gradients(parts, x, y):
    w1, b1, w2, b2 = parts
    before = x @ w1 + b1
    hidden = np.maximum(before, 0)
    error = 2 * (hidden @ w2 + b2 - y) / y.size
    back = (error @ w2.T) * (before > 0)
    return [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


def numpy_rigl(parts, masks, update_every, stop_step, fraction, steps):
    """RigL by its paper, with momentum SGD, in float64; yields masks and weights of each step."""
    parts = [
        part.astype("float64") * (1 if i % 2 else masks[i // 2]) for i, part in enumerate(parts)
    ]
    momenta = [np.zeros_like(part) for part in parts]
    updates = 0
    for step in range(1, steps + 1):
        batch = slice((step - 1) % 6 * 4, (step - 1) % 6 * 4 + 4)
        for i, gradient in enumerate(gradients(parts, X[batch], Y[batch])):
            momenta[i] = 0.9 * momenta[i] - 0.05 * gradient
            parts[i] = parts[i] + momenta[i]
            if i % 2 == 0:
                parts[i] = parts[i] * masks[i // 2]
        if step % update_every == 0 and step <= stop_step:
            batch = slice(updates % 6 * 4, updates % 6 * 4 + 4)
            updates += 1
            dense = gradients(parts, X[batch], Y[batch])
            share = fraction / 2 * (1 + np.cos(np.pi * step / stop_step))
            for i in (0, 2):
                old = masks[i // 2]
                active = np.flatnonzero(old)
                number = int(active.size * share)
                smallest = active[np.argsort(np.abs(parts[i].ravel()[active]))[:number]]
                kept = old.copy().ravel()
                kept[smallest] = False
                missing = np.flatnonzero(~kept)
                best = missing[np.argsort(-np.abs(dense[i].ravel()[missing]))[:number]]
                kept[best] = True
                masks[i // 2] = kept.reshape(old.shape)
                parts[i] = parts[i] * masks[i // 2]
                momenta[i][masks[i // 2] & ~old] = 0
        yield [mask.copy() for mask in masks], [parts[0].copy(), parts[2].copy()]


@pytest.mark.parametrize(
    ("update_every", "stop", "stop_step"), [(2, 0.75, 13.5), (1, 1.0, 18), (5, 12, 12)]
)
def test_rigl_step_by_step(update_every, stop, stop_step):
    rigl = tfprune.RigL(
        0.5, data=(X, Y), batch_size=4, update_every=update_every, stop=stop, drop_fraction=0.4
    )
    start = two_layers().get_weights()
    _, record = trained(rigl)
    first = rigl.prune(two_layers())
    tfprune.UpdatePruningStep(first)
    masks = [host(weight.mask) for weight in weights_of(first)]
    truth = list(numpy_rigl(start, masks, update_every, stop_step, 0.4, 18))
    assert len(record.masks) == len(truth) == 18
    for found, weights, (expected, values) in zip(record.masks, record.weights, truth, strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(weights, values, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert any((a[0] != b[0]).any() for a, b in zip(record.masks, record.masks[1:], strict=False))


# -- Invariants ------------------------------------------------------------------------------------

# Among few filters, a small share would be less than one.
MORE = {"drop_fraction": 0.6, "update_every": 2}
PRESETS = {
    "RigL": lambda: tfprune.RigL(0.45, data=(X, Y), **MORE),
    "SET": lambda: tfprune.SET(0.45, **MORE),
    "SNFS": lambda: tfprune.SNFS(0.45, data=(X, Y), batch_size=4, **MORE),
    "own": lambda: tfprune.DynamicSparseTraining(
        0.45, "uniform", "saliency", "gradient", 0.6, 3, data=(X, Y)
    ),
}


@pytest.mark.parametrize("pattern", ["unstructured", "filter", tfprune.Block((2, 1))])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_number_of_connections_never_changes(preset, pattern):
    callback = PRESETS[preset]()
    # A whole filter at zero has no gradient through a relu.
    model, record = trained(callback, model=two_layers("tanh"), pattern=pattern)
    sizes = [weight.size for weight in weights_of(model)]
    counts = {tuple(int(mask.sum()) for mask in masks) for masks in record.masks}
    assert len(counts) == 1
    (count,) = counts
    if pattern == "unstructured":
        assert sum(sizes) - sum(count) == round(0.45 * sum(sizes))
    for masks, weights in zip(record.masks, record.weights, strict=True):
        for mask, weight in zip(masks, weights, strict=True):
            assert not weight[~mask].any()
    changes = [
        not np.array_equal(a, b)
        for old, new in zip(record.masks, record.masks[1:], strict=False)
        for a, b in zip(old, new, strict=True)
    ]
    assert any(changes)
    assert model.history.history["sparsity"][-1] == model.history.history["sparsity"][0]


@pytest.mark.parametrize(
    "name",
    ["SGD", "Adam", "Nadam", "Adagrad", "Adadelta", "RMSprop", "Lion", "Ftrl", "Lamb", "Adamax"],
)
def test_grown_weights_start_at_zero_with_slots_zeroed(name):
    arguments = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(keras.optimizers, name)(0.01, **arguments)
    _, record = trained(tfprune.SET(0.5, update_every=3), optimizer, epochs=1)
    # The only update before `stop` is in the batch at index 2.
    for layer in range(2):
        grown = record.masks[2][layer] & ~record.masks[1][layer]
        assert grown.any()
        assert not record.weights[2][layer][grown].any()
        stayed = record.masks[2][layer] & record.masks[1][layer]
        assert len(record.slots[2][layer]) >= 1
        for slot in record.slots[2][layer]:
            assert not slot[grown].any()
        assert any(slot[stayed].any() for slot in record.slots[2][layer])


def test_static_control_never_moves():
    _, record = trained(tfprune.DynamicSparseTraining(0.75, drop_fraction=0))
    for masks in record.masks:
        for a, b in zip(masks, record.masks[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_seeds_give_other_connections():
    def last(seed):
        return trained(tfprune.SET(0.5, update_every=2, seed=seed))[1].masks[-1][0]

    np.testing.assert_array_equal(last(1), last(1))
    assert (last(1) != last(2)).any()


def test_the_names_that_keras_gives_do_not_matter():
    def masks():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(3)])
        pruned = tfprune.SET(0.5).prune(model)
        tfprune.UpdatePruningStep(pruned)
        return [host(weight.mask) for weight in weights_of(pruned)]

    for a, b in zip(masks(), masks(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_second_fit_goes_on_moving():
    callback = tfprune.SET(0.5, update_every=2, stop=1.0)
    model, _ = trained(callback)
    before = [host(weight.mask) for weight in weights_of(model)]
    record = Record()
    fit = {"batch_size": 4, "epochs": 2, "verbose": 0}
    model.fit(X, Y, callbacks=[callback, record], **fit)
    steps = [before, *record.masks]
    moves = [
        step
        for step, (old, new) in enumerate(itertools.pairwise(steps), 1)
        if any((a != b).any() for a, b in zip(old, new, strict=True))
    ]
    # The share to drop falls to nothing at the last.
    assert set(moves) <= {2, 4, 6, 8, 10, 12} and len(moves) >= 4


def test_random_growth_is_another_one_each_time():
    _, record = trained(tfprune.SET(0.75, update_every=1, stop=1.0))
    grown = [
        tuple(np.flatnonzero(new[0] & ~old[0]))
        for old, new in zip(record.masks, record.masks[1:], strict=False)
    ]
    assert len(set(grown)) > 10


def test_exempt_layers_stay_dense():
    rules = [tfprune.Rule("last", prune=False)]
    model, record = trained(tfprune.SET(0.5, update_every=2), rules=rules)
    assert len(record.masks[0]) == 1
    assert host(model.get_layer("last").kernel).all()


def test_all_is_kept_in_the_file_and_training_goes_on(tmp_path):
    """fit(2) + save + load + fit(2) is fit(4), bit for bit."""

    def callback():
        return tfprune.RigL(0.5, data=(X, Y), batch_size=4, update_every=2, stop=18)

    whole, _ = trained(callback(), epochs=4)
    half, _ = trained(callback(), epochs=2)
    half.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
    loaded.fit(X, Y, epochs=4, initial_epoch=2, callbacks=[callback()], **fit)
    for a, b in zip(weights_of(whole), weights_of(loaded), strict=True):
        np.testing.assert_array_equal(host(a.mask), host(b.mask))
        np.testing.assert_array_equal(host(a.variable), host(b.variable))


# -- drop_fraction ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (drop_fractions.ConstantDrop(0.3), [0.3, 0.3, 0.3]),
        (drop_fractions.CosineDrop(0.3), [0.3, 0.15, 0]),
        (drop_fractions.PowerDrop(0.4, 2), [0.4, 0.1, 0]),
        (drop_fractions.get(0.2), [0.2, 0.1, 0]),
        (drop_fractions.get("constant"), [0.3, 0.3, 0.3]),
    ],
)
def test_drop_fractions(fraction, expected):
    np.testing.assert_allclose([fraction(0), fraction(0.5), fraction(1)], expected, atol=1e-12)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(fraction))
    assert again == fraction


# -- Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 90}, r"`sparsity`.*did you mean 0.9"),
        ({"sparsity": 1.0}, r"`sparsity`"),
        ({"sparsity": 0.5, "distribution": "even"}, r"`distribution`"),
        ({"sparsity": 0.5, "drop": "size"}, r"`criterion`"),
        ({"sparsity": 0.5, "drop_fraction": 1.5}, r"`drop_fraction`"),
        ({"sparsity": 0.5, "drop_fraction": -0.1}, r"`drop_fraction`"),
        ({"sparsity": 0.5, "update_every": 0}, r"`update_every`"),
        ({"sparsity": 0.5, "stop": 0}, r"`stop`"),
        ({"sparsity": 0.5, "stop": 1.5}, r"`stop`"),
        ({"sparsity": 0.5, "total_steps": 0}, r"`total_steps`"),
        ({"sparsity": 0.5, "seed": -1}, r"`seed`"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=rf"Expected {message}"):
        tfprune.DynamicSparseTraining(**arguments)


@pytest.mark.parametrize("power", [0, -1, "2", np.inf, True])
def test_bad_power(power):
    with pytest.raises(ValueError, match="Expected `power` to be a positive number"):
        drop_fractions.PowerDrop(0.3, power)


def fit_on(model, callback, data=None):
    model.compile("sgd", "mse")
    model.fit(*((X, Y) if data is None else (data,)), verbose=0, callbacks=[callback])


def test_rigl_needs_data():
    callback = tfprune.RigL(0.5)
    with pytest.raises(ValueError, match=r"'gradient' for hidden/kernel.*Give data="):
        fit_on(callback.prune(two_layers()), callback)


def test_model_has_to_be_wrapped_for_it():
    wrapped = tfprune.prune_low_magnitude(two_layers(), tfprune.PolynomialDecay(0, 0.5, 0, 4))
    with pytest.raises(ValueError, match=r"callback\.prune\(model\)"):
        fit_on(wrapped, tfprune.SET(0.5))
    other = tfprune.SET(0.6).prune(two_layers())
    with pytest.raises(ValueError, match=r"callback\.prune\(model\)"):
        fit_on(other, tfprune.SET(0.5))


def test_n_of_m_has_nothing_to_move():
    callback = tfprune.SET(0.5, "uniform")
    model = callback.prune(two_layers(), pattern=tfprune.NOfM(1, 2))
    with pytest.raises(ValueError, match=r"units can move.*NOfM"):
        fit_on(model, callback)


def test_length_of_training_has_to_be_known():
    def batches():
        while True:
            yield X[:4], Y[:4]

    callback = tfprune.SET(0.5)
    model = callback.prune(two_layers())
    model.compile("sgd", "mse")
    tfprune.SET(0.5, total_steps=4, model=model)
    with pytest.raises(ValueError, match=r"Give total_steps="):
        tfprune.SET(0.5, model=model)


def test_weights_that_are_not_finite_leave_the_masks():
    callback = tfprune.RigL(0.5, data=(X, Y), update_every=1, total_steps=10)
    model = callback.prune(two_layers())
    model.compile("sgd", "mse")
    callback = tfprune.RigL(0.5, data=(X, Y), update_every=1, total_steps=10, model=model)
    first, last = weights_of(model)
    before = [host(first.mask), host(last.mask)]
    last.variable.assign(np.where(before[1], np.nan, 0))
    with pytest.raises(ValueError, match=r"finite"):
        callback.step()
    for weight, mask in zip((first, last), before, strict=True):
        np.testing.assert_array_equal(host(weight.mask), mask)


# -- A loop of one's own ---------------------------------------------------------------------------


def test_own_loop_is_fit():
    arguments = {"data": (X, Y), "batch_size": 4, "update_every": 2, "total_steps": 18}
    _, record = trained(tfprune.RigL(0.5, **arguments))
    model = tfprune.RigL(0.5, **arguments).prune(two_layers())
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    rigl = tfprune.RigL(0.5, model=model, **arguments)
    changes = 0
    for step in range(18):
        batch = slice(step % 6 * 4, step % 6 * 4 + 4)
        model.train_on_batch(X[batch], Y[batch])
        if _keras.backend() == "jax":
            model.jax_state_sync()
        changes += rigl.step()
        for weight, expected in zip(weights_of(model), record.masks[step], strict=True):
            np.testing.assert_array_equal(host(weight.mask), expected)
    assert changes == 6

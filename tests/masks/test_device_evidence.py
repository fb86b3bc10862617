"""Criteria on evidence, and exchanges of connections, where the weights are: equal to the host's.

`KERAS_BACKEND=jax pytest tests/masks/test_device_evidence.py`, likewise torch.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops
from mask_support import watched_places

import tfprune
from tfprune import _keras, criteria
from tfprune._updates import exchanging, mask_update
from tfprune._wrapping.wrapper import pruned_weights

X = np.random.default_rng(0).normal(size=(48, 12)).astype("float32")
Y = X[:, :6] * 2
ON_TENSORS = sorted(
    name for name, kind in criteria.built_in().items() if kind.on_tensors and kind.elementwise
)


def test_each_elementwise_criterion_takes_tensors():
    elementwise = {name for name, kind in criteria.built_in().items() if kind.elementwise}
    assert set(ON_TENSORS) == elementwise


@pytest.mark.parametrize("name", ON_TENSORS)
def test_scores_of_tensors_are_those_of_arrays(name):
    criterion = criteria.get(name)
    values = np.random.default_rng(1).normal(size=(1 + len(criterion.needs), 500))
    values = values.astype("float32")
    values[:, :4] = [[0.0, -0.0, 1.0, -2.0]]
    found = criterion(*map(ops.convert_to_tensor, values))
    np.testing.assert_array_equal(_keras.on_host(found), criterion(*values))


def test_a_criterion_that_replaces_the_formula_is_computed_on_the_host():
    class Own(tfprune.Magnitude):
        def __call__(self, weight):
            return np.sqrt(abs(weight))

    assert not Own.on_tensors


def trained(masks_on, criterion, pattern="unstructured"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(6),
        ]
    )
    rules = [tfprune.Rule("dense_1", prune=False)] if criterion == "bn_scale" else None
    schedule = tfprune.PolynomialDecay(0.0, 0.7, begin_step=2, end_step=6, frequency=2)
    model = tfprune.prune_low_magnitude(
        model, schedule, pattern=pattern, criterion=criterion, rules=rules
    )
    model.compile("sgd", "mse")
    callback = tfprune.UpdatePruningStep(data=(X, Y), batches=3, batch_size=8, masks_on=masks_on)
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    return model


def assert_same(expected, found):
    for one, other in zip(pruned_weights(expected), pruned_weights(found), strict=True):
        mask = _keras.host_array(other.mask)
        assert not mask.all()
        np.testing.assert_array_equal(_keras.host_array(one.mask), mask)
        np.testing.assert_array_equal(
            _keras.host_array(one.variable), _keras.host_array(other.variable)
        )
        assert other.zeros == (~mask).sum()


@pytest.mark.parametrize(
    ("criterion", "pattern"),
    [
        ("saliency", "unstructured"),
        ("taylor", tfprune.Block((2, 2), "SUM")),
        ("gradient_momentum", "unstructured"),
        ("movmag", "unstructured"),
        ("small_init_small_final", tfprune.NOfM(7, 10)),
        ("apoz", "unstructured"),
        ("hessian_diagonal", tfprune.patterns.Channel()),
    ],
    ids=str,
)
def test_training_ends_with_the_masks_of_the_host(criterion, pattern, monkeypatch):
    expected = trained("host", criterion, pattern)
    places = watched_places(monkeypatch)
    assert_same(expected, trained("device", criterion, pattern))
    assert places and "host" not in places


def test_missing_evidence_raises():
    criterion = criteria.get("saliency")
    model = tfprune.prune_low_magnitude(
        keras.Sequential([keras.Input((4,)), layers.Dense(4)]),
        tfprune.ConstantSparsity(0.5, 0),
        criterion=criterion,
    )
    (weight,) = pruned_weights(model)
    with pytest.raises(ValueError, match="'gradient' for"):
        mask_update.MaskUpdate(model, "device").apply([(0.5, weight)])


def exchanged(masks_on, kind, **options):
    keras.utils.set_random_seed(0)
    callback = kind(
        0.75, data=(X, Y), update_every=2, stop=1.0, drop_fraction=0.4, masks_on=masks_on
    )
    model = keras.Sequential([keras.Input((12,)), layers.Dense(16, "relu"), layers.Dense(6)])
    model = callback.prune(model, **options)
    model.compile("adam", "mse")
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    return model


@pytest.mark.parametrize(
    ("kind", "options", "on_device"),
    [
        (tfprune.RigL, {}, True),
        (tfprune.RigL, {"pattern": tfprune.Block((2, 2))}, True),
        (tfprune.SNFS, {}, True),
        # Its random numbers are drawn by NumPy, so that every backend draws the same.
        (tfprune.SET, {}, False),
    ],
)
def test_connections_move_as_on_the_host(kind, options, on_device, monkeypatch):
    expected = exchanged("host", kind, **options)
    calls = []
    original = exchanging.exchanged_on_device
    monkeypatch.setattr(
        mask_update, "exchanged_on_device", lambda *a: calls.append(1) or original(*a)
    )
    found = exchanged("device", kind, **options)
    assert len(calls) == (3 if on_device else 0)
    assert_same(expected, found)
    for one, other in zip(expected.optimizer.variables, found.optimizer.variables, strict=True):
        np.testing.assert_array_equal(_keras.host_array(one), _keras.host_array(other))

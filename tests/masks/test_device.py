"""The kernel on the device makes the choice of `keep_masks`, on the active backend.

`KERAS_BACKEND=jax pytest tests/masks/test_device.py`, likewise torch.
"""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops
from mask_support import SPECIAL, TENSOR_DTYPES

import tfprune
from tfprune import _keras
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.wrapper import pruned_weights
from tfprune.masks import Scores, device, keep_masks
from tfprune.masks.device import DeviceScores, counting, keep_device_masks

# Few shapes, so that little is compiled.
SHAPES = ((3, 4), (3, 4), (5,), (2, 3, 2))


def negative(weight):
    return -abs(weight)


def itself(weight):
    return weight + 0


@st.composite
def problems(draw):
    """Arrays with many ties, masks, and what is to go in one group or in two."""
    arrays = [
        np.array(
            draw(st.lists(st.sampled_from(SPECIAL), min_size=n, max_size=n)), "float32"
        ).reshape(shape)
        if draw(st.booleans())
        else np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape).astype("float32")
        for shape in SHAPES
        for n in [int(np.prod(shape))]
    ]
    masks = [
        np.random.default_rng(draw(st.integers(0, 99))).random(shape)
        < draw(st.sampled_from([0.6, 1]))
        for shape in SHAPES
    ]
    rising = draw(st.booleans())
    return arrays, masks, rising, draw(st.booleans()), draw(st.floats(0, 1))


@pytest.mark.parametrize("score", [abs, negative, itself])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(problem=problems())
def test_the_choice_is_that_of_the_host(score, problem):
    arrays, masks, rising, together, share = problem
    tensors = [ops.cast(array, dtype) for array, dtype in zip(arrays, TENSOR_DTYPES, strict=True)]
    # What the host knows: the values after the cast, exactly, in float32.
    arrays = [_keras.on_host(ops.cast(tensor, "float32")) for tensor in tensors]
    candidates = [mask if rising else ~mask for mask in masks]
    groups = [range(4)] if together else [[0, 2], [1], [3]]
    wanted = [int(share * sum(candidates[n].sum() for n in group)) for group in groups]
    found = keep_device_masks(
        [
            (
                [
                    DeviceScores(
                        (tensors[n],),
                        score,
                        ops.convert_to_tensor(masks[n]),
                        rising,
                        zeros_now=int((~masks[n]).sum()),
                    )
                    for n in group
                ],
                zeros,
            )
            for group, zeros in zip(groups, wanted, strict=True)
        ]
    )
    for group, zeros, (kept, threshold) in zip(groups, wanted, found, strict=True):
        scores = [Scores(arrays[n].reshape(-1), score, candidates[n].reshape(-1)) for n in group]
        expected, border = keep_masks(scores, zeros)
        assert threshold == border or zeros == 0
        for n, mask, own in zip(group, expected, kept, strict=True):
            mask = mask.reshape(SHAPES[n]) & masks[n] if rising else mask.reshape(SHAPES[n])
            np.testing.assert_array_equal(_keras.on_host(own.tensor), mask)
            assert own.zeros == (~mask).sum() and own.size == mask.size


@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_non_finite_weights_raise(wrong, place):
    arrays = [np.ones((3, 4), "float32"), np.ones((3, 4), "float32")]
    arrays[place][1, 2] = wrong
    scores = [
        DeviceScores((ops.convert_to_tensor(array),), abs, name=f"layer_{n}/kernel")
        for n, array in enumerate(arrays)
    ]
    with pytest.raises(ValueError, match=f"finite weights and scores in layer_{place}/kernel"):
        keep_device_masks([(scores, 3)])


def test_too_few_units_raise():
    mask = ops.convert_to_tensor(np.arange(12).reshape(3, 4) < 5)
    scores = DeviceScores((ops.ones((3, 4)),), abs, mask, zeros_now=7)
    with pytest.raises(ValueError, match="at least `zeros` units"):
        keep_device_masks([([scores], 6)])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3),
    difference=st.sampled_from([-(2**33), -(2**16), -1, 0, 1, 2**16, 2**33]),
)
def test_counts_beyond_an_int32_are_compared_exactly(counts, difference):
    wanted = max(0, sum(counts) + difference)
    limbs = [np.array([wanted >> 16], "int32"), np.array([wanted & 0xFFFF], "int32")]
    group = ops.convert_to_tensor(np.zeros(3, "int32"))
    found = counting.at_least(
        ops.convert_to_tensor(np.array(counts, "int32")),
        group,
        1,
        *(ops.convert_to_tensor(limb) for limb in limbs),
    )
    assert bool(_keras.on_host(found)[0]) == (sum(counts) >= wanted)


def trained(masks_on, scope, criterion="magnitude"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(16, "relu"), layers.Dense(16)])
    schedule = tfprune.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=8, frequency=3)
    model = tfprune.prune_low_magnitude(model, schedule, scope=scope, criterion=criterion)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(80, 16)).astype("float32")
    callback = tfprune.UpdatePruningStep(masks_on=masks_on)
    model.fit(x, x * 2, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    return model


def masks(model):
    return [_keras.host_array(weight.mask) for weight in pruned_weights(model)]


@pytest.mark.parametrize(
    ("scope", "criterion"),
    [
        ("local", "magnitude"),
        ("global", "small_final"),
        (tfprune.Global(max_sparsity=0.805), "magnitude"),
        ("erdos_renyi", "magnitude"),
    ],
)
def test_training_ends_with_the_masks_of_the_host(scope, criterion, monkeypatch):
    expected = masks(trained("host", scope, criterion))
    calls = []
    original = device.keep_device_masks
    monkeypatch.setattr(
        "tfprune.masks.groups.keep_device_masks", lambda *a: calls.append(1) or original(*a)
    )
    model = trained("device", scope, criterion)
    assert len(calls) >= 3
    for one, other in zip(expected, masks(model), strict=True):
        np.testing.assert_array_equal(one, other)
    for weight in pruned_weights(model):
        assert weight.zeros == (~_keras.host_array(weight.mask)).sum()
        assert not _keras.host_array(weight.variable)[~_keras.host_array(weight.mask)].any()


@pytest.mark.parametrize("scope", ["lamp", tfprune.Global(normalize="mean")])
def test_what_the_device_cannot_do_the_host_does(scope, monkeypatch):
    expected = masks(trained("host", scope))
    monkeypatch.setattr("tfprune.masks.groups.keep_device_masks", None)
    for one, other in zip(expected, masks(trained("device", scope)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_on_a_cpu_the_host_chooses(monkeypatch):
    monkeypatch.setattr("tfprune.masks.groups.keep_device_masks", None)
    assert tfprune.sparsity_report(trained("auto", "global")).prunable.sparsity > 0.79


def test_nan_weights_leave_all_masks_as_they_were():
    model = trained("device", "global")
    before = masks(model)
    weight = pruned_weights(model)[1]
    values = np.array(_keras.host_array(weight.variable))
    values[before[1]] = np.nan
    weight.variable.assign(values)
    with pytest.raises(ValueError, match="finite weights and scores in dense"):
        MaskUpdate(model, "device").apply([(0.9, weight) for weight in pruned_weights(model)])
    for one, other in zip(before, masks(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_unknown_place_raises():
    with pytest.raises(ValueError, match="`masks_on` to be one of 'auto', 'host', 'device'"):
        tfprune.UpdatePruningStep(masks_on="gpu")

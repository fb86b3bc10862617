"""Units of several weights on the device: the masks of the host, on the active backend.

`KERAS_BACKEND=jax pytest tests/masks/test_device_patterns.py`, likewise torch.
"""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops
from mask_support import SPECIAL, TENSOR_DTYPES, watched_places

import tfprune
from tfprune import _keras, criteria
from tfprune._updates import placement
from tfprune._wrapping.wrapper import pruned_weights
from tfprune.masks import (
    DeviceRequest,
    MaskRequest,
    PooledRequest,
    masks_in_groups,
    masks_with_zeros,
)

AXES = tfprune.patterns.KernelAxes()
# Neither a group nor a block divides the shapes.
SHAPES = ((8, 4), (7, 5), (8, 4), (2, 1, 6, 3))
PATTERNS = [
    tfprune.NOfM(2, 4),
    tfprune.NOfM(1, 3),
    tfprune.Block((2, 2)),
    tfprune.Block((2, 3), "MAX"),
    tfprune.Block((5, 3), "SUM"),
    tfprune.Filter(coupled=False),
    tfprune.patterns.Channel("SUM"),
    tfprune.patterns.Row(),
    tfprune.patterns.Slice((-2,), "MAX"),
]


@st.composite
def weights(draw):
    """Four weights with many ties, and two shares of their zeros, one after the other."""
    arrays = []
    for shape in SHAPES:
        n = int(np.prod(shape))
        if draw(st.booleans()):
            values = draw(st.lists(st.sampled_from(SPECIAL), min_size=n, max_size=n))
        else:
            values = np.random.default_rng(draw(st.integers(0, 99))).normal(size=n)
        arrays.append(np.array(values, "float32").reshape(shape))
    return arrays, draw(st.floats(0, 1)), draw(st.floats(0, 1)), draw(st.booleans())


def on_host(arrays, pattern, masks):
    return [
        MaskRequest(array, pattern, criteria.Magnitude(), AXES.resolve(array.ndim), mask)
        for array, mask in zip(arrays, masks, strict=True)
    ]


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [(DeviceRequest, pattern) for pattern in PATTERNS]
    + [(PooledRequest, pattern) for pattern in PATTERNS if not isinstance(pattern, tfprune.NOfM)],
    ids=str,
)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(problem=weights())
def test_the_choice_is_that_of_the_host(kind, pattern, problem):
    arrays, first, second, together = problem
    fitting = [n for n, array in enumerate(arrays) if fits(pattern, array.shape)]
    if keras.backend.backend() == "tensorflow" and not isinstance(pattern, tfprune.NOfM):
        # TensorFlow's threads take sums of numbers this small for zero; N:M adds nothing.
        arrays = [np.where((array != 0) & (np.abs(array) < 1e-37), 0, array) for array in arrays]
    tensors = [ops.cast(arrays[n], TENSOR_DTYPES[n]) for n in fitting]
    arrays = [_keras.on_host(ops.cast(tensor, "float32")) for tensor in tensors]
    masks = [None] * len(arrays)
    for share in (first, second):
        requests = on_host(arrays, pattern, masks)
        others = [
            kind(
                tensor,
                pattern,
                criteria.Magnitude(),
                AXES.resolve(len(tensor.shape)),
                None if mask is None else ops.convert_to_tensor(mask),
                0 if mask is None else int((~mask).sum()),
            )
            for tensor, mask in zip(tensors, masks, strict=True)
        ]
        groups = [range(len(arrays))] if together else [[n] for n in range(len(arrays))]
        zeros = [int(share * sum(requests[n].most_zeros for n in group)) for group in groups]
        found = masks_in_groups(
            [([others[n] for n in group], z, None) for group, z in zip(groups, zeros, strict=True)]
        )
        for group, number, (kept, threshold) in zip(groups, zeros, found, strict=True):
            expected, border = masks_with_zeros([requests[n] for n in group], number)
            assert threshold == border
            for n, one, other in zip(group, expected, kept, strict=True):
                assert (other.size, other.count()) == (one.size, one.sum())
                mask = requests[n].spread(one)
                if getattr(other, "tensor", other) is not None:
                    np.testing.assert_array_equal(_keras.on_host(others[n].spread(other)), mask)
                masks[n] = mask


def fits(pattern, shape):
    try:
        pattern.check(shape, AXES)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_non_finite_weights_raise(pattern, wrong):
    array = np.ones((8, 4), "float32")
    array[6, 3] = wrong
    request = DeviceRequest(
        ops.convert_to_tensor(array), pattern, criteria.Magnitude(), AXES.resolve(2), None, 0, "it"
    )
    for zeros in (0, 2):
        with pytest.raises(ValueError, match="finite weights and scores in it"):
            masks_in_groups([([request], zeros, None)])


def trained(masks_on, pattern, scope):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    # Filters of both are coupled.
    x = layers.Add()([x, layers.Conv2D(8, 1)(inputs)])
    x = layers.Flatten()(layers.Conv2D(12, 5, strides=3)(x))
    model = keras.Model(inputs, layers.Dense(6)(x))
    schedule = tfprune.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=6, frequency=2)
    model = tfprune.prune_low_magnitude(model, schedule, scope=scope, pattern=pattern)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 2)).astype("float32")
    y = x[:, 0, :3].reshape(64, 6)
    callback = tfprune.UpdatePruningStep(masks_on=masks_on)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    return model


@pytest.mark.parametrize(
    ("pattern", "scope", "few", "place"),
    [
        (tfprune.NOfM(2, 4), "local", 9, "device"),
        (tfprune.NOfM(2, 4), tfprune.Global(max_sparsity=0.55), 9, "device"),
        (tfprune.Block((2, 3)), "local", 9, "device"),
        (tfprune.Block((2, 3)), "global", 9, "device"),
        (tfprune.Block((2, 3)), tfprune.Global(normalize="max"), 9, "host"),
        (tfprune.Filter(), "local", 9, "pooled"),
        (tfprune.Filter(round_to=2), "global", 9, "pooled"),
        (tfprune.Filter("MAX", over_group="SUM"), tfprune.Global(normalize="lamp"), 9, "pooled"),
        (tfprune.Filter(coupled=False), "erdos_renyi", 9, "device"),
        (tfprune.patterns.Channel(), "local", 1 << 16, "pooled"),
        (tfprune.patterns.Row("SUM"), "global", 9, "device"),
    ],
    ids=str,
)
def test_training_ends_with_the_masks_of_the_host(pattern, scope, few, place, monkeypatch):
    expected = trained("host", pattern, scope)
    places = watched_places(monkeypatch)
    monkeypatch.setattr(placement, "FEW", few)
    found = trained("device", pattern, scope)
    assert set(places) == {place}
    assert_same(expected, found)


def assert_same(expected, found):
    pruned = 0
    for one, other in zip(pruned_weights(expected), pruned_weights(found), strict=True):
        mask = _keras.host_array(other.mask)
        np.testing.assert_array_equal(_keras.host_array(one.mask), mask)
        assert other.zeros == (~mask).sum() and one.threshold == other.threshold
        assert not _keras.host_array(other.variable)[~mask].any()
        pruned += other.zeros
    assert pruned


def test_a_pattern_that_replaces_a_method_is_computed_on_the_host():
    class Own(tfprune.Block):
        def collapse(self, mask, axes):
            return super().collapse(np.asarray(mask), axes)

    class Renamed(tfprune.Block):
        pass

    assert tfprune.Block.on_tensors and Renamed.on_tensors and not Own.on_tensors

"""Arguments that fit nowhere: each is refused in the library's form, before anything changes."""

import json
import tracemalloc

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune import pruners
from tfprune.cli import main
from tfprune.patterns import KernelAxes

HALF = tfprune.ConstantSparsity(0.5, 0)
WEIGHT = np.arange(32.0).reshape(4, 8)


class Odd(layers.Layer):
    """A layer with a scalar weight, and a number that is no weight."""

    def build(self, input_shape):
        self.scalar = self.add_weight(shape=(), name="scalar")
        self.number = 3

    def call(self, inputs):
        return inputs * self.scalar


class WithNumber(Odd):
    pass


class WithScalar(Odd):
    pass


tfprune.register_prunable(WithNumber, ["number"])
tfprune.register_prunable(WithScalar, ["scalar"])


def model(*further):
    return keras.Sequential([keras.Input((6,)), layers.Dense(4, name="d"), *further])


def without_weights():
    return keras.Sequential([keras.Input((4,)), layers.Activation("relu")])


def of_mask(weight=WEIGHT, **arguments):
    return lambda: tfprune.compute_mask(weight, 0.5, **arguments)


def of_wrapper(**arguments):
    return lambda: tfprune.PruneLowMagnitude(layers.Dense(2), HALF, **arguments)


def of_prune(*further, schedule=HALF, **arguments):
    return lambda: tfprune.prune_low_magnitude(model(*further), schedule, **arguments)


REFUSED = {
    "object array": (of_mask(WEIGHT.astype(object)), TypeError, "real numbers.*of object"),
    "array of texts": (of_mask(WEIGHT.astype(str)), TypeError, "real numbers.*of <U"),
    "complex array": (of_mask(WEIGHT + 1j), TypeError, "real numbers.*of complex"),
    "mask of another shape": (
        of_mask(mask=np.ones((3, 3), bool)),
        ValueError,
        r"of the weight's shape \(4, 8\).*\(3, 3\)",
    ),
    "evidence that is a list": (of_mask(evidence=[1]), TypeError, "`evidence` to be a dictionary"),
    "axes without tuples": (
        lambda: KernelAxes(inputs=0, outputs=1),
        TypeError,
        "`inputs` to be a tuple of axes. Received: inputs=0",
    ),
    "axes that are no integers": (
        lambda: KernelAxes(inputs=(-2,), outputs=(0.5,)),
        TypeError,
        "`outputs` to be a tuple of axes",
    ),
    "no axes to group": (
        of_mask(pattern=tfprune.NOfM(2, 4), axes=KernelAxes(inputs=(), outputs=(1,))),
        ValueError,
        "Expected",
    ),
    "overrides": (of_wrapper(overrides=3), TypeError, "`overrides` as get_config"),
    "followers": (of_wrapper(followers=3), TypeError, "`followers` as get_config"),
    "name with a slash": (of_wrapper(name="a/b"), ValueError, "text without"),
    "schedule that is a dict": (of_prune(schedule={"a": 1}), TypeError, "config of a schedule"),
    "schedule that is an object": (
        of_prune(schedule=object()),
        TypeError,
        "`pruning_schedule` to be a tfprune.PruningSchedule",
    ),
    "registered number": (of_prune(WithNumber()), TypeError, "`number` of .* to be a weight"),
    "scalar weight": (of_prune(WithScalar()), ValueError, "axes of a weight with 0 axes"),
    "policy's base class": (
        of_prune(pruning_policy=tfprune.PruningPolicy()),
        TypeError,
        "a policy that says which layers",
    ),
    "rule with a text": (
        lambda: tfprune.Rule("d", prune="no"),
        TypeError,
        "`prune` to be True or False",
    ),
    "nothing to multiply": (
        lambda: tfprune.shrink(without_weights(), {"macs": 0.5}),
        ValueError,
        "a model with macs to reduce",
    ),
    "no data": (
        lambda: tfprune.recalibrate(model(layers.BatchNormalization()), None),
        ValueError,
        "Received: data=None",
    ),
    "nothing to slim": (
        lambda: pruners.slim(without_weights(), 0.5),
        ValueError,
        "followed directly by a BatchNormalization",
    ),
    "end that no step reaches": (
        lambda: tfprune.PolynomialDecay(0.0, 0.9, 0, 10**30),
        ValueError,
        "`end_step` to be at most 2147483647",
    ),
    "seed beyond 32 bits": (
        lambda: tfprune.LotteryTicket(model(), 0.5, rounds=2, seed=2**32),
        ValueError,
        "`seed`",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_strange_argument_is_refused_in_form(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=r"(?s)Expected .*Received: ") as raised:
        call()
    assert raised.match(f"(?s){message}")


def test_a_refusal_changes_nothing():
    given = model(WithNumber())
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in given.weights]
    with pytest.raises(TypeError):
        tfprune.prune_low_magnitude(given, HALF, copy=False)
    assert [type(layer) for layer in given.layers] == [layers.Dense, WithNumber]
    for old, weight in zip(before, given.weights, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(weight))


def test_a_plot_that_would_fill_the_memory_is_refused(capsys):
    words = ["schedule", "plot", "cosine", "--sparsity", "0.9", "--end-step", "300000000"]
    tracemalloc.start()
    try:
        assert main(words) == 1
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "Expected at most 10,000,000 steps to draw" in capsys.readouterr().err
    # One byte for each step would be 300 MB.
    assert most < 100e6


def test_json_holds_no_nan(tmp_path, capsys):
    broken = model()
    broken.save(tmp_path / "whole.keras")
    broken.layers[0].kernel.assign(np.full((6, 4), np.nan))
    broken.save(tmp_path / "broken.keras")
    np.savez(tmp_path / "data.npz", x=np.ones((40, 6)), y=np.ones((40, 4)))
    files = [str(tmp_path / name) for name in ("whole.keras", "broken.keras")]
    options = ["--no-latency", "--data", str(tmp_path / "data.npz"), "--loss", "mse", "--json"]
    assert main(["compare", *files, *options]) == 0
    printed = capsys.readouterr().out
    found = json.loads(printed, parse_constant=pytest.fail)
    assert "null" in json.dumps(found["metrics"])

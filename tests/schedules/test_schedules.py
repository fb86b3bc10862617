"""Schedules, against their formulas in float64 and against tfmot's."""

import json
import subprocess
import sys
from fractions import Fraction
from math import ceil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tfmot_truth
from keras_support import outputs

import tfprune
from tfprune import schedules
from tfprune.schedules import (
    ConstantSparsity,
    Cosine,
    DenseSparseDense,
    Exponential,
    Iterative,
    OneCycle,
    PolynomialDecay,
)

RAMPS = [PolynomialDecay, Exponential, Iterative, Cosine, OneCycle, DenseSparseDense]


def asked(schedule, steps):
    """The answers to single steps, one call each."""
    pairs = [schedule(int(step)) for step in steps]
    return np.array([bool(due) for due, _ in pairs]), np.array([value for _, value in pairs])


# -- Outside truths --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tfmot_truth.SCHEDULES)
def test_same_as_tfmot(tfmot, name):
    kind, arguments, number = tfmot_truth.SCHEDULES[name]
    schedule = getattr(tfprune, kind)(*arguments)
    steps = np.arange(number)
    due, sparsity = asked(schedule, steps)
    # The only difference: the last update is always made.
    np.testing.assert_array_equal(due, tfmot[f"{name}/due"] | (steps == schedule.end_step))
    # tfmot's ends are the product of its float32 arithmetic, ours the numbers that were given.
    inside = steps > schedule.begin_step
    theirs = tfmot[f"{name}/sparsity"]
    np.testing.assert_array_equal(sparsity[inside], theirs[inside])
    np.testing.assert_allclose(sparsity[~inside], theirs[~inside], rtol=0, atol=2**-24)


def logistic(p):
    return 1 / (1 + np.exp(6 - 14 * p))


FORMULAS = {
    "polynomial_3": (PolynomialDecay, {}, lambda i, f, p: f + (i - f) * (1 - p) ** 3),
    "polynomial_1": (PolynomialDecay, {"power": 1}, lambda i, f, p: i + (f - i) * p),
    "polynomial_2": (PolynomialDecay, {"power": 2}, lambda i, f, p: f + (i - f) * (1 - p) ** 2),
    "exponential": (Exponential, {}, lambda i, f, p: 1 - (1 - i) ** (1 - p) * (1 - f) ** p),
    "cosine": (Cosine, {}, lambda i, f, p: i + (f - i) * (1 - np.cos(np.pi * p)) / 2),
    "one_cycle": (
        OneCycle,
        {},
        lambda i, f, p: i + (f - i) * (logistic(p) - logistic(0)) / (logistic(1) - logistic(0)),
    ),
    # A half cosine each way.
    "dense_sparse_dense": (
        DenseSparseDense,
        {},
        lambda i, f, p: i + (f - i) * (1 - np.cos(np.pi * np.minimum(2 * p, 2 - 2 * p))) / 2,
    ),
}


@pytest.mark.parametrize(("initial", "final"), [(0.0, 0.9), (0.5, 0.98), (0.8, 0.3)])
@pytest.mark.parametrize(("begin", "end"), [(0, 100), (37, 2041), (5, 7)])
@pytest.mark.parametrize("name", FORMULAS)
def test_formula(name, begin, end, initial, final):
    make, more, formula = FORMULAS[name]
    steps = np.arange(end + 20)
    progress = np.clip((steps - begin) / (end - begin), 0, 1)
    _, sparsity = make(initial, final, begin, end, **more)(steps)
    expected = formula(initial, final, progress)
    np.testing.assert_allclose(sparsity, expected, rtol=0, atol=3e-7)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 7])
@pytest.mark.parametrize(("begin", "end"), [(0, 90), (10, 107), (3, 5)])
def test_iterative_formula(begin, end, n_steps):
    steps = range(end + 10)
    progress = [min(max(Fraction(step - begin, end - begin), 0), 1) for step in steps]
    expected = [0.1 + 0.8 * ceil(n_steps * p) / n_steps for p in progress]
    schedule = Iterative(0.1, 0.9, begin, end, n_steps=n_steps)
    np.testing.assert_allclose(asked(schedule, steps)[1], expected, rtol=0, atol=1e-7)
    np.testing.assert_allclose(schedule(np.array(steps))[1], expected, rtol=0, atol=1e-7)


def test_iterative_default_is_30_60_90():
    _, sparsity = Iterative(0.0, 0.9, 0, 300)(np.array([0, 1, 100, 101, 200, 201, 300]))
    np.testing.assert_allclose(sparsity, [0, 0.3, 0.3, 0.6, 0.6, 0.9, 0.9], rtol=1e-6)


@pytest.mark.parametrize("target", [0.0, 0.5, 0.98])
def test_constant_is_constant(target):
    _, sparsity = ConstantSparsity(target, 5, 20)(np.arange(40))
    np.testing.assert_array_equal(sparsity, np.full(40, target, dtype="float32"))


@pytest.mark.parametrize("make", RAMPS)
@pytest.mark.parametrize(("initial", "final"), [(0.0, 0.9), (0.123, 0.98), (0.7, 0.1)])
@pytest.mark.parametrize(("begin", "end"), [(0, 1), (0, 100), (7, 333), (0, 3_000_001)])
def test_ends_are_exact(make, begin, end, initial, final):
    last = initial if make is DenseSparseDense else final
    steps = np.array([0, begin, end, end + 1, 2 * end])
    expected = np.array([initial, initial, last, last, last], dtype="float32")
    schedule = make(initial, final, begin, end)
    if end - begin > 1 or make is not DenseSparseDense:
        np.testing.assert_array_equal(schedule(steps)[1], expected)
        np.testing.assert_array_equal(asked(schedule, steps)[1], expected)


@pytest.mark.parametrize(
    ("begin", "end", "peak"), [(0, 100, 50), (0, 101, 50), (10, 21, 15), (3, 5, 4)]
)
def test_dense_sparse_dense_has_an_update_at_its_peak(begin, end, peak):
    schedule = DenseSparseDense(0.1, 0.9, begin, end, frequency=1000)
    due, sparsity = schedule(np.arange(end + 1))
    assert schedule.peak_step == peak
    assert np.flatnonzero(due).tolist() == [begin, peak, end]
    assert sparsity[peak] == np.float32(0.9) == np.max(sparsity)
    assert (np.diff(sparsity[begin : peak + 1]) > 0).all()
    assert (np.diff(sparsity[peak:]) < 0).all()


@pytest.mark.parametrize(
    ("begin", "end", "frequency", "expected"),
    [
        (0, 10, 5, [0, 5, 10]),
        (0, 12, 5, [0, 5, 10, 12]),  # the end, though out of phase
        (3, 12, 4, [3, 7, 11, 12]),
        (3, 4, 100, [3, 4]),
        (0, 3, 1, [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("make", [PolynomialDecay, Exponential, Iterative, Cosine, OneCycle])
def test_should_prune_table(make, begin, end, frequency, expected):
    due, _ = make(0.0, 0.5, begin, end, frequency=frequency)(np.arange(40))
    assert np.flatnonzero(due).tolist() == expected
    constant = ConstantSparsity(0.5, begin, end, frequency)
    assert np.flatnonzero(asked(constant, range(40))[0]).tolist() == expected


def test_constant_without_an_end_goes_on():
    due, _ = ConstantSparsity(0.5, 2, frequency=3)(np.arange(12))
    assert np.flatnonzero(due).tolist() == [2, 5, 8, 11]
    assert bool(ConstantSparsity(0.5, 2, frequency=3)(2 + 3 * 10**8)[0])


# -- Arguments and configs -------------------------------------------------------------------------

ONE_OF_EACH = [ConstantSparsity(0.5, 10, 33, 7), *(make(0.1, 0.8, 10, 33) for make in RAMPS)]
each = pytest.mark.parametrize("schedule", ONE_OF_EACH, ids=lambda s: type(s).__name__)

STEPS = {
    "int": int,
    "numpy_int32": np.int32,
    "numpy_int64": np.int64,
    "numpy_scalar_array": np.array,
    "tf_int32": lambda step: tf.constant(step, tf.int32),
    "tf_int64": lambda step: tf.constant(step, tf.int64),
    "tf_variable": lambda step: tf.Variable(step, dtype=tf.int64),
    "keras_variable": lambda step: keras.Variable(step, dtype="int64", trainable=False),
}


@each
@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("step", [0, 10, 20, 33, 40])
def test_step_kinds(schedule, kind, step):
    due, sparsity = schedule(STEPS[kind](step))
    assert tf.is_tensor(due) and tf.is_tensor(sparsity)
    assert (due.dtype, due.shape) == (tf.bool, ())
    assert (sparsity.dtype, sparsity.shape) == (tf.float32, ())
    expected_due, expected = schedule.evaluate([step])
    assert bool(due) == expected_due[0]
    assert float(sparsity) == expected[0]


@each
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("kind", [np.asarray, tf.constant, list])
def test_vector_of_steps_is_as_single_steps(schedule, kind, dtype):
    steps = np.arange(50, dtype=dtype)
    due, sparsity = schedule(kind(steps))
    assert (due.dtype, due.shape) == (tf.bool, (50,))
    assert (sparsity.dtype, sparsity.shape) == (tf.float32, (50,))
    single_due, single = asked(schedule, steps)
    np.testing.assert_array_equal(due, single_due)
    np.testing.assert_allclose(sparsity, single, rtol=0, atol=1e-7)


@each
@pytest.mark.parametrize("steps", [20, np.arange(50)], ids=["scalar", "vector"])
def test_inside_compiled_function(schedule, steps):
    compiled = tf.function(schedule, jit_compile=True)
    due, sparsity = compiled(tf.constant(steps, tf.int64))
    expected_due, expected = schedule(steps)
    assert (due.dtype, sparsity.dtype) == (tf.bool, tf.float32)
    np.testing.assert_array_equal(due, expected_due)
    np.testing.assert_allclose(sparsity, expected, rtol=0, atol=1e-6)


@each
def test_evaluate_gives_host_arrays(schedule):
    due, sparsity = schedule.evaluate(range(50))
    assert (type(due), due.dtype, type(sparsity), sparsity.dtype) == (
        np.ndarray,
        np.dtype(bool),
        np.ndarray,
        np.dtype("float32"),
    )
    np.testing.assert_array_equal(due, asked(schedule, range(50))[0])


# -- Constructors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "same"),
    [
        (ConstantSparsity.one_shot(0.7), ConstantSparsity(0.7, 0, 0, 1)),
        (ConstantSparsity.one_shot(0.7, step=9), ConstantSparsity(0.7, 9, 9, 1)),
        (PolynomialDecay.linear(0.1, 0.7, 5, 50), PolynomialDecay(0.1, 0.7, 5, 50, 1, 100)),
        (PolynomialDecay.linear(0.1, 0.7, 5, 50, 2), PolynomialDecay(0.1, 0.7, 5, 50, 1, 2)),
        (
            PolynomialDecay.from_epochs(0.0, 0.9, steps_per_epoch=469, begin_epoch=1, end_epoch=5),
            PolynomialDecay(0.0, 0.9, 469, 2345, frequency=100),
        ),
        (
            Cosine.from_epochs(0.0, 0.9, steps_per_epoch=10, end_epoch=2),
            Cosine(0.0, 0.9, 0, 20, frequency=2),
        ),
        (
            Iterative.from_epochs(
                0.0, 0.9, steps_per_epoch=10, begin_epoch=0.5, end_epoch=2.5, n_steps=4, frequency=3
            ),
            Iterative(0.0, 0.9, 5, 25, n_steps=4, frequency=3),
        ),
        (
            ConstantSparsity.from_epochs(0.5, steps_per_epoch=30, begin_epoch=2),
            ConstantSparsity(0.5, 60, -1, 30),
        ),
        (
            ConstantSparsity.from_epochs(0.5, steps_per_epoch=3, end_epoch=1),
            ConstantSparsity(0.5, 0, 3, 1),
        ),
        (ConstantSparsity(0.5, np.int64(3), np.float64(9)), ConstantSparsity(0.5, 3, 9)),
    ],
)
def test_named_constructors(made, same):
    assert made == same


def test_one_shot_prunes_once():
    due, _ = ConstantSparsity.one_shot(0.7, step=4)(np.arange(500))
    assert np.flatnonzero(due).tolist() == [4]


def test_linear_is_a_line():
    _, sparsity = PolynomialDecay.linear(0.0, 0.8, 0, 8)(np.arange(9))
    np.testing.assert_allclose(sparsity, np.arange(9) / 10, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("schedule", "target"),
    [
        (ConstantSparsity(0.7, 0), 0.7),
        (PolynomialDecay(0.0, 0.9, 0, 100), 0.9),
        (Cosine(0.9, 0.2, 0, 100), 0.9),
        (DenseSparseDense(0.1, 0.6, 0, 101), 0.6),  # the peak, not the end
    ],
)
def test_target_sparsity(schedule, target):
    assert schedule.target_sparsity == target
    assert isinstance(schedule.target_sparsity, float)


# -- A user's own schedule, written for tfmot ------------------------------------------------------

PruningSchedule = tfprune.PruningSchedule


# Word for word as its author published it for tfmot; only the line above is another one.
# fmt: off
class ExponentialPruning(PruningSchedule):
    def __init__(self, rate=0.01, begin_step=0, frequency=100, max_sparsity=0.9):
        self.rate = rate
        self.begin_step = begin_step
        self.frequency = frequency
        self.max_sparsity = max_sparsity
        # Validation functions provided by the parent class
        # The -1 parameter is for the end_step
        # as this pruning schedule does not have one
        # The last true value is a boolean flag which says it is okay
        # to have no end_step
        self._validate_step(self.begin_step, -1, self.frequency, True)
        self._validate_sparsity(self.max_sparsity, 'Max Sparsity')
    def __call__(self, step):
        # Sparsity calculation endpoint
        # step is a integer tensor
        # The sparsity returned by __call__ must be a tensor
        # of dtype=tf.float32, so tf.math is required.
        # In the logic below, you can assume that a valid
        # pruning step is passed.
        p = tf.math.divide(
            tf.cast(step - self.begin_step, tf.float32),
            tf.constant(self.frequency, dtype=tf.float32)
        )
        sparsity = tf.math.subtract(
            tf.constant(1, dtype=tf.float32),
            tf.math.pow(
                tf.constant(1 - self.rate, dtype=tf.float32),
                p
            )
        )
        sparsity = tf.cond(
            tf.math.greater(sparsity, tf.constant(self.max_sparsity, dtype=tf.float32)),
            lambda: tf.constant(self.max_sparsity, dtype=tf.float32),
            lambda: sparsity
        )
        # This function returns a tuple of length 2
        # The first value determines if pruning should occur on this step
        # I recommend using the parent class function below for this purpose
        # The negative one value denotes no end_step
        # The second value is the sparsity to prune to
        return (self._should_prune_in_step(step, self.begin_step, -1, self.frequency),
                sparsity)
    def get_config(self):
        # A function required by the parent class
        # return the class_name and the input parameters as
        # done below
        return {
            'class_name': self.__class__.__name__,
            'config': {
                'rate': self.rate,
                'begin_step': self.begin_step,
                'frequency': self.frequency,
                'max_sparsity': self.max_sparsity
            }
        }
# fmt: on


def by_rate(steps, rate, begin, frequency, most):
    return np.minimum(most, 1 - (1 - rate) ** ((np.asarray(steps) - begin) / frequency))


def test_own_schedule_called_and_evaluated():
    schedule = ExponentialPruning(rate=1 / 8, begin_step=4, frequency=10, max_sparsity=0.7)
    steps = np.arange(4, 150)
    expected = by_rate(steps, 1 / 8, 4, 10, 0.7)
    due, sparsity = schedule.evaluate(steps)
    np.testing.assert_allclose(sparsity, expected, rtol=0, atol=1e-6)
    assert steps[due].tolist() == list(range(4, 150, 10))
    compiled = tf.function(schedule)
    for step, value in zip(steps[::20], expected[::20], strict=True):
        for call in (schedule, compiled):
            due, sparsity = call(tf.constant(step, tf.int64))
            assert (due.dtype, sparsity.dtype) == (tf.bool, tf.float32)
            assert float(sparsity) == pytest.approx(value, abs=1e-6)
    assert schedule.target_sparsity == 0.7


@pytest.mark.parametrize("nested", [True, False])
def test_own_schedule_serialized(nested):
    schedule = ExponentialPruning(0.05, 7, 20, 0.6)
    serialize = keras.saving.serialize_keras_object if nested else schedules.serialize
    config = json.loads(json.dumps(serialize(schedule)))
    assert ("class_name" in config["config"]) is nested
    with keras.saving.custom_object_scope({"ExponentialPruning": ExponentialPruning}):
        for back in (keras.saving.deserialize_keras_object(config), schedules.get(config)):
            assert type(back) is ExponentialPruning
            assert vars(back) == vars(ExponentialPruning(0.05, 7, 20, 0.6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"begin_step": -1}, "begin_step"),
        ({"frequency": 0}, "frequency"),
        ({"max_sparsity": 90}, "Max Sparsity"),
    ],
)
def test_own_schedule_is_validated(arguments, message):
    with pytest.raises(ValueError, match=rf"Expected `{message}`.*Received: {message}="):
        ExponentialPruning(**arguments)


def test_own_schedule_trains_a_model_to_its_max_sparsity(tmp_path):
    model = keras.Sequential(
        [keras.Input((20,)), keras.layers.Dense(30, activation="relu"), keras.layers.Dense(1)]
    )
    pruned = tfprune.prune_low_magnitude(
        model, ExponentialPruning(rate=1 / 4, frequency=2, max_sparsity=0.8)
    )
    pruned.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(80, 20)).astype("float32")
    arguments = {"batch_size": 8, "verbose": 0, "callbacks": [tfprune.UpdatePruningStep()]}
    sparsity = pruned.fit(x, x[:, :1], epochs=2, **arguments).history["sparsity"]
    kept = 1 - by_rate([10, 20], 1 / 4, 0, 2, 0.8)
    expected = [1 - (round(600 * k) + round(30 * k)) / 630 for k in kept]
    assert sparsity == pytest.approx(expected, abs=1e-9)
    assert [np.count_nonzero(w.numpy()) for w in pruned.weights if w.path.endswith("kernel")] == [
        120,
        6,
    ]
    pruned.save(tmp_path / "own.keras")
    loaded = keras.saving.load_model(
        tmp_path / "own.keras", custom_objects={"ExponentialPruning": ExponentialPruning}
    )
    np.testing.assert_array_equal(outputs(loaded, x), outputs(pruned, x))
    assert loaded.fit(x, x[:, :1], **arguments).history["sparsity"] == sparsity[-1:]


class Scalar(tfprune.PruningSchedule):
    """Takes single steps only, and counts how it is called."""

    end_step = 30

    def __call__(self, step):
        return step % 10 == 0, 0.5 if int(step) < 20 else 0.25

    def get_config(self):
        return {}


def test_schedule_of_single_steps_is_evaluated_one_by_one():
    due, sparsity = Scalar().evaluate(np.arange(31))
    assert np.flatnonzero(due).tolist() == [0, 10, 20, 30]
    assert sparsity.tolist() == [0.5] * 20 + [0.25] * 11
    assert Scalar().target_sparsity == 0.5


@pytest.mark.parametrize("missing", [lambda s: s(0), lambda s: s.get_config()])
def test_incomplete_schedule_says_what_is_missing(missing):
    class Incomplete(tfprune.PruningSchedule):
        pass

    with pytest.raises(NotImplementedError, match=r"has to implement .* Incomplete does not"):
        missing(Incomplete())


# -- tfmot's own objects ---------------------------------------------------------------------------

WITH_TFMOT = """
import json, keras, tfprune
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot

theirs = tfmot.sparsity.keras

class Own(theirs.PruningSchedule):
    begin_step, end_step, frequency = 0, 8, 2
    def __init__(self, factor):
        self.factor = factor
    def __call__(self, step):
        due = self._should_prune_in_step(step, 0, 8, 2)
        return due, tf.cast(step, tf.float32) * self.factor
    def get_config(self):
        return {"class_name": "Own", "config": {"factor": self.factor}}

get = tfprune.schedules.get
polynomial = theirs.PolynomialDecay(0.1, 0.8, 5, 50, power=2, frequency=7)
constant = theirs.ConstantSparsity(0.6, 3, frequency=9)
own = get(Own(0.1))
config = json.loads(json.dumps(keras.saving.serialize_keras_object(own)))
with keras.saving.custom_object_scope({"Own": Own}):
    back = keras.saving.deserialize_keras_object(config)
model = tfprune.prune_low_magnitude(
    keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)]), Own(0.1))
model.compile("sgd", "mse")
x = np.random.default_rng(0).normal(size=(8, 10))
history = model.fit(x, x, batch_size=1, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
print(json.dumps({
    "polynomial": get(polynomial) == tfprune.PolynomialDecay(0.1, 0.8, 5, 50, 2, 7),
    "constant": get(constant) == tfprune.ConstantSparsity(0.6, 3, -1, 9),
    "steps": [own.begin_step, own.end_step, own.frequency],
    "due": own.evaluate(range(10))[0].tolist(),
    "sparsity": [round(float(s), 6) for s in own.evaluate(range(10))[1]],
    "back": [round(float(s), 6) for s in back.evaluate(range(10))[1]],
    "target": own.target_sparsity,
    "trained": history.history["sparsity"],
}))
"""


def test_schedule_objects_of_tfmot_are_accepted():
    done = subprocess.run(
        [sys.executable, "-c", WITH_TFMOT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    line = [round(step / 10, 6) for step in range(10)]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "polynomial": True,
        "constant": True,
        "steps": [0, 8, 2],
        "due": [step in (0, 2, 4, 6, 8) for step in range(10)],
        "sparsity": line,
        "back": line,
        "target": 0.8,
        "trained": [0.8],
    }


# -- Drawing ---------------------------------------------------------------------------------------


@pytest.fixture
def axes():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt.figure().add_subplot()
    plt.close("all")


def test_plot_draws_what_the_masks_hold(axes):
    schedule = PolynomialDecay.linear(0.0, 0.8, 2, 6, frequency=2)
    assert schedule.plot(steps=8, ax=axes) is axes.figure
    curve, dots = axes.lines
    held = [0, 0, 0, 0, 0.4, 0.4, 0.8, 0.8, 0.8]
    np.testing.assert_allclose(curve.get_xydata(), np.c_[np.arange(9), held], atol=1e-6)
    np.testing.assert_allclose(dots.get_xydata(), [[2, 0], [4, 0.4], [6, 0.8]], atol=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer step", "sparsity")


@each
def test_plot_shows_the_whole_schedule(schedule, axes):
    drawn = schedule.plot()
    assert drawn is not axes.figure
    curve, dots = drawn.axes[0].lines
    assert curve.get_xdata()[-1] > 33
    assert {10, 33} <= set(dots.get_xdata())


def test_plot_of_an_endless_schedule(axes):
    curve, dots = ConstantSparsity(0.5, 20, frequency=10).plot(ax=axes).axes[0].lines
    assert (curve.get_ydata()[:20] == 0).all() and (curve.get_ydata()[20:] == 0.5).all()
    assert dots.get_xdata()[:3].tolist() == [20, 30, 40]


def test_plot_takes_a_path(axes, tmp_path):
    schedule = PolynomialDecay(0.0, 0.8, 0, 100)
    for name, start in {"s.png": b"\x89PNG", "s.pdf": b"%PDF", "s": b"\x89PNG"}.items():
        schedule.plot(tmp_path / name)
        path = tmp_path / (name if "." in name else f"{name}.png")
        assert path.read_bytes().startswith(start)
    schedule.plot(str(tmp_path / "s.svg"))
    assert {path.name for path in tmp_path.iterdir()} == {"s.png", "s.pdf", "s.svg"}
    before = (tmp_path / "s.png").read_bytes()
    with pytest.raises(ValueError, match="can be written"):
        schedule.plot(tmp_path / "no" / "s.png")
    with pytest.raises(ValueError):
        schedule.plot(tmp_path / "s.beautiful")
    assert {path.name for path in tmp_path.iterdir()} == {"s.png", "s.pdf", "s.svg"}
    assert (tmp_path / "s.png").read_bytes() == before


def test_plot_takes_the_steps_first_as_it_used_to(axes):
    schedule = PolynomialDecay(0.0, 0.8, 0, 100)
    with pytest.warns(DeprecationWarning, match=r"plot\(steps=1000\)") as caught:
        figure = schedule.plot(150)
    assert caught[0].filename == __file__
    assert figure.axes[0].lines[0].get_xdata()[-1] == 150


# -- Bad input -------------------------------------------------------------------------------------

GOOD = {"begin_step": 0, "end_step": 10}
BAD_SPARSITIES = [1, 1.0, 90, -0.1, float("nan"), float("inf"), True, "0.5", None, [0.5]]
BAD = [
    *((make, {**GOOD, **bad}) for make in [ConstantSparsity, *RAMPS] for bad in [
        {"begin_step": -1},
        {"begin_step": 1.5},
        {"begin_step": "0"},
        {"begin_step": None},
        {"begin_step": True},
        {"end_step": 1.5},
        {"end_step": -2},
        {"end_step": float("nan")},
        {"frequency": 0},
        {"frequency": -1},
        {"frequency": 2.5},
        {"frequency": "10"},
    ]),
    *((make, {**GOOD, "end_step": -1}) for make in RAMPS),
    *((PolynomialDecay, {**GOOD, "power": bad}) for bad in [0, -1, float("nan"), "3", None, True]),
    *((Iterative, {**GOOD, "n_steps": bad}) for bad in [0, -1, 1.5, "3"]),
]  # fmt: skip


@pytest.mark.parametrize(("make", "arguments"), BAD)
def test_bad_arguments(make, arguments):
    sparsity = {"target_sparsity": 0.5}
    if make is not ConstantSparsity:
        sparsity = {"initial_sparsity": 0.1, "final_sparsity": 0.5}
    (name,) = (n for n, value in arguments.items() if n not in GOOD or value is not GOOD[n])
    with pytest.raises((ValueError, TypeError), match=rf"Expected `{name}`.*Received: .*{name}="):
        make(**sparsity, **arguments)


@pytest.mark.parametrize("bad", BAD_SPARSITIES)
@pytest.mark.parametrize(
    ("make", "name"),
    [(ConstantSparsity, "target_sparsity")]
    + [(make, name) for make in RAMPS for name in ("initial_sparsity", "final_sparsity")],
)
def test_bad_sparsity(make, name, bad):
    good = {"initial_sparsity": 0.1, "final_sparsity": 0.5} if make is not ConstantSparsity else {}
    with pytest.raises((ValueError, TypeError), match=rf"Expected `{name}`.*Received: {name}="):
        make(**{**good, name: bad}, **GOOD)


def test_a_percentage_is_recognized():
    with pytest.raises(ValueError, match=r"did you mean 0\.9\?"):
        ConstantSparsity(90, 0)


@pytest.mark.parametrize("make", [ConstantSparsity, *RAMPS])
def test_begin_after_end(make):
    sparsity = [0.5] if make is ConstantSparsity else [0.1, 0.5]
    with pytest.raises(ValueError, match=r"Expected `begin_step`.*begin_step=9, end_step=5"):
        make(*sparsity, begin_step=9, end_step=5)


@pytest.mark.parametrize("make", RAMPS)
def test_a_ramp_needs_a_span(make):
    with pytest.raises(ValueError, match=r"Expected `begin_step`.*Received.*one_shot"):
        make(0.1, 0.5, 9, 9)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"steps_per_epoch": 0, "end_epoch": 1}, "steps_per_epoch"),
        ({"steps_per_epoch": 1.5, "end_epoch": 1}, "steps_per_epoch"),
        ({"steps_per_epoch": 10}, "end_epoch"),
        ({"steps_per_epoch": 10, "end_epoch": float("nan")}, "end_epoch"),
        ({"steps_per_epoch": 10, "end_epoch": "2"}, "end_epoch"),
        ({"steps_per_epoch": 10, "end_epoch": 2, "begin_epoch": -1}, "begin_epoch"),
        ({"steps_per_epoch": 10, "end_epoch": 2, "begin_epoch": None}, "begin_epoch"),
    ],
)
def test_bad_epochs(arguments, name):
    with pytest.raises((ValueError, TypeError), match=rf"Expected `{name}`.*Received: {name}="):
        PolynomialDecay.from_epochs(0.0, 0.9, **arguments)


@pytest.mark.parametrize("bad", [0.5, None, PolynomialDecay, lambda step: 0.5])
def test_get_rejects_what_is_no_schedule(bad):
    with pytest.raises(TypeError, match=r"Expected `pruning_schedule` to be .* Received: pruning_"):
        schedules.get(bad)


def test_schedules_by_name():
    made = schedules.get("cosine", initial_sparsity=0, final_sparsity=0.5, begin_step=0, end_step=9)
    assert made == tfprune.Cosine(0, 0.5, 0, 9)
    with pytest.raises(ValueError, match=r"Expected `pruning_schedule` to be one of .*'cosine'"):
        schedules.get("PolynomialDecay")
    with pytest.raises(ValueError, match=r"Expected the arguments of the schedule 'cosine'"):
        schedules.get("cosine", initial_sparsity=0)

"""Sensitivity analysis against the same done by hand with Keras and numpy."""

import json
import re
import sys
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import layers
from picture_support import assert_readable

import tfprune
from tfprune._analysis.sensitivity.analysis import LayerSensitivity

pytestmark = pytest.mark.usefixtures("fresh")

SPARSITIES = (0.25, 0.5, 0.9)


def arrays():
    random = np.random.default_rng(0)
    return random.normal(size=(40, 6)).astype("float32"), random.integers(0, 3, 40)


def small(metrics=("accuracy",)):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "relu", name="first"),
            layers.Reshape((4, 2)),
            layers.LSTM(3, name="lstm"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, "softmax", name="last"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=list(metrics))
    return model


# -- Against the same by hand ----------------------------------------------------------------------

KERNELS = {
    "first": lambda model: [model.layers[0].kernel],
    "lstm/lstm_cell": lambda model: [
        model.get_layer("lstm").cell.kernel,
        model.get_layer("lstm").cell.recurrent_kernel,
    ],
    "last": lambda model: [model.layers[-1].kernel],
}


def lowest_to_zero(array, sparsity):
    """The smallest magnitudes become zero: a full sort, and no tfprune."""
    flat = array.reshape(-1).copy()
    number = flat.size - max(1, round(flat.size * (1 - sparsity)))
    flat[np.argsort(np.abs(flat), kind="stable")[:number]] = 0
    return flat.reshape(array.shape)


def by_hand(model, measure, sparsities):
    """`{layer: [metric at each sparsity]}`."""
    copy = keras.models.clone_model(model)
    copy.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    found = {}
    for layer in KERNELS:
        found[layer] = []
        for sparsity in sparsities:
            copy.set_weights(model.get_weights())
            for variable in KERNELS[layer](copy):
                variable.assign(lowest_to_zero(variable.numpy(), sparsity))
            found[layer].append(measure(copy))
    return found


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_values_are_those_of_a_loop_by_hand(metric):
    model, data = small(), arrays()
    for weight in model.trainable_weights:
        # Outputs far apart, and right before pruning, so that pruning changes the accuracy.
        weight.assign(3 * weight.numpy())
    data = (data[0], np.argmax(model.predict(data[0], verbose=0), axis=-1))

    def measure(one):
        return one.evaluate(*data, verbose=0, return_dict=True)[metric]

    found = tfprune.sensitivity(model, data, metric, sparsities=SPARSITIES, verbose=0)
    assert (found.metric, found.sparsities) == (metric, SPARSITIES)
    assert found.baseline == pytest.approx(measure(model), rel=1e-6)
    assert [row.layer for row in found.rows] == list(KERNELS)
    assert [row.parameters for row in found.rows] == [6 * 8, 2 * 12 + 3 * 12, 3 * 3]
    for row, expected in zip(found.rows, by_hand(model, measure, SPARSITIES).values(), strict=True):
        assert row.values == pytest.approx(expected, rel=1e-6)
    assert len({value for row in found.rows for value in row.values}) > 4


def kept_kernels(model):
    return {
        name: [np.count_nonzero(variable.numpy()) for variable in get(model)]
        for name, get in KERNELS.items()
    }


def test_one_layer_alone_is_pruned():
    model = small()
    seen = []

    def watch(one):
        assert one is model
        seen.append(kept_kernels(one))
        return len(seen)

    found = tfprune.sensitivity(model, metric=watch, sparsities=(0.5,), verbose=0)
    whole = {"first": [48], "lstm/lstm_cell": [24, 36], "last": [9]}
    halves = {"first": [24], "lstm/lstm_cell": [12, 18], "last": [4]}
    assert seen == [whole, *({**whole, name: halves[name]} for name in whole)]
    assert (found.metric, found.baseline) == ("watch", 1.0)
    assert [row.values for row in found.rows] == [(2.0,), (3.0,), (4.0,)]


@pytest.mark.parametrize(
    ("criterion", "pattern"),
    [("small_final", None), ("magnitude", "row"), ("random", tfprune.Filter(coupled=False))],
)
def test_masks_are_those_of_the_kernel(criterion, pattern):
    model = small()
    kernel = model.layers[0].kernel
    before = kernel.numpy()
    seen = []
    tfprune.sensitivity(
        model,
        metric=lambda one: seen.append(kernel.numpy()) or 0.0,
        sparsities=(0.5,),
        criterion=criterion,
        pattern=pattern,
        layers="first",
        verbose=0,
    )
    mask = tfprune.compute_mask(before, 0.5, criterion=criterion, pattern=pattern)
    assert np.array_equal(seen[1], np.where(mask, before, 0))
    assert not np.signbit(seen[1][~mask]).any()


def test_a_criterion_on_gradients_gets_them_from_the_data():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(1, use_bias=False, name="only")(inputs))
    model.compile("sgd", "mse")
    kernel = np.array([[0.1], [-2.0], [0.3], [1.0]], "float32")
    model.layers[-1].kernel.assign(kernel)
    random = np.random.default_rng(0)
    x = random.normal(size=(16, 4)).astype("float32") * [8, 0.01, 1, 0.5]
    y = random.normal(size=(16, 1)).astype("float32")
    # Mean squared error: the gradient of the mean over the batch.
    gradient = 2 / 16 * x.T @ (x @ kernel - y)
    order = np.argsort(((gradient * kernel) ** 2).reshape(-1))
    seen = []

    def measure(one):
        seen.append(one.layers[-1].kernel.numpy().reshape(-1))
        return 0.0

    tfprune.sensitivity(
        model,
        (x, y),
        measure,
        criterion="taylor",
        sparsities=(0.5,),
        batch_size=16,
        verbose=0,
    )
    assert sorted(np.flatnonzero(seen[1] == 0)) == sorted(order[:2])
    assert sorted(order[:2]) != sorted(np.argsort(np.abs(kernel.reshape(-1)))[:2])


def test_the_first_compiled_metric_counts():
    data = arrays()
    found = [
        tfprune.sensitivity(model, data, sparsities=(0.5,), layers="last", verbose=0)
        for model in (
            small(["sparse_categorical_crossentropy", "accuracy"]),
            small(["accuracy"]),
            small([]),
        )
    ]
    names = ["sparse_categorical_crossentropy", "accuracy", "loss"]
    assert [one.metric for one in found] == names


def test_data_sets_and_sample_weights():
    model, (x, y) = small(), arrays()
    weights = np.linspace(0, 1, len(y)).astype("float32")

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            part = slice(10 * index, 10 * index + 10)
            return x[part], y[part], weights[part]

    given = {"metric": "loss", "sparsities": (0.5,), "layers": "last", "verbose": 0}
    one = tfprune.sensitivity(model, (x, y, weights), **given)
    other = tfprune.sensitivity(model, Batches(), **given)
    plain = tfprune.sensitivity(model, (x, y), **given)
    assert other.baseline == pytest.approx(one.baseline, rel=1e-5)
    assert other.rows[0].values == pytest.approx(one.rows[0].values, rel=1e-5)
    assert abs(plain.baseline - one.baseline) > 1e-3


# -- The model stays -------------------------------------------------------------------------------


def test_weights_stay_bit_for_bit():
    model, data = small(), arrays()
    kernel = model.layers[0].kernel
    # Zeros of both signs.
    kernel.assign(np.where(np.arange(48).reshape(6, 8) % 3 == 0, -0.0, kernel.numpy()))
    model.optimizer.build(model.trainable_variables)
    before = [weight.numpy().tobytes() for weight in model.weights]
    state = [variable.numpy().tobytes() for variable in model.optimizer.variables]
    tfprune.sensitivity(model, data, sparsities=SPARSITIES, verbose=0)
    assert [weight.numpy().tobytes() for weight in model.weights] == before
    assert [variable.numpy().tobytes() for variable in model.optimizer.variables] == state


def test_weights_come_back_from_an_interrupted_measurement():
    model = small()
    before = [weight.numpy().tobytes() for weight in model.weights]
    calls = []

    def stop(one):
        calls.append(kept_kernels(one))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        tfprune.sensitivity(model, metric=stop, sparsities=SPARSITIES, verbose=0)
    assert calls[-1]["first"] == [24]
    assert [weight.numpy().tobytes() for weight in model.weights] == before


def test_a_wrapped_model_keeps_its_masks():
    model, data = small(), arrays()
    pruned = tfprune.pruners.one_shot(model, 0.5)
    pruned.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = [weight.numpy().tobytes() for weight in pruned.weights]
    found = tfprune.sensitivity(pruned, data, "loss", sparsities=(0.5, 0.9), verbose=0)
    assert [row.layer for row in found.rows] == list(KERNELS)
    assert all(row.values[0] == pytest.approx(found.baseline) for row in found.rows)
    assert all(row.values[1] != pytest.approx(found.baseline) for row in found.rows)
    assert [weight.numpy().tobytes() for weight in pruned.weights] == before


# -- Resuming --------------------------------------------------------------------------------------


class Counted:
    """A metric that counts how often it is asked, and stops when told to."""

    __name__ = "counted"

    def __init__(self, stop_after=None):
        self.calls = 0
        self.stop_after = stop_after

    def __call__(self, model):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return float(sum(np.abs(weight.numpy()).sum() for weight in model.weights))


def test_only_what_is_missing_is_measured(tmp_path):
    model, path = small(), tmp_path / "sensitivity.json"
    given = {"sparsities": SPARSITIES, "verbose": 0}
    whole = tfprune.sensitivity(model, metric=Counted(), **given)
    with pytest.raises(KeyboardInterrupt):
        tfprune.sensitivity(model, metric=Counted(5), path=path, **given)
    values = json.loads(path.read_text())["values"]
    assert sum(len(of_layer) for of_layer in values.values()) == 4
    rest = Counted()
    assert tfprune.sensitivity(model, metric=rest, path=path, **given) == whole
    assert rest.calls == 10 - 5
    nothing = Counted()
    assert tfprune.sensitivity(model, metric=nothing, path=str(path), **given) == whole
    assert nothing.calls == 0
    # One more sparsity of one layer.
    more = Counted()
    found = tfprune.sensitivity(
        model, metric=more, path=path, sparsities=(0.5, 0.75), layers="last", verbose=0
    )
    assert more.calls == 1 and found.rows[0].values[0] == whole.rows[2].values[1]
    assert [file.name for file in tmp_path.iterdir()] == ["sensitivity.json"]


def test_names_that_keras_numbers_on_mean_the_same_layers(tmp_path):
    """In a process that made another layer before, the first Dense may be called dense_1."""

    def twin(first):
        names = [f"dense_{number}" for number in (first, first + 1)]
        model = keras.Sequential([keras.Input((6,)), *[layers.Dense(6, name=n) for n in names]])
        random = np.random.default_rng(0)
        model.set_weights([random.normal(size=weight.shape) for weight in model.weights])
        return model

    given = {"sparsities": SPARSITIES, "path": tmp_path / "sensitivity.json", "verbose": 0}
    then, again = Counted(), Counted()
    whole = tfprune.sensitivity(twin(0), metric=then, **given)
    found = tfprune.sensitivity(twin(1), metric=again, **given)
    assert (then.calls, again.calls) == (7, 0)
    assert [row.values for row in found.rows] == [row.values for row in whole.rows]
    assert [row.layer for row in found.rows] == ["dense_1", "dense_2"]


class Between(Counted):
    """Counted, with a run of its own in the middle of the outer one."""

    __name__ = "counted"

    def __init__(self, at, run):
        super().__init__()
        self.at, self.run = at, run

    def __call__(self, model):
        if self.calls == self.at:
            self.run()
        return super().__call__(model)


@pytest.mark.parametrize("stop_after", [None, 3])
def test_runs_with_one_file_do_not_destroy_each_other(stop_after, tmp_path):
    model, path = small(), tmp_path / "sensitivity.json"
    # While a layer of a model is pruned, the model has other weights than the file is for.
    twin = small()
    twin.set_weights(model.get_weights())
    given = {"sparsities": SPARSITIES, "verbose": 0}
    whole = tfprune.sensitivity(model, metric=Counted(), path=tmp_path / "alone.json", **given)
    inner = []

    def run():
        metric = Counted(stop_after)
        with pytest.raises(KeyboardInterrupt) if stop_after else nullcontext():
            inner.append(tfprune.sensitivity(twin, metric=metric, path=path, **given))
        # What the outer run has measured so far is not measured again.
        assert metric.calls == (stop_after or 10 - 5)

    metric = Between(5, run)
    assert tfprune.sensitivity(model, metric=metric, path=path, **given) == whole
    assert inner == ([] if stop_after else [whole])
    assert path.read_bytes() == (tmp_path / "alone.json").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alone.json", "sensitivity.json"]


def test_a_file_of_other_settings_is_refused(tmp_path):
    model, data, path = small(), arrays(), tmp_path / "sensitivity.json"
    given = {"sparsities": (0.5,), "layers": "last", "path": path, "verbose": 0}
    tfprune.sensitivity(model, data, "accuracy", **given)
    written = path.read_bytes()
    x, y = data
    for name, call in (
        ("data", lambda: tfprune.sensitivity(model, (x + 1, y), "accuracy", **given)),
        ("metric", lambda: tfprune.sensitivity(model, data, "loss", **given)),
        ("metric", lambda: tfprune.sensitivity(model, data, **given)),
        (
            "criterion",
            lambda: tfprune.sensitivity(model, data, "accuracy", criterion="random", **given),
        ),
        (
            "pattern",
            lambda: tfprune.sensitivity(model, data, "accuracy", pattern="filter", **given),
        ),
        ("weights", lambda: tfprune.sensitivity(small(), data, "accuracy", **given)),
    ):
        with pytest.raises(ValueError, match=f"with the same {name}"):
            call()
    assert path.read_bytes() == written


def test_a_first_metric_that_has_changed_is_refused(tmp_path):
    model, data, path = small(), arrays(), tmp_path / "sensitivity.json"
    tfprune.sensitivity(model, data, sparsities=(0.5,), layers="last", path=path, verbose=0)
    others = ["sparse_categorical_crossentropy", "accuracy"]
    model.compile("adam", "sparse_categorical_crossentropy", metrics=others)
    with pytest.raises(ValueError, match="the metric 'accuracy', which the file"):
        tfprune.sensitivity(model, data, sparsities=(0.6,), layers="last", path=path, verbose=0)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"settings": {}, "values": 3}', "\x00\xff"])
def test_another_file_is_refused_and_left(tmp_path, text):
    path = tmp_path / "notes.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="a file that sensitivity"):
        tfprune.sensitivity(small(), metric=Counted(), path=path, verbose=0)
    assert path.read_text() == text
    counted = Counted()
    for wrong in (tmp_path, tmp_path / "missing" / "file.json"):
        with pytest.raises(ValueError, match="`path` to be a file"):
            tfprune.sensitivity(small(), metric=counted, path=wrong, verbose=0)
    assert counted.calls == 0


# -- Data, table, picture --------------------------------------------------------------------------


def analysis(number=3, sparsities=SPARSITIES, metric="accuracy"):
    rows = [
        LayerSensitivity(
            f"stage_of_the_network_{n}/block_with_a_long_name_{n}",
            1000 * n,
            tuple(0.9 - 0.1 * n * s for s in sparsities),
        )
        for n in range(number)
    ]
    return tfprune.Sensitivity(metric, 0.9, tuple(sparsities), rows)


def test_data_and_table():
    found = analysis()
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["metric"] == "accuracy" and plain["sparsities"] == list(SPARSITIES)
    assert plain["layers"][2] == {
        "layer": found.rows[2].layer,
        "parameters": 2000,
        "values": list(found.rows[2].values),
        "units": None,
        "others": [],
    }
    text = str(found)
    for part in (
        "accuracy, 0.9000 without pruning",
        "25%",
        "90%",
        found.rows[2].layer,
        "2,000",
        "0.7200",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("baseline", "values", "shown"),
    [
        (0.9756, (0.96, 1.0, 0.5), ["0.9756", "0.9600", "1.0000", "0.5000"]),
        (0.08123, (0.09, 2.5, 14.2), ["0.0812", "0.0900", "2.5000", "14.2000"]),
        (0.000812, (0.001, 0.5), ["0.000812", "0.001000", "0.500000"]),
        (12.34567, (12.5, 130.0), ["12.346", "12.500", "130.000"]),
        (54321.9, (54322.0, 60000.5), ["54322", "54322", "60000"]),
        (-0.5, (-0.25, -2.0), ["-0.5000", "-0.2500", "-2.0000"]),
        (0.0, (20.0, 3.25), ["0.000", "20.000", "3.250"]),
        (0.5, (float("nan"), 3e30), ["0.5000", "nan", "3.000e+30"]),
    ],
)
def test_numbers_of_a_table_have_the_same_decimals(baseline, values, shown):
    rows = [LayerSensitivity("one", 10, values)]
    text = str(tfprune.Sensitivity("loss", baseline, tuple(np.arange(len(values)) / 10), rows))
    assert f"loss, {shown[0]} without" in " ".join(text.split())
    (line,) = (line for line in text.splitlines() if line.startswith("│ one"))
    assert re.findall(r"\S+", line.replace("│", " "))[2:] == shown[1:]


def test_most_sensitive_is_what_moves_the_metric_most():
    rows = [
        LayerSensitivity("up", 1, (1.0, 1.2)),
        LayerSensitivity("down", 1, (0.9, 0.2)),
        LayerSensitivity("still", 1, (1.0, 1.0)),
        LayerSensitivity("broken", 1, (1.0, float("nan"))),
    ]
    found = tfprune.Sensitivity("score", 1.0, (0.5, 0.9), rows)
    assert found.most_sensitive() == ["broken", "down", "up", "still"]


def test_picture_shows_the_values(tmp_path):
    found = analysis()
    figure = found.plot(tmp_path / "sensitivity.png")
    assert (tmp_path / "sensitivity.png").stat().st_size > 5000
    axes = figure.axes[0]
    expected = [[found.baseline, *row.values] for row in found.rows]
    np.testing.assert_allclose(axes.images[0].get_array(), expected)
    shown = [text.get_text() for text in axes.texts]
    assert shown == [f"{value:.3f}" for row in expected for value in row]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["as it is", "25%", "50%", "90%"]


@pytest.mark.parametrize(
    ("number", "sparsities"),
    [(1, (0.5,)), (30, np.arange(1, 10) / 10), (3, np.arange(1, 40) / 40), (2, np.arange(13) / 13)],
)
def test_picture_is_readable(number, sparsities):
    assert_readable(analysis(number, sparsities).plot())


def test_picture_of_what_is_no_number():
    rows = [LayerSensitivity("a", 1, (float("nan"), float("inf"), 12345.0))]
    figure = tfprune.Sensitivity("loss", 1.0, SPARSITIES, rows).plot()
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.000", "nan", "inf", "1.2e+04"]
    nothing = [LayerSensitivity("a", 1, (float("nan"),))]
    assert_readable(tfprune.Sensitivity("loss", float("nan"), (0.5,), nothing).plot())


# -- Wrong input -----------------------------------------------------------------------------------


def test_wrong_input_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    model, data, counted = small(), arrays(), Counted()
    path = tmp_path / "sensitivity.json"

    def call(given, **options):
        return lambda: tfprune.sensitivity(given, metric=counted, path=path, **options)

    wrong = [
        (TypeError, "Keras 3", call(3)),
        (TypeError, "Keras 3", call(layers.Dense(3))),
        (ValueError, "built", call(keras.Sequential([layers.Dense(3)]))),
        (ValueError, "`layers` to name", call(model, layers="nobody")),
        (ValueError, "did you mean 0.5", call(model, sparsities=(50,))),
        (ValueError, "at least one sparsity", call(model, sparsities=())),
        (TypeError, "a list of numbers", call(model, sparsities=0.5)),
        (TypeError, "a list of numbers", call(model, sparsities="0.5")),
        (TypeError, "number in", call(model, sparsities=("0.5",))),
        (ValueError, "criterion", call(model, criterion="nothing")),
        (ValueError, "pattern", call(model, pattern="nothing")),
        (TypeError, "whole number", call(model, batch_size=1.5)),
        (ValueError, "leave the layer out", call(model, pattern=tfprune.NOfM(zeros=2, group=5))),
        (ValueError, "'gradient_square' for first", call(model, criterion="taylor")),
        (ValueError, "which uses its own data", call(model, data=data)),
        (TypeError, "name of a compiled", lambda: tfprune.sensitivity(model, data, 3)),
        (
            ValueError,
            "one of 'accuracy'",
            lambda: tfprune.sensitivity(model, data, "f1", path=path),
        ),
        (ValueError, "data=None", lambda: tfprune.sensitivity(model)),
        (ValueError, "only once", lambda: tfprune.sensitivity(model, iter([data]))),
        (ValueError, "one of 4 parts", lambda: tfprune.sensitivity(model, (*data, *data))),
    ]
    for error, text, attempt in wrong:
        with pytest.raises(error, match=text):
            attempt()
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="a compiled model, or a metric"):
        tfprune.sensitivity(plain, data)
    with pytest.raises(TypeError, match="to return a number"):
        tfprune.sensitivity(model, metric=lambda one: [1.0, 2.0], verbose=0)
    assert counted.calls == 0 and not path.exists()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install \"tfprune\[plots\]\""):
        analysis().plot()

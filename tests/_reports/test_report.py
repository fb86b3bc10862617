"""The sparsity report: rows, totals, statuses, data and text."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import tfprune

pytestmark = pytest.mark.usefixtures("fresh")

HALF = tfprune.ConstantSparsity(0.5, begin_step=0)


def model():
    x = keras.Input((10,))
    inner = keras.Sequential(
        [keras.Input((10,)), layers.Dense(20, name="deep"), layers.BatchNormalization(name="norm")],
        name="block",
    )
    frozen = layers.Dense(10, name="frozen", trainable=False)
    y = layers.Reshape((10, 1))(frozen(layers.ReLU()(inner(x))))
    y = layers.Bidirectional(layers.GRU(2, name="gru"), name="both")(y)
    return keras.Model(x, layers.Dense(5, name="out")(y))


# (layer, type, parameters), counted by hand: inputs x outputs; a GRU has three gates.
PARTS = [
    ("block/deep", "Dense", 10 * 20),
    ("block/norm", "BatchNormalization", 4 * 20),
    ("frozen", "Dense", 20 * 10),
    ("both/forward_gru/gru_cell", "GRUCell", 1 * 6 + 2 * 6),
    ("both/backward_gru/gru_cell", "GRUCell", 1 * 6 + 2 * 6),
    ("out", "Dense", 4 * 5),
]
PRUNABLE = 200 + 200 + 18 + 18 + 20


def rows_of(report):
    return [(row.layer, row.type, row.parameters) for row in report.rows]


def statuses_of(report):
    return [row.status for row in report.rows]


class NotGRU(tfprune.PruningPolicy):
    def allow_pruning(self, layer):
        return not isinstance(layer, layers.Bidirectional)

    def ensure_model_supports_pruning(self, model):
        pass


def reasons_of(pruned):
    """The reasons, the same from the model and from its file."""
    return {row.layer: row.status for row in tfprune.sparsity_report(pruned).rows}


def test_the_reason_is_a_rule_or_a_policy(tmp_path):
    rules = [tfprune.Rule(layers.Dense, prune=False), tfprune.Rule("deep", prune=True)]
    pruned = tfprune.prune_low_magnitude(model(), HALF, rules=rules, pruning_policy=NotGRU())
    found = reasons_of(pruned)
    assert found == {
        "block/deep": "pruned",
        "block/norm": "nothing to prune",
        "frozen": "exempt by Rule(Dense)",
        "both/forward_gru/gru_cell": "exempt by NotGRU",
        "both/backward_gru/gru_cell": "exempt by NotGRU",
        "out": "exempt by Rule(Dense)",
    }
    pruned.save(tmp_path / "model.keras")
    assert reasons_of(keras.saving.load_model(tmp_path / "model.keras")) == found


def test_the_reason_is_that_filters_stay(tmp_path):
    network = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(4, name="out"),
        ]
    )
    pruned = tfprune.prune_low_magnitude(network, HALF, pattern="filter")
    found = reasons_of(pruned)
    assert found["conv"] == "pruned"
    assert found["out"] == "its filters stay: they are the model's output"
    pruned.save(tmp_path / "model.keras")
    assert reasons_of(keras.saving.load_model(tmp_path / "model.keras")) == found


def test_the_reasons_of_a_subclassed_model(tmp_path):
    @keras.saving.register_keras_serializable(package="reasons")
    class Own(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.one = layers.Dense(4, name="one")
            self.two = layers.Dense(2, name="two")

        def call(self, x):
            return self.two(self.one(x))

        def get_config(self):
            return {"name": self.name}

    plain = Own(name="own")
    plain(np.zeros((1, 3)))
    pruned = tfprune.prune_low_magnitude(plain, HALF, rules=tfprune.Rule("two", prune=False))
    found = reasons_of(pruned)
    assert found == {"one": "pruned", "two": "exempt by Rule('two')"}
    pruned.save(tmp_path / "model.keras")
    assert reasons_of(keras.saving.load_model(tmp_path / "model.keras")) == found


def test_wrapped():
    pruned = tfprune.prune_low_magnitude(model(), HALF, rules=[tfprune.Rule("out", prune=False)])
    tfprune.UpdatePruningStep(pruned)
    report = tfprune.sparsity_report(pruned)
    assert rows_of(report) == PARTS
    assert statuses_of(report) == [
        "pruned",
        "nothing to prune",
        "pruned, frozen",
        "pruned",
        "pruned",
        "exempt by Rule('out')",
    ]
    # BatchNormalization starts with zeros: beta and the moving mean.
    assert [row.zeros for row in report.rows] == [100, 40, 100, 9, 9, 0]
    assert [row.sparsity for row in report.rows] == [0.5, 0.5, 0.5, 0.5, 0.5, 0.0]
    assert (report.prunable.parameters, report.prunable.zeros) == (PRUNABLE, 218)
    assert report.sparsity == 218 / PRUNABLE
    # Those are no sparsity of the model. The total counts biases too.
    assert (report.total.parameters, report.total.zeros) == (report.weights, 218)
    assert report.total.sparsity == 218 / report.weights
    assert report.weights == sum(row.weights for row in report.rows) > PRUNABLE + 80
    (line,) = [line for line in str(report).splitlines() if "BatchNormalization" in line]
    assert [cell.strip() for cell in line.strip("│").split("│")][2:] == [
        "",
        "",
        "",
        "80",
        "nothing to prune",
    ]


@pytest.mark.parametrize("strip", [False, True], ids=["plain", "stripped"])
def test_without_wrappers(strip):
    plain = model()
    if strip:
        pruned = tfprune.prune_low_magnitude(plain, HALF)
        tfprune.UpdatePruningStep(pruned)
        plain = tfprune.strip_pruning(pruned)
    report = tfprune.sparsity_report(plain)
    assert rows_of(report) == PARTS
    assert set(statuses_of(report)) == {"not wrapped", "nothing to prune"}
    assert report.sparsity == (0.5 if strip else 0.0)


def test_zeros_are_counted_in_the_weight():
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="d")])
    kernel = np.array([[1, 0, 0], [0, -0.0, 2], [1e-30, 3, 4], [5, 6, 7]], "float32")
    plain.layers[0].kernel.assign(kernel)
    (row,) = tfprune.sparsity_report(plain).rows
    assert (row.parameters, row.zeros, row.sparsity) == (12, 4, 4 / 12)


def test_data_is_json():
    pruned = tfprune.prune_low_magnitude(model(), HALF)
    tfprune.UpdatePruningStep(pruned)
    data = json.loads(json.dumps(tfprune.sparsity_report(pruned).to_dict()))
    assert set(data) == {"layers", "pruned", "prunable", "total", "weights"}
    assert data["layers"][0] == {
        "layer": "block/deep",
        "type": "Dense",
        "parameters": 200,
        "zeros": 100,
        "sparsity": 0.5,
        "status": "pruned",
        "weights": 220,
    }
    assert len(data["layers"]) == len(PARTS)
    assert data["prunable"] == {"parameters": PRUNABLE, "zeros": 228, "sparsity": 0.5}
    assert data["pruned"] == data["prunable"]
    assert (
        data["total"]["parameters"]
        == data["weights"]
        == sum(row["weights"] for row in data["layers"])
    )


def test_the_schedules_sparsity_stands_in_a_row_of_its_own_beside_exempt_layers():
    plain = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.DepthwiseConv2D(5, depth_multiplier=2),
            layers.Conv2D(10, 1),
        ]
    )
    pruned = tfprune.prune_low_magnitude(plain, HALF)
    tfprune.UpdatePruningStep(pruned)
    report = tfprune.sparsity_report(pruned)
    assert (report.pruned.parameters, report.pruned.zeros) == (80, 40)
    assert (report.prunable.parameters, report.prunable.zeros) == (200 + 80, 40)
    (line,) = (line for line in str(report).splitlines() if "pruned weights" in line)
    assert "50.00%" in line
    assert "pruned weights" not in str(tfprune.sparsity_report(tfprune.strip_pruning(pruned)))


def test_text_is_a_table():
    plain = keras.Sequential([keras.Input((64,)), layers.Dense(32, name="wide")])
    pruned = tfprune.prune_low_magnitude(plain, tfprune.ConstantSparsity(0.75, begin_step=0))
    tfprune.UpdatePruningStep(pruned)
    lines = str(tfprune.sparsity_report(pruned)).splitlines()
    (line,) = [line for line in lines if "wide" in line]
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "wide",
        "Dense",
        "2,048",
        "1,536",
        "75.00%",
        "2,080",
        "pruned",
    ]
    for title in ("Layer", "Type", "Prunable", "Zeros", "Sparsity", "With biases", "Status"):
        assert any(title in line for line in lines[:4])
    assert sum("1,536" in line for line in lines) == 3


@keras.saving.register_keras_serializable(package="tests")
class Small(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, name="first")
        self.parts = [layers.Dense(8, name="part", trainable=False)]

    def build(self, input_shape):
        self.first.build(input_shape)
        self.parts[0].build((None, 8))
        self.built = True

    def call(self, inputs):
        return self.parts[0](self.first(inputs))


def test_subclassed():
    plain = Small(name="small")
    plain.build((None, 4))
    assert rows_of(tfprune.sparsity_report(plain)) == [
        ("first", "Dense", 32),
        ("part", "Dense", 64),
    ]
    pruned = tfprune.prune_low_magnitude(plain, HALF)
    tfprune.UpdatePruningStep(pruned)
    report = tfprune.sparsity_report(pruned)
    assert [row.layer.split("/")[-1] for row in report.rows] == ["first", "part"]
    assert statuses_of(report) == ["pruned", "pruned, frozen"]
    assert [row.zeros for row in report.rows] == [16, 32]


def test_shared_layer_is_one_row():
    x = keras.Input((6,))
    layer = layers.Dense(6, name="shared")
    pruned = tfprune.prune_low_magnitude(keras.Model(x, layer(layer(x))), HALF)
    assert rows_of(tfprune.sparsity_report(pruned)) == [("shared", "Dense", 36)]


@pytest.mark.parametrize("wrap", [False, True])
def test_single_layer(wrap):
    layer = layers.Dense(4, name="alone")
    layer.build((None, 8))
    if wrap:
        layer = tfprune.prune_low_magnitude(layer, HALF)
        layer.build((None, 8))
    (row,) = tfprune.sparsity_report(layer).rows
    assert (row.layer, row.type, row.parameters) == ("alone", "Dense", 32)
    assert row.status == ("pruned" if wrap else "not wrapped")


def test_model_without_weights():
    report = tfprune.sparsity_report(keras.Sequential([keras.Input((4,)), layers.ReLU()]))
    assert (report.rows, report.sparsity, report.total.parameters) == ([], 0.0, 0)


@pytest.mark.parametrize(
    ("thing", "error", "message"),
    [
        (3, TypeError, "Expected a Keras 3 layer or model. Received: model=int"),
        (Small(name="early"), ValueError, "Expected a built model. Received: 'early'. Call it"),
    ],
)
def test_bad_input(thing, error, message):
    with pytest.raises(error, match=message):
        tfprune.sparsity_report(thing)


def test_text_is_text_in_a_notebook_too(monkeypatch):
    """There, rich would show tables itself, and leave the text empty."""
    import rich.console

    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="last")])
    assert "last" in str(tfprune.sparsity_report(model))
    assert "last" in str(tfprune.plan_shrink(model))
    assert "last" in str(tfprune.compare(model, model, formats=[], latency=False))


@pytest.mark.parametrize("wrapped", [False, True])
def test_all_weights_are_those_that_the_cost_counts(wrapped):
    """With biases, normalization and dropout, in a model inside another."""
    inside = keras.Sequential(
        [keras.Input((8, 8, 4)), keras.layers.BatchNormalization(), keras.layers.Conv2D(4, 3)]
    )
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 1), inside])
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dropout(0.5))
    model.add(keras.layers.Dense(2))
    count = tfprune.model_cost(model).parameters
    assert count == (3 * 4 + 4) + 4 * 4 + (9 * 4 * 4 + 4) + (144 * 2 + 2)
    if wrapped:
        model = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0))
    report = tfprune.sparsity_report(model)
    assert report.weights == report.to_dict()["weights"] == count
    assert report.prunable.parameters == 3 * 4 + 9 * 4 * 4 + 144 * 2
    assert report.total.parameters == report.to_dict()["total"]["parameters"] == count
    each = [row["weights"] for row in report.to_dict()["layers"]]
    assert each == [3 * 4 + 4, 4 * 4, 9 * 4 * 4 + 4, 144 * 2 + 2]
    lines = str(report).splitlines()
    (prunable,) = (line for line in lines if "prunable weights" in line)
    (everything,) = (line for line in lines if "all, with biases" in line)
    assert f" {report.prunable.parameters:,} " in prunable and f" {count:,} " in everything

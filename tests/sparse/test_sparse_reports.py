"""Reports count a sparse layer as the dense layer that it replaces, zeros included."""

import json
from dataclasses import asdict

import keras
import pytest
from keras import layers
from sparse_support import attention_model, inputs_of, with_zeros

import tfprune
from tfprune._analysis.comparison import html
from tfprune.cli import main

NOT_STORED = "zeros not stored"


@pytest.fixture(scope="module")
def models():
    dense = attention_model()
    return dense, tfprune.to_sparse(dense, prefer="size")


def counts(report):
    return {row.layer: (row.parameters, row.zeros, row.weights) for row in report.rows}


def test_the_report_has_the_numbers_of_the_dense_model(models):
    dense, small = (tfprune.sparsity_report(model) for model in models)
    assert counts(small) == counts(dense)
    assert {row.layer: row.status for row in small.rows if row.type.startswith("Sparse")} == (
        dict.fromkeys(
            [
                "patches",
                "pointwise",
                "attention/query",
                "attention/key",
                "attention/value",
                "attention/attention_output",
                "einsum",
                "out",
            ],
            NOT_STORED,
        )
    )
    for total in ("prunable", "total"):
        assert getattr(small, total) == getattr(dense, total)
    assert small.sparsity == dense.sparsity > 0.7
    assert small.weights == dense.weights == models[0].count_params()
    assert str(small).count(NOT_STORED) == 8 and f"{dense.sparsity:.2%}" in str(small)


def test_costs_are_those_of_the_dense_model_but_for_bytes(models):
    dense, small = (tfprune.model_cost(model) for model in models)
    assert (small.parameters, small.macs) == (dense.parameters, dense.macs)
    assert small.uncounted == dense.uncounted
    assert small.bytes == sum(
        keras.ops.convert_to_numpy(variable).nbytes
        for variable in models[1].variables
        if "seed" not in variable.path
    )
    rows = [[asdict(row) for row in tfprune.layer_costs(model)] for model in models]
    for dense_row, small_row in zip(*rows, strict=True):
        del dense_row["type"], small_row["type"]
        assert small_row == dense_row


def test_a_matrix_counts_as_its_kernel():
    # 3 of 8 weights: counted by hand.
    layer = tfprune.sparse.SparseDense(2, nonzeros=3, name="hand")
    model = keras.Sequential([keras.Input((5, 4)), layer])
    layer.put([[0, 1, 0, 0], [2, 0, 0, 3]], [0, 0])
    (row,) = tfprune.sparsity_report(model).rows
    assert (row.parameters, row.zeros, row.weights, row.sparsity) == (8, 5, 10, 0.625)
    (cost,) = tfprune.layer_costs(model)
    assert (cost.parameters, cost.prunable, cost.zeros) == (10, 8, 5)
    # Each of the 5 rows is multiplied by each weight.
    assert (cost.macs, cost.effective_macs) == (40, 15)


@keras.saving.register_keras_serializable(package="sparse_reports")
class Coded(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.head = layers.Dense(3, name="head")

    def call(self, inputs):
        return self.head(self.attention(inputs, inputs))

    def get_config(self):
        return {"name": self.name}


def test_models_of_a_class_of_their_own_count_too():
    dense = Coded(name="coded")
    dense(inputs_of(2, (3, 8)))
    with_zeros(dense, 0.8)
    reports = [
        tfprune.sparsity_report(model) for model in (dense, tfprune.to_sparse(dense, prefer="size"))
    ]
    assert [counts(report) for report in reports] == [counts(reports[0])] * 2
    assert {row.status for row in reports[1].rows} == {NOT_STORED}
    assert reports[0].total == reports[1].total


def test_comparisons_show_the_sparsity(models, tmp_path):
    pytest.importorskip("matplotlib")
    dense, small = models
    found = tfprune.compare(dense, small, formats=[], latency=False)
    for pair in found.totals.values():
        assert pair[0] == pair[1] > 0
    text = " ".join(found.markdown().split())
    assert "| out | Dense → SparseDense |" in text
    assert "after: 8 sparse layers, whose zeros count but are not stored." in text
    assert "before: 8" not in text
    titles = [title for title, figure in html._pictures(found)]
    assert titles == ["Sparsity of the layers"]


def test_the_command_says_that_zeros_are_not_stored(tmp_path, capsys):
    stack = [keras.Input((40,)), layers.Dense(30, name="wide"), layers.BatchNormalization()]
    dense = with_zeros(keras.Sequential(stack))
    tfprune.to_sparse(dense, prefer="size").save(tmp_path / "small.keras")
    truth = tfprune.sparsity_report(dense)
    assert main(["report", str(tmp_path / "small.keras"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sparsity"]["prunable"]["sparsity"] == pytest.approx(truth.sparsity)
    wide, norm = found["sparsity"]["layers"]
    assert (wide["type"], wide["status"]) == ("SparseDense", NOT_STORED)
    assert (wide["parameters"], wide["zeros"]) == (1200, truth.rows[0].zeros)
    assert norm["status"] == "nothing to prune"
    assert found["cost"]["parameters"] == dense.count_params()
    assert main(["report", str(tmp_path / "small.keras")]) == 0
    assert NOT_STORED in " ".join(capsys.readouterr().out.split())

"""What the command says beside its results: losses it chooses, warnings, and what to do next."""

import types
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune import cli
from tfprune.cli.training import compile_for


def ending_in(*last):
    return keras.Sequential([keras.Input((4,)), *last])


@pytest.mark.parametrize(
    ("last", "from_logits"),
    [
        ([layers.Dense(3, "softmax")], False),
        ([layers.Dense(3), layers.Softmax()], False),
        ([layers.Dense(3), layers.Activation("softmax")], False),
        ([layers.Dense(3)], True),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_loss_fits_the_last_activation(last, from_logits, wrapped):
    model = ending_in(*last)
    if wrapped:
        model = tfprune.prune_low_magnitude(model, tfprune.ConstantSparsity(0.5, 0))
    data = types.SimpleNamespace(train=(np.zeros((3, 4)), np.array([0, 1, 2])))
    compile_for(model, data, None, "adam")
    assert model.loss.from_logits is from_logits


def test_a_warning_is_one_line_without_the_place_in_the_code(capsys):
    said = []
    with cli.warnings_in_lines(said.append), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Expected one thing.\n  Received: another.", stacklevel=1)
    assert said == ["tfprune: warning: Expected one thing. Received: another."]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [[], ["--parameters", "0.6"]])
def test_a_shrink_that_removes_nothing_says_what_to_do(tmp_path, capsys, options):
    model = ending_in(layers.Dense(16, "relu"), layers.Dense(3))
    model.save(tmp_path / "model.keras")
    words = ["shrink", str(tmp_path / "model.keras"), "-o", str(tmp_path / "small.keras")]
    assert cli.main([*words, *options]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert ("Give a target, such as --macs 0.5" in said) is (not options)

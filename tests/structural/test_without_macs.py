"""Models that multiply nothing."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune


def embedding():
    return keras.Sequential([keras.Input((3,)), layers.Embedding(7, 4), layers.Flatten()])


@pytest.mark.parametrize("targets", [{"macs": 0.5}, {"parameters": 0.5}])
def test_targets_that_cannot_be_reached_are_refused(targets):
    model = embedding()
    before = model.get_weights()
    for function in (tfprune.shrink, tfprune.plan_shrink):
        with pytest.raises(ValueError, match=r"Expected [\s\S]*Received: [\s\S]*\. "):
            function(model, targets)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_costs_of_a_model_without_multiplications():
    cost = tfprune.model_cost(embedding())
    assert cost.macs == 0 and cost.parameters == 28
    assert "0" in str(tfprune.compare(embedding(), embedding()))

"""The pruning step in variables: state trees carry it, weights and old files do not know it."""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._wrapping.wrapper import mask_owners

X = np.random.default_rng(0).normal(size=(80, 16)).astype("float32")
Y = X[:, :4] * 2


class Custom(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.head = layers.Dense(32, "relu"), layers.Dense(4)

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def graph():
    return keras.Sequential([keras.Input((16,)), layers.Dense(32, "relu"), layers.Dense(4)])


def custom():
    model = Custom(name="custom")
    model(X[:1])
    return model


def pruned(make):
    """A model that reaches a sparsity of 0.8 after four epochs of ten steps."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    schedule = tfprune.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=40, frequency=1)
    model = tfprune.prune_low_magnitude(make(), schedule)
    model.compile("adam", "mse")
    return model


def train(model, epochs):
    callbacks = [tfprune.UpdatePruningStep()]
    with pytest.warns(UserWarning, match="Expected"):
        return model.fit(
            X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
        ).history["sparsity"]


def steps(model):
    return {owner.pruning_step for owner in mask_owners(model)}


@pytest.mark.parametrize("make", [graph, custom])
def test_a_state_tree_keeps_step_and_sparsity(make):
    whole = train(pruned(make), 3)
    first = pruned(make)
    assert train(first, 2) == whole[:2]
    tree = first.get_state_tree(value_format="numpy_array")
    second = pruned(make)
    second.set_state_tree(tree)
    assert steps(second) == {20}
    assert train(second, 1) == whole[2:]
    assert steps(second) == {30}


def test_a_tree_taken_earlier_in_the_same_training_goes_back_to_its_step():
    model = pruned(graph)
    sparsity = train(model, 1)
    tree = model.get_state_tree(value_format="numpy_array")
    assert train(model, 1) > sparsity
    model.set_state_tree(tree)
    assert steps(model) == {10}


def test_a_tree_read_between_two_steps_of_an_own_loop_is_up_to_date():
    model = pruned(graph)
    pruning = tfprune.UpdatePruningStep(model)
    for _ in range(7):
        pruning.step()
    other = pruned(graph)
    other.set_state_tree(model.get_state_tree(value_format="numpy_array"))
    assert steps(other) == {7}


def test_values_written_back_by_an_own_loop_do_not_count_as_news():
    model = pruned(graph)
    pruning = tfprune.UpdatePruningStep(model)
    kept = [keras.ops.convert_to_numpy(v) for v in model.non_trainable_variables]
    for _ in range(7):
        pruning.step()
    for variable, value in zip(model.non_trainable_variables, kept, strict=True):
        variable.assign(value)
    tfprune.UpdatePruningStep(model)
    assert steps(model) == {7}


def test_a_file_counts_more_than_a_tree_before_it(tmp_path):
    model = pruned(graph)
    train(model, 1)
    tree = model.get_state_tree(value_format="numpy_array")
    train(model, 1)
    model.save_weights(tmp_path / "later.weights.h5")
    other = pruned(graph)
    other.set_state_tree(tree)
    other.load_weights(tmp_path / "later.weights.h5")
    assert steps(other) == {20}


@pytest.mark.parametrize("make", [graph, custom])
def test_weights_pass_the_step_over(make, tmp_path):
    model = pruned(make)
    # Two kernels, two biases, two masks: as many as version 0.1 wrote into an old .h5 file.
    assert len(model.weights) == 6 < len(model.variables)
    before = model.get_weights()
    train(model, 1)
    model.set_weights(before)
    assert steps(model) == {10}


def test_epochs_are_in_the_tree_too():
    def by_epochs():
        keras.backend.clear_session()
        schedule = tfprune.PolynomialDecay.from_epochs(0.0, 0.8, begin_epoch=0, end_epoch=4)
        model = tfprune.prune_low_magnitude(graph(), schedule)
        model.compile("adam", "mse")
        return model

    first = by_epochs()
    train(first, 1)
    second = by_epochs()
    second.set_state_tree(first.get_state_tree(value_format="numpy_array"))
    (owner, *_) = mask_owners(second)
    state = owner.mask_set.state()
    assert state["step"] == 10
    assert state["steps_per_epoch"] == 10 and tuple(state["epoch"]) == (0, 0, 10)


def test_stripping_leaves_no_state_behind():
    plain, number = custom(), len(custom().variables)
    model = tfprune.prune_low_magnitude(
        plain, tfprune.ConstantSparsity(0.5, begin_step=0), copy=False
    )
    assert len(model.variables) > number
    assert len(tfprune.strip_pruning(model, copy=False).variables) == number

"""AutoCompress, and an optimizer that keeps its state when filters are removed."""

import keras
import numpy as np
import pytest
from keras import ops
from test_search import arrays, digits, evaluate, same, trained
from test_search import train_longer as train

import tfprune
from tfprune import pruners
from tfprune.structural.optimizer_state import compile_copy, shrink_compiled


def array(value):
    return np.array(ops.convert_to_numpy(value))


def compress(**options):
    objective = pruners.Objective(batches=1)
    arguments = {"admm_steps": 6, "rounds": 2, "data": digits()[0], "evaluations": 4}
    arguments["objective"] = objective
    return pruners.AutoCompress(trained(), {"macs": 0.5}, **{**arguments, **options})


def test_a_run_killed_in_a_training_goes_on_with_the_same_result(tmp_path):
    before = arrays(trained())
    whole = compress().run(evaluate, tmp_path / "whole", train, verbose=0)
    assert same(before, arrays(trained()))
    calls = []

    def killed(model, callback):
        calls.append(model)
        if len(calls) == 2:
            raise KeyboardInterrupt
        train(model, callback)

    with pytest.raises(KeyboardInterrupt):
        compress().run(evaluate, tmp_path / "folder", killed, verbose=0)
    again = compress().run(evaluate, tmp_path / "folder", killed, verbose=0)
    # The first round is not trained again.
    assert len(calls) == 3
    assert same(arrays(whole.model), arrays(again.model))
    # 8 steps in each of two rounds: the optimizer went on.
    done = [int(array(found.model.optimizer.iterations)) for found in (whole, again)]
    start = int(array(trained().optimizer.iterations))
    assert done[0] == done[1] and done[0] % 8 == 0 and done[0] <= start + 16
    assert [trial.zeros for trial in whole.trials] == [trial.zeros for trial in again.trials]
    assert [trial.number for trial in again.trials] == list(range(len(again.trials)))
    with pytest.raises(ValueError, match="`path` to hold evaluations of this configuration, rho"):
        compress(rho=0.5).run(evaluate, tmp_path / "folder", train, verbose=0)


def test_filters_that_are_nearly_empty_go_too():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, name="one")])
    model.add(keras.layers.Dense(1, name="out"))
    kernel = np.ones((6, 8), "float32")
    kernel[:, [3, 5]] = 0.01
    model.layers[0].kernel.assign(kernel)
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    x, y = np.ones((16, 6), "float32"), np.ones((16, 1), "float32")

    def fit(model, callback):
        model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[callback])

    options = {"admm_steps": 2, "rounds": 1, "evaluations": 1, "rho": 1e-6}
    left = {}
    for purify in (0.0, 0.1):
        search = pruners.AutoCompress(model, {"macs": 0.99}, purify=purify, **options)
        found = search.run(lambda model: {"loss": 1.0}, train=fit, verbose=0)
        left[purify] = found.model.layers[0].units
        assert found.allocation[0].zeros == 8 - left[purify]
    # One of the two small ones goes for the budget, and the other because it is small.
    assert left == {0.0: 7, 0.1: 6}


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "accumulating": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), initial_scale=64.0, dynamic_growth_steps=2
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_goes_on_as_if_nothing_had_been_removed(optimizer):
    """The smaller model's next steps are those of the masked one."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="one"),
            keras.layers.Dense(6, activation="relu", name="two"),
            keras.layers.Dense(1, name="out"),
        ]
    )
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    y = x[:, :1] * 2
    schedule = tfprune.ConstantSparsity.one_shot(0.5)
    wrapped = tfprune.prune_low_magnitude(model, schedule, pattern="filter")
    wrapped.compile(OPTIMIZERS[optimizer](), "mse")
    wrapped.fit(x, y, epochs=5, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    small = shrink_compiled(wrapped)
    assert [layer.units for layer in small.layers] == [4, 3, 1]
    numbers = [
        [array(v).item() for v in m.optimizer.variables if not v.shape] for m in (wrapped, small)
    ]
    assert numbers[0] == numbers[1]
    history = small.fit(x, y, epochs=3, shuffle=False, verbose=0).history["loss"]
    callbacks = [tfprune.UpdatePruningStep()]
    masked = wrapped.fit(x, y, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(history, masked.history["loss"], rtol=1e-4)
    slices = [array(variable) for variable in small.trainable_variables]
    plain = tfprune.shrink(wrapped)
    for one, other in zip(slices, plain.trainable_variables, strict=True):
        np.testing.assert_allclose(one, array(other), rtol=1e-3, atol=1e-5)


def test_the_means_of_adafactor_go_on_in_copies_and_smaller_models():
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, name="one"), keras.layers.Dense(1, name="out")]
    )
    schedule = tfprune.ConstantSparsity.one_shot(0.5)
    wrapped = tfprune.prune_low_magnitude(model, schedule, pattern="filter")
    wrapped.compile(keras.optimizers.Adafactor(0.01), "mse")
    wrapped.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    stays = array(wrapped.layers[0].pruned_weights[0].mask).any(axis=0)
    rows, columns = array(wrapped.optimizer._r[0]), array(wrapped.optimizer._c[0])
    copy = compile_copy(tfprune.strip_pruning(wrapped), wrapped)
    np.testing.assert_array_equal(array(copy.optimizer._r[0]), rows)
    np.testing.assert_array_equal(array(copy.optimizer._c[0]), columns)
    small = shrink_compiled(wrapped)
    np.testing.assert_array_equal(array(small.optimizer._r[0]), rows)
    np.testing.assert_array_equal(array(small.optimizer._c[0]), columns[stays])
    assert stays.sum() == 4 and rows.all() and columns.all()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"budget": {"macs": 0.5, "parameters": 0.5}}, "one share"),
        ({"budget": {"sparsity": 0.5}}, "of macs or of parameters"),
        ({"budget": {"macs": 1e-5}}, "budget that can be reached"),
        ({"admm_steps": 0}, "`admm_steps` to be at least 1"),
        ({"model": "uncompiled"}, "a compiled model, whose optimizer"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit(change, line):
    given = {"admm_steps": 6, "data": digits()[0], "evaluations": 2, **change}
    model = tfprune.strip_pruning(trained()) if given.pop("model", None) else trained()
    with pytest.raises(ValueError, match=f"Expected.*{line}"):
        pruners.AutoCompress(model, given.pop("budget", {"macs": 0.5}), **given)


def test_a_train_that_makes_no_masks():
    says = pytest.raises(ValueError, match=r"`train` to train for 600 optimizer steps")
    with says, pytest.warns(UserWarning, match="training to reach"):
        compress(admm_steps=600, evaluations=1).run(evaluate, train=train, verbose=0)

"""UpdatePruningStep outside of its main road, PruningCheckpoint and PruningSummaries."""

import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._wrapping.wrapper import mask_owners

STEPS = 5


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8 * STEPS, 16)).astype("float32")
    return x, x[:, :4] * 2


def model_with(schedule, compiled=True):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(32, "relu"), layers.Dense(4)])
    model = tfprune.prune_low_magnitude(model, schedule)
    if compiled:
        model.compile("adam", "mse")
    return model


def ramp(end, frequency=1, sparsity=0.75):
    return tfprune.PolynomialDecay(0.0, sparsity, begin_step=0, end_step=end, frequency=frequency)


def fit(model, *callbacks, epochs=1, **kwargs):
    x, y = data()
    return model.fit(
        x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks), **kwargs
    )


def zeros_of(model):
    return [weight.zeros for owner in mask_owners(model) for weight in owner.pruned_weights]


# -- Warnings and errors --------------------------------------------------------------------------


def test_fit_without_the_callback_says_which_line_to_add():
    model = model_with(ramp(5))
    with pytest.warns(UserWarning, match=r"callbacks=\[tfprune.UpdatePruningStep\(\)\]"):
        fit(model)


@pytest.mark.parametrize("refused", ["another", "several"])
def test_fit_without_the_callback_warns_after_a_callback_was_refused(refused):
    model = model_with(ramp(5))
    callbacks = [tfprune.SET(0.5)]
    if refused == "several":
        callbacks = [tfprune.UpdatePruningStep(), tfprune.UpdatePruningStep()]
    with pytest.raises(ValueError, match="Expected"):
        fit(model, *callbacks)
    with pytest.warns(UserWarning, match="a training step without it"):
        fit(model)


@pytest.mark.parametrize("kind", [tfprune.UpdatePruningStep, tfprune.RigL])
def test_a_class_among_the_callbacks_is_told_to_be_called(kind):
    model = model_with(ramp(5))
    before = model.get_weights()
    with pytest.raises(TypeError, match=r"Expected objects.*Received: a class.*parentheses"):
        fit(model, kind)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_evaluation_and_prediction_without_the_callback_say_nothing():
    model = model_with(ramp(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.evaluate(*data(), verbose=0)
        model.predict(data()[0], verbose=0)


def test_training_too_short_for_the_schedule_warns_with_both_numbers():
    model = model_with(ramp(20))
    with pytest.warns(UserWarning, match=r"0\.75 at step 20.*0\.43\d* at step 5"):
        fit(model, tfprune.UpdatePruningStep())


def test_a_schedule_that_never_began_warns():
    model = model_with(tfprune.ConstantSparsity(0.5, begin_step=100))
    with pytest.warns(UserWarning, match=r"sparsity 0\.0000 at step 5"):
        fit(model, tfprune.UpdatePruningStep())


def one_layer_smaller_than_the_other(**scope):
    """Two kernels of 256 weights each, those of one all smaller than those of the other."""
    model = keras.Sequential([keras.Input((16,)), layers.Dense(16, name="small"), layers.Dense(16)])
    weights = np.linspace(1, 2, 256, dtype="float32").reshape(16, 16)
    model.set_weights([weights / 1000, np.zeros(16), weights, np.zeros(16)])
    schedule = tfprune.ConstantSparsity(0.5, begin_step=0)
    model = tfprune.prune_low_magnitude(model, schedule, **scope)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def train_to_nothing(model):
    x = data()[0]
    model.fit(x, x, batch_size=8, verbose=0, callbacks=[tfprune.UpdatePruningStep()])


def test_a_layer_with_a_single_weight_left_is_named():
    model = one_layer_smaller_than_the_other(scope="global")
    with pytest.warns(UserWarning, match=r"a single one in small/kernel, under Global.*at 0\.5"):
        train_to_nothing(model)
    assert zeros_of(model) == [255, 1]


@pytest.mark.parametrize("scope", ["local", tfprune.scopes.Global(max_sparsity=0.9)])
def test_layers_with_more_weights_left_say_nothing(scope):
    model = one_layer_smaller_than_the_other(scope=scope)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train_to_nothing(model)


def test_a_constant_sparsity_between_two_updates_says_nothing():
    # Due at 0 and at 100; training ends at 5.
    model = model_with(tfprune.ConstantSparsity(0.9, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, tfprune.UpdatePruningStep())
    assert zeros_of(model) == [512 - 51, 128 - 13]


@pytest.mark.parametrize("again", [True, False])
def test_an_interrupted_training_that_is_compiled_anew_goes_on_counting(again):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    model = model_with(tfprune.ConstantSparsity(0.5, 0, frequency=1))
    with pytest.raises(KeyboardInterrupt):
        fit(model, tfprune.UpdatePruningStep(), Interrupt())
    assert mask_owners(model)[0].pruning_step == 3
    if again:
        model.compile("sgd", "mse")
    assert mask_owners(model)[0].pruning_step == 3
    fit(model, tfprune.UpdatePruningStep())
    assert mask_owners(model)[0].pruning_step == 3 + STEPS


def test_steps_whose_gradients_overflow_are_not_counted():
    # Due at every step, and asked at every batch: skipped updates are none.
    model = model_with(ramp(100), compiled=False)
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1e-3), initial_scale=2.0**127, dynamic_growth_steps=1000
    )
    model.compile(optimizer, "mse")
    moved = []

    class Moves(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.value = self.model.layers[1].layer.bias.numpy()

        def on_train_batch_end(self, batch, logs=None):
            moved.append((self.model.layers[1].layer.bias.numpy() != self.value).any())
            due = ramp(100).evaluate(np.arange(sum(moved) + 1))[1][-1]
            held = float(str(due))
            assert zeros_of(self.model) == [n - round(n * (1 - held)) for n in (512, 128)]

    x, y = data()
    x[8:16] *= 1e9
    callbacks = [tfprune.UpdatePruningStep(), Moves()]
    with pytest.warns(UserWarning, match="end_step"):
        model.fit(x, y, 8, 2, verbose=0, shuffle=False, callbacks=callbacks)
    assert moved == 2 * [True, False, True, True, True]
    assert mask_owners(model)[0].pruning_step == sum(moved)


def test_a_frozen_model_takes_no_steps_and_that_is_said():
    model = model_with(ramp(20), compiled=False)
    model.trainable = False
    model.compile("adam", "mse")
    with pytest.warns(UserWarning, match=r"0\.75 at step 20.*step 0,.*no trainable weights"):
        fit(model, tfprune.UpdatePruningStep())
    assert mask_owners(model)[0].pruning_step == 0


def test_training_that_reaches_its_end_says_nothing():
    model = model_with(ramp(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, tfprune.UpdatePruningStep())
        fit(model, tfprune.UpdatePruningStep())


def test_masks_that_somebody_else_wrote_are_noticed():
    class Meddle(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            weight = mask_owners(self.model)[0].pruned_weights[0]
            weight.mask.assign(np.ones(weight.mask.shape, bool))
            weight.forget_count()

    model = model_with(ramp(5))
    with pytest.warns(UserWarning, match=r"schedule's own at step 5.*Other code"):
        fit(model, Meddle(), tfprune.UpdatePruningStep())


EAGER = [pytest.param(False, id="compiled"), pytest.param(True, id="eager")]


@pytest.mark.parametrize("eagerly", EAGER)
def test_fit_without_the_callback_after_one_with_it_says_so_once(eagerly):
    model = model_with(ramp(5), compiled=False)
    model.compile("adam", "mse", run_eagerly=eagerly)
    fit(model, tfprune.UpdatePruningStep())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.evaluate(*data(), verbose=0)
        fit(model, tfprune.UpdatePruningStep())
    with pytest.warns(UserWarning, match=r"callbacks=\[tfprune.UpdatePruningStep\(\)\]") as caught:
        fit(model)
    assert len([w for w in caught if str(w.message).startswith("Expected")]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model)


def test_a_loop_of_ones_own_goes_on_after_fit_without_a_warning():
    model = model_with(ramp(10), compiled=False)
    model.compile("adam", "mse", run_eagerly=True)
    pruning = tfprune.UpdatePruningStep(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for _ in range(STEPS):
            model.train_on_batch(*data())
            pruning.step()
        fit(model, pruning)
        model.train_on_batch(*data())
        pruning.step()
    assert mask_owners(model)[0].pruning_step == 2 * STEPS + 1


@pytest.mark.parametrize("event", ["on_train_batch_end", "on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("inner_first", [True, False])
@pytest.mark.parametrize("eagerly", EAGER)
def test_a_fit_inside_of_a_fit_counts_each_step_once(event, inner_first, eagerly):
    fits = []

    def train_inside(*args, **kwargs):
        if not fits:
            fits.append(True)
            fit(model, tfprune.UpdatePruningStep())
            model.evaluate(*data(), verbose=0)

    inner = keras.callbacks.Callback()
    setattr(inner, event, train_inside)
    model = model_with(tfprune.ConstantSparsity(0.5, 0, frequency=1), compiled=False)
    model.compile("adam", "mse", run_eagerly=eagerly)
    callbacks = [inner, tfprune.UpdatePruningStep()]
    fit(model, *(callbacks if inner_first else callbacks[::-1]), epochs=2)
    assert fits and int(model.optimizer.iterations) == 3 * STEPS
    assert mask_owners(model)[0].pruning_step == 3 * STEPS


@pytest.mark.parametrize("number", [2, 3])
def test_two_update_pruning_steps_in_one_fit_are_refused(number):
    model = model_with(ramp(5))
    with pytest.raises(ValueError, match="one UpdatePruningStep among the callbacks"):
        fit(model, *(tfprune.UpdatePruningStep() for _ in range(number)))
    assert mask_owners(model)[0].pruning_step == 0


class Restore(keras.callbacks.EarlyStopping):
    """Its first epoch is the best one."""

    def __init__(self):
        super().__init__("loss", patience=10, restore_best_weights=True)

    def get_monitor_value(self, logs):
        self.epochs = getattr(self, "epochs", 0) + 1
        return self.epochs


@pytest.mark.parametrize("order", [0, 1])
def test_restored_weights_of_a_less_sparse_epoch_are_said_in_every_order(order):
    model = model_with(ramp(2 * STEPS))
    callbacks = [Restore(), tfprune.UpdatePruningStep()]
    with pytest.warns(UserWarning, match=r"restore_best_weights=True.*PruningCheckpoint") as caught:
        fit(model, *callbacks[:: 1 - 2 * order], epochs=2)
    messages = [str(w.message) for w in caught if str(w.message).startswith("Expected")]
    assert len(messages) == 1 and "0.7500" in messages[0]
    # What the callback knows is what the weights are: nothing is left of the later epoch.
    weights = [weight for owner in mask_owners(model) for weight in owner.pruned_weights]
    counted = [int(np.count_nonzero(weight.variable.numpy() == 0)) for weight in weights]
    assert [weight.zeros for weight in weights] == counted
    assert sum(counted) / sum(weight.size for weight in weights) < 0.75
    assert f"{sum(counted) / sum(weight.size for weight in weights):.4f}" in messages[0]
    assert callbacks[1].sparsity == sum(counted) / sum(weight.size for weight in weights)


@pytest.mark.parametrize("order", [0, 1])
def test_restored_weights_at_target_sparsity_say_nothing(order):
    model = model_with(ramp(STEPS))
    callbacks = [Restore(), tfprune.UpdatePruningStep()]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, *callbacks[:: 1 - 2 * order], epochs=2)


def batches(number):
    x, y = data()
    for position in range(number):
        yield x[8 * position :][:8], y[8 * position :][:8]


@pytest.mark.parametrize(
    ("accumulation", "executions"), [(None, 1), (None, 2), (2, 1), (3, 1)], ids=str
)
def test_data_of_unknown_length_counts_updates_alone(accumulation, executions):
    import tensorflow as tf

    model = model_with(tfprune.ConstantSparsity(0.5, 0, frequency=1), compiled=False)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulation)
    model.compile(optimizer, "mse", steps_per_execution=executions)
    moved = []

    class Moves(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.value = self.model.layers[0].layer.bias.numpy()

        def on_train_batch_end(self, batch, logs=None):
            value = self.model.layers[0].layer.bias.numpy()
            moved.append((value != self.value).any())
            self.value = value

    specs = (tf.TensorSpec((None, 16)), tf.TensorSpec((None, 4)))
    several = tf.data.Dataset.from_generator(lambda: batches(STEPS), output_signature=specs)
    callbacks = [tfprune.UpdatePruningStep(), Moves()]
    model.fit(several, epochs=3, verbose=0, callbacks=callbacks)
    model.fit(batches(STEPS), verbose=0, callbacks=callbacks)
    expected = sum(moved) if executions == 1 else 4 * STEPS
    assert mask_owners(model)[0].pruning_step == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: tfprune.UpdatePruningStep(),
        lambda: tfprune.PruningCheckpoint("x.keras"),
        lambda: tfprune.PruningBackup("x.weights.h5"),
        lambda: tfprune.PruningSummaries("logs"),
        lambda: tfprune.SET(0.5),
    ],
)
def test_a_plain_model_is_trained_with_a_warning(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4)])
    model.compile("adam", "mse")
    callback = make()
    with pytest.warns(UserWarning, match=r"wrapped layers.*Received: model.*nothing is") as said:
        fit(model, callback)
    with_set = isinstance(callback, tfprune.SET)
    (message,) = [str(warning.message) for warning in said if "wrapped" in str(warning.message)]
    assert ("callback.prune(model)" if with_set else "prune_low_magnitude(model,") in message
    assert not list(tmp_path.glob("x.*"))


def test_step_before_the_model_is_known_is_an_error():
    with pytest.raises(ValueError, match=r"UpdatePruningStep\(model\)"):
        tfprune.UpdatePruningStep().step()


@pytest.mark.parametrize("kwargs", [{"log_dir": ""}, {"log_dir": "a", "update_freq": 0}])
def test_summaries_refuse_bad_arguments(kwargs):
    with pytest.raises(ValueError, match="Received"):
        tfprune.PruningSummaries(**kwargs)


# -- Distribution ---------------------------------------------------------------------------------


def mirrored(folder, pattern, masks_on):
    """Weights and masks of both replicas after a training under MirroredStrategy."""
    # The script sets logical devices after importing tfprune: importing must not start TensorFlow.
    script = pathlib.Path(__file__).parents[1].joinpath("mirrored_truth.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), pattern, masks_on],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / f"{masks_on}.npz") as copies:
        return dict(copies)


@pytest.mark.parametrize("pattern", ["unstructured", "filter"])
def test_mirrored_strategy(pattern, tmp_path):
    arrays = mirrored(tmp_path, pattern, "host")
    on_device = mirrored(tmp_path, pattern, "device")
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, on_device[name])
        np.testing.assert_array_equal(array, arrays[name[:-1] + "0"])
    masks = [name for name in arrays if name.endswith("-mask-0")]
    assert len(masks) == 2
    for name in masks:
        mask, weight = arrays[name], arrays[name.replace("-mask-", "-weight-")]
        if pattern == "unstructured":
            assert mask.sum() == max(1, round(mask.size * 0.2))
        assert not weight[~mask].any()
    assert not all(arrays[name].all() for name in masks)


# -- PruningCheckpoint ----------------------------------------------------------------------------


def test_the_best_model_is_one_at_target_sparsity(tmp_path):
    model = model_with(ramp(10))
    # The metric is best in the first epoch, when the model is still dense.
    scores = iter([0.0, 3.0, 1.0, 2.0])

    class Score(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = next(scores)

    best = tfprune.PruningCheckpoint(
        str(tmp_path / "best.keras"), monitor="score", mode="min", verbose=0
    )
    fit(model, Score(), tfprune.UpdatePruningStep(), best, epochs=4)
    saved = keras.models.load_model(tmp_path / "best.keras")
    assert zeros_of(saved) == [384, 96]
    assert mask_owners(saved)[0].pruning_step == 15
    assert best.best == 1.0


def test_nothing_is_saved_before_the_target_and_that_is_said(tmp_path):
    model = model_with(ramp(50))
    best = tfprune.PruningCheckpoint(str(tmp_path / "best.keras"), monitor="loss")
    with pytest.warns(UserWarning) as caught:
        fit(model, tfprune.UpdatePruningStep(), best)
    assert any("nothing was saved" in str(item.message) for item in caught)
    assert not (tmp_path / "best.keras").exists()


def test_checkpoint_by_batches(tmp_path):
    model = model_with(ramp(3))
    every = tfprune.PruningCheckpoint(
        str(tmp_path / "{batch}.keras"), monitor="loss", save_best_only=False, save_freq=1
    )
    fit(model, tfprune.UpdatePruningStep(), every)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["3.keras", "4.keras", "5.keras"]


def test_the_checkpoint_compares_after_a_number_of_batches(tmp_path):
    model, path = model_with(tfprune.ConstantSparsity.one_shot(0.5)), tmp_path / "best.keras"
    checkpoint = tfprune.PruningCheckpoint(path, monitor="loss", save_freq=2)
    fit(model, tfprune.UpdatePruningStep(), checkpoint)
    assert tfprune.sparsity_report(keras.saving.load_model(path)).sparsity == 0.5


# -- PruningSummaries -----------------------------------------------------------------------------


def read_events(folder):
    from tensorflow.core.util import event_pb2
    from tensorflow.python.lib.io import tf_record

    found: dict = {}
    for file in sorted(pathlib.Path(folder).glob("events*")):
        for record in tf_record.tf_record_iterator(str(file)):
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = float(
                    np.frombuffer(value.tensor.tensor_content, "float32")[0]
                    if value.tensor.tensor_content
                    else value.tensor.float_val[0]
                )
    return found


@pytest.mark.parametrize("update_freq, steps", [("epoch", [5, 10]), (2, [2, 4, 6, 8, 10])])
def test_summaries_hold_sparsity_and_threshold_of_each_weight(tmp_path, update_freq, steps):
    model = model_with(ramp(10))
    names = [owner.name for owner in mask_owners(model)]
    summaries = tfprune.PruningSummaries(tmp_path, update_freq=update_freq)
    fit(model, tfprune.UpdatePruningStep(), summaries, epochs=2)
    events = read_events(tmp_path)
    assert set(events) == {"sparsity"} | {
        f"{kind}/{name}/kernel" for kind in ("sparsity", "threshold") for name in names
    }
    # Epochs stand where Keras's own are, batches at their steps.
    places = [0, 1] if update_freq == "epoch" else steps
    assert sorted(events["sparsity"]) == places
    _, sparsity = ramp(10).evaluate(np.array(steps))
    for place, expected in zip(places, sparsity, strict=True):
        assert events[f"sparsity/{names[0]}/kernel"][place] == pytest.approx(expected, abs=1 / 512)
        assert events[f"threshold/{names[0]}/kernel"][place] > 0


@pytest.mark.parametrize(
    ("every", "at_once", "steps"), [(7, 1, [7, 14]), (2, 3, [3, 5, 8, 10, 13, 15])]
)
def test_summaries_after_a_number_of_batches_over_epochs(tmp_path, every, at_once, steps):
    model = model_with(ramp(10))
    model.compile("adam", "mse", steps_per_execution=at_once)
    summaries = tfprune.PruningSummaries(tmp_path, update_freq=every)
    fit(model, tfprune.UpdatePruningStep(), summaries, epochs=3)
    assert sorted(read_events(tmp_path)["sparsity"]) == steps


def test_summaries_of_nested_models_tell_layers_of_one_name_apart(tmp_path):
    nested = [
        keras.Sequential([keras.Input((16,)), layers.Dense(16, name="same")], name=name)
        for name in ("a", "b")
    ]
    model = keras.Sequential([keras.Input((16,)), *nested, layers.Dense(4, name="last")])
    model = tfprune.prune_low_magnitude(model, ramp(5))
    model.compile("adam", "mse")
    fit(model, tfprune.UpdatePruningStep(), tfprune.PruningSummaries(tmp_path))
    names = ("a/same/kernel", "b/same/kernel", "last/kernel")
    assert {f"sparsity/{name}" for name in names} < set(read_events(tmp_path))

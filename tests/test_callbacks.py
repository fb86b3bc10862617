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
from tfprune.wrapper import mask_owners

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
    with pytest.warns(UserWarning, match=r"schedule's own at step 5.*Something else"):
        fit(model, Meddle(), tfprune.UpdatePruningStep())


@pytest.mark.parametrize(
    "make",
    [
        lambda: tfprune.UpdatePruningStep(),
        lambda: tfprune.PruningCheckpoint("x.keras"),
        lambda: tfprune.PruningSummaries("logs"),
    ],
)
def test_a_plain_model_is_an_error(make):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(4)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"wrapped layers.*Received: model"):
        fit(model, make())


def test_step_before_the_model_is_known_is_an_error():
    with pytest.raises(ValueError, match=r"UpdatePruningStep\(model\)"):
        tfprune.UpdatePruningStep().step()


@pytest.mark.parametrize("kwargs", [{"log_dir": ""}, {"log_dir": "a", "update_freq": 0}])
def test_summaries_refuse_bad_arguments(kwargs):
    with pytest.raises(ValueError, match="Received"):
        tfprune.PruningSummaries(**kwargs)


# -- Distribution ---------------------------------------------------------------------------------


def test_mirrored_strategy(tmp_path):
    # The script sets logical devices after importing tfprune: importing must not start TensorFlow.
    script = pathlib.Path(__file__).with_name("mirrored_truth.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "copies.npz") as copies:
        arrays = dict(copies)
    firsts = [name for name in arrays if name.endswith("-0")]
    assert len(firsts) == 4
    for name in firsts:
        np.testing.assert_array_equal(arrays[name], arrays[name[:-1] + "1"])
    for name in (name for name in firsts if "-mask-" in name):
        mask, weight = arrays[name], arrays[name.replace("-mask-", "-weight-")]
        assert mask.sum() == max(1, round(mask.size * 0.2))
        assert not weight[~mask].any()


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


@pytest.mark.parametrize("update_freq, steps", [("epoch", [5, 10]), (2, [2, 4, 7, 9])])
def test_summaries_hold_sparsity_and_threshold_of_each_weight(tmp_path, update_freq, steps):
    model = model_with(ramp(10))
    names = [owner.name for owner in mask_owners(model)]
    summaries = tfprune.PruningSummaries(tmp_path, update_freq=update_freq)
    fit(model, tfprune.UpdatePruningStep(), summaries, epochs=2)
    events = read_events(tmp_path)
    assert set(events) == {"sparsity"} | {
        f"{kind}/{name}/kernel" for kind in ("sparsity", "threshold") for name in names
    }
    assert sorted(events["sparsity"]) == steps
    _, sparsity = ramp(10).evaluate(np.array(steps))
    for step, expected in zip(steps, sparsity, strict=True):
        assert events[f"sparsity/{names[0]}/kernel"][step] == pytest.approx(expected, abs=1 / 512)
        assert events[f"threshold/{names[0]}/kernel"][step] > 0

"""Schedules that count in epochs, against the same schedules in steps."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune import schedules
from tfprune._wrapping.wrapper import mask_owners

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = X[:, :2]
IN_EPOCHS = tfprune.PolynomialDecay.from_epochs(0.0, 0.75, end_epoch=3, frequency=1)


def in_steps(steps_per_epoch):
    return tfprune.PolynomialDecay.from_epochs(
        0.0, 0.75, steps_per_epoch=steps_per_epoch, end_epoch=3, frequency=1
    )


def wrapped(schedule, **compiled):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    model = tfprune.prune_low_magnitude(model, schedule)
    model.compile(keras.optimizers.SGD(0.01, **compiled), "mse")
    return model


def fit(model, *others, epochs=4, batch_size=8):
    return model.fit(
        X,
        Y,
        epochs=epochs,
        batch_size=batch_size,
        shuffle=False,
        verbose=0,
        callbacks=[tfprune.UpdatePruningStep(), *others],
    )


def schedule_of(model):
    return mask_owners(model)[0].pruned_weights[0].method.schedule


# Some trainings here are short on purpose.
short = pytest.mark.filterwarnings("ignore:Expected training to reach:UserWarning")


def test_fit_finds_the_steps_of_an_epoch():
    model, other = wrapped(IN_EPOCHS), wrapped(in_steps(5))
    assert fit(model).history["sparsity"] == fit(other).history["sparsity"]
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert schedule_of(model) == in_steps(5)


@short
def test_gradient_accumulation_divides_an_epoch():
    model = wrapped(IN_EPOCHS, gradient_accumulation_steps=2)
    fit(model, epochs=2)
    # Ten batches in two epochs are five updates: 2.5 an epoch.
    assert schedule_of(model).end_step == round(3 * 2.5)
    assert mask_owners(model)[0].pruning_step == 5


@short
def test_the_config_keeps_the_epochs():
    model = wrapped(IN_EPOCHS)
    fit(model, epochs=1)
    config = mask_owners(model)[0].get_config()["pruning_schedule"]
    assert schedules.deserialize(config) == IN_EPOCHS
    assert config["registered_name"] == "tfprune>EpochSchedule"


@short
@pytest.mark.parametrize("kind", ["keras", "weights"])
def test_resumed_training_keeps_the_saved_number(tmp_path, kind):
    whole = wrapped(IN_EPOCHS)
    fit(whole, epochs=2)
    if kind == "keras":
        whole.save(tmp_path / "half.keras")
        resumed = keras.saving.load_model(tmp_path / "half.keras")
    else:
        whole.save_weights(tmp_path / "half.weights.h5")
        resumed = wrapped(IN_EPOCHS)
        resumed.load_weights(tmp_path / "half.weights.h5")
    assert schedule_of(resumed) == in_steps(5)
    # Ten batches an epoch now: the schedule still ends after 15 steps, not after 30.
    fit(resumed, epochs=1, batch_size=4)
    assert tfprune.sparsity_report(resumed).sparsity == 0.75


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@short
def test_a_file_that_is_loaded_when_fit_begins_wins(tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    with pytest.raises(KeyboardInterrupt):
        fit(wrapped(IN_EPOCHS), backup, Stop())
    again = wrapped(IN_EPOCHS)
    fit(again, backup, batch_size=10)
    assert schedule_of(again) == in_steps(5)


@short
def test_data_of_unknown_length_needs_the_number():
    def batches():
        for start in range(0, 40, 8):
            yield X[start : start + 8], Y[start : start + 8]

    model = wrapped(IN_EPOCHS)
    with pytest.raises(ValueError, match=r"unknown length.*Give steps_per_epoch="):
        model.fit(batches(), verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    model.fit(batches(), steps_per_epoch=5, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    assert schedule_of(model) == in_steps(5)


def test_a_loop_of_ones_own_needs_the_number():
    with pytest.raises(ValueError, match=r"Give steps_per_epoch="):
        tfprune.UpdatePruningStep(wrapped(IN_EPOCHS))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"end_epoch": None}, ValueError),
        ({"end_epoch": -1}, ValueError),
        ({"end_epoch": 2, "begin_epoch": 3}, ValueError),
        ({"end_epoch": 2, "power": -1}, ValueError),
        ({"end_epoch": 2, "no_such": 1}, TypeError),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, error):
    with pytest.raises(error):
        tfprune.PolynomialDecay.from_epochs(0.0, 0.5, **arguments)


def test_too_many_positional_arguments():
    with pytest.raises(TypeError, match="at most 2 positional"):
        tfprune.Cosine.from_epochs(0.0, 0.5, 3, end_epoch=4)


def test_every_schedule_counts_in_epochs():
    for cls in schedules.built_in().values():
        sparsities = (0.5,) if cls is tfprune.ConstantSparsity else (0.0, 0.5)
        schedule = cls.from_epochs(*sparsities, begin_epoch=1, end_epoch=3)
        assert schedule.resolve(7) == cls.from_epochs(
            *sparsities, steps_per_epoch=7, begin_epoch=1, end_epoch=3
        )
        assert schedule.target_sparsity == 0.5
        again = schedules.deserialize(schedules.serialize(schedule))
        assert again == schedule and hash(again) == hash(schedule)

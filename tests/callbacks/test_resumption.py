"""A step that disagrees with the epoch that training starts from is said."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._wrapping.wrapper import mask_owners

STEPS = 3


def wrapped(schedule=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model = tfprune.prune_low_magnitude(model, schedule or tfprune.ConstantSparsity(0.5, 0))
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def fit(model, *callbacks, epochs, first=0):
    x, y = np.ones((STEPS, 4), "float32"), np.ones((STEPS, 3), "float32")
    model.fit(
        x,
        y,
        batch_size=1,
        epochs=epochs,
        initial_epoch=first,
        verbose=0,
        callbacks=[*callbacks, tfprune.UpdatePruningStep()],
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Files after two epochs and within the second."""
    folder = tmp_path_factory.mktemp("trained")

    class Saving(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if mask_owners(self.model)[0].pruning_step in (4, 5):
                self.model.save_weights(folder / "inside.weights.h5")

    model = wrapped()
    fit(model, Saving(), epochs=2)
    model.save_weights(folder / "whole.weights.h5")
    return folder


@pytest.mark.parametrize(
    ("name", "first", "said"),
    [
        ("whole", 0, None),  # A new training on weights that were pruned before.
        ("whole", 1, "in epoch 2, to which the pruning step 6"),
        ("whole", 2, None),
        ("whole", 3, "in epoch 2, to which the pruning step 6"),
        ("inside", 1, "steps after the start of epoch 1"),
        ("inside", 2, "training to continue in epoch 1"),
    ],
)
def test_the_epoch_is_compared_with_the_step(name, first, said, trained):
    model = wrapped()
    model.load_weights(trained / f"{name}.weights.h5")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(model, epochs=4, first=first)
    found = [str(w.message) for w in told if "training to continue" in str(w.message)]
    assert len(found) == (said is not None)
    assert all(said in message and f"epoch {first}" in message for message in found)


def test_a_file_that_a_callback_loads_is_compared_too(trained):
    class Loading(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.load_weights(trained / "whole.weights.h5")

    with pytest.warns(UserWarning, match="training to continue in epoch 2"):
        fit(wrapped(), Loading(), epochs=4)


# -- Another schedule, another optimizer -----------------------------------------------------------


def ramp(target, begin=0, initial=0.0):
    """Three steps long: in the file, it has ended."""
    return tfprune.PolynomialDecay(initial, target, begin, begin + STEPS, frequency=1)


@pytest.mark.parametrize("target", [0.25, 0.75])
def test_masks_of_another_schedule_are_not_blamed_on_callbacks(target, trained):
    model = wrapped(ramp(target))
    model.load_weights(trained / "whole.weights.h5")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(model, epochs=3, first=2)
    at_begin, at_end = (str(w.message) for w in told if "Expected" in str(w.message))
    own = f"{target:.4f}, the schedule's own at step"
    assert f"{own} 6. Received: 0.5000, from the file" in at_begin
    assert f"{own} 9. Received: 0.5000." in at_end
    for message, step in ((at_begin, 6), (at_end, 9)):
        assert "saved with another schedule" in message and "EarlyStopping" not in message
        assert f"PolynomialDecay(0.5, {target:g}, begin_step={step}, end_step=" in message


@pytest.mark.parametrize("target", [0.25, 0.75])
def test_a_schedule_that_goes_on_from_the_file_says_nothing(target, trained):
    model = wrapped(ramp(target, begin=6, initial=0.5))
    model.load_weights(trained / "whole.weights.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, epochs=3, first=2)
    assert mask_owners(model)[0].pruned_weights[0].zeros == 12 * target


@pytest.mark.filterwarnings("ignore:Expected a model with wrapped layers to be saved as .keras")
def test_an_optimizer_of_the_old_format_is_refused_and_compiling_mends_it(tmp_path):
    model = wrapped()
    # Keras does not find the function "mse" when it loads such a file.
    model.compile("sgd", keras.losses.MeanSquaredError(), run_eagerly=True)
    fit(model, epochs=1)
    model.save(tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5")
    before = loaded.get_weights()
    with pytest.raises(ValueError, match=r"SGD that knows none.*model\.compile again.*\.keras"):
        fit(loaded, epochs=1)
    for one, other in zip(before, loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    loaded.compile("sgd", "mse", run_eagerly=True)
    fit(loaded, epochs=1)
    assert mask_owners(loaded)[0].pruned_weights[0].zeros == 6

"""Programs in the way of tfmot's guides and examples, on small data, with their imports changed.

`sparsity` means `tfmot.sparsity.keras`. docs/guide/from_tfmot.md lists what Keras 3 forbids.
"""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune as sparsity
from tfprune._wrapping.wrapper import mask_owners

RANDOM = np.random.default_rng(0)
IMAGES, DIGITS = RANDOM.normal(size=(16, 12, 12)).astype("float32"), RANDOM.integers(0, 10, 16)
END = 8


def decay(final=0.5):
    return sparsity.PolynomialDecay(
        initial_sparsity=0.25, final_sparsity=final, begin_step=0, end_step=END, frequency=1
    )


def trained(model, x, y, loss="sparse_categorical_crossentropy", epochs=2, callbacks=()):
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    model.fit(
        x,
        y,
        batch_size=4,
        epochs=epochs,
        verbose=0,
        callbacks=[sparsity.UpdatePruningStep(), *callbacks],
    )
    return model


def zeros(model):
    """The share of zeros in each weight of a stripped model that could be pruned."""
    return [row.sparsity for row in sparsity.sparsity_report(model).rows if row.parameters > 20]


def test_train_a_small_network_prune_it_and_strip_it(tmp_path):
    """The first guide: a base model, fine-tuned with pruning, stripped, saved."""
    base = keras.Sequential(
        [
            layers.InputLayer(shape=(12, 12)),
            layers.Reshape(target_shape=(12, 12, 1)),
            layers.Conv2D(filters=12, kernel_size=(3, 3), activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    base.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    base.fit(IMAGES, DIGITS, epochs=1, verbose=0, validation_split=0.25)
    model = sparsity.prune_low_magnitude(base, pruning_schedule=decay(0.8))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    summaries = sparsity.PruningSummaries(log_dir=str(tmp_path / "logs"))
    trained(model, IMAGES, DIGITS, loss, callbacks=[summaries])
    for_export = sparsity.strip_pruning(model)
    for_export.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))
    assert [round(share, 1) for share in zeros(again)] == [0.8, 0.8]


def test_prune_some_layers_with_clone_model():
    """The comprehensive guide: `clone_function` wraps the layers that it chooses."""
    base = keras.Sequential([keras.Input((6,)), layers.Dense(8, name="a"), layers.ReLU()])
    base.add(layers.Dense(2, name="b"))

    def wrap_dense(layer):
        if isinstance(layer, layers.Dense):
            return sparsity.prune_low_magnitude(layer)
        return layer

    model = keras.models.clone_model(base, clone_function=wrap_dense)
    x, y = np.ones((8, 6), "float32"), np.ones((8, 2), "float32")
    trained(model, x, y, "mse")
    assert len(mask_owners(model)) == 2
    assert next(round(share, 2) for share in zeros(sparsity.strip_pruning(model))) == 0.5


def test_prune_layers_as_the_model_is_written():
    """Functional and Sequential code in which single layers are wrapped."""
    inputs = keras.Input((6,))
    x = sparsity.prune_low_magnitude(layers.Dense(8))(inputs)
    outputs = layers.Dense(2)(x)
    functional = keras.Model(inputs, outputs)
    sequential = keras.Sequential(
        [sparsity.prune_low_magnitude(layers.Dense(8), input_shape=(6,)), layers.Dense(2)]
    )
    for model in (functional, sequential):
        trained(model, np.ones((8, 6), "float32"), np.ones((8, 2), "float32"), "mse")
        (owner,) = mask_owners(model)
        assert owner.pruned_weights[0].zeros == 24


class WithBias(layers.Dense, sparsity.PrunableLayer):
    """A layer of one's own that prunes its bias too."""

    def get_prunable_weights(self):
        return [self.kernel, self.bias]


def test_a_custom_layer_prunes_its_bias():
    model = keras.Sequential([keras.Input((6,)), WithBias(8), layers.Dense(2)])
    model = sparsity.prune_low_magnitude(model, decay())
    trained(model, np.ones((16, 6), "float32"), np.ones((16, 2), "float32"), "mse")
    assert [weight.zeros for weight in mask_owners(model)[0].pruned_weights] == [24, 4]


def test_a_checkpoint_in_the_middle(tmp_path):
    """Saved with its wrappers, loaded in `prune_scope`, trained on."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(2)])
    model = sparsity.prune_low_magnitude(model, decay())
    x, y = np.ones((16, 6), "float32"), np.ones((16, 2), "float32")
    with pytest.warns(UserWarning, match="Expected training to reach"):
        trained(model, x, y, "mse", epochs=1)
    model.save(tmp_path / "pruned.keras")
    with sparsity.prune_scope():
        loaded = keras.saving.load_model(tmp_path / "pruned.keras")
    loaded.fit(x, y, batch_size=4, epochs=1, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    assert {owner.pruning_step for owner in mask_owners(loaded)} == {END}


def test_two_in_four():
    """The guide on 2:4, and its example: convolutions and a Dense layer, one that does not fit."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(8, 3, activation="relu", name="first"),
            layers.Conv2D(8, 3, activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="last"),
        ]
    )
    constant = sparsity.ConstantSparsity(target_sparsity=0.5, begin_step=0, frequency=1)
    with pytest.warns(UserWarning, match="first, which are not pruned"):
        model = sparsity.prune_low_magnitude(model, constant, sparsity_m_by_n=(2, 4))
    trained(model, IMAGES[..., None], DIGITS)
    plain = sparsity.strip_pruning(model)
    kernel = np.asarray(plain.get_layer("second").kernel)
    groups = kernel.transpose(0, 1, 3, 2).reshape(-1, 4)
    assert set((groups == 0).sum(axis=1)) == {2}


def test_fast_on_a_device(tmp_path):
    """The guide on inference on devices: the policy chooses 1x1 convolutions."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.ZeroPadding2D(1),
            layers.Conv2D(8, 3, strides=(2, 2), padding="valid"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, 1),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    model = sparsity.prune_low_magnitude(
        model, decay(0.75), pruning_policy=sparsity.PruneForLatencyOnXNNPack()
    )
    images = RANDOM.normal(size=(16, 12, 12, 3)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained(model, images, DIGITS, loss)
    (owner,) = mask_owners(model)
    assert owner.pruned_weights[0].zeros == 96


def test_text_with_a_recurrent_network():
    """The example on film reviews: Embedding, LSTM, Dropout and a sigmoid."""
    model = keras.Sequential(
        [
            layers.Embedding(20, 8),
            layers.LSTM(4, return_sequences=True),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    words, stars = RANDOM.integers(0, 20, (16, 6)), RANDOM.integers(0, 2, (16, 1))
    model(words)
    model = sparsity.prune_low_magnitude(model, decay(0.75))
    trained(model, words, stars, "binary_crossentropy")
    found = [w.zeros / w.size for owner in mask_owners(model) for w in owner.pruned_weights]
    assert [round(share, 2) for share in found] == [0.75] * 4


def test_attention():
    """The example on multi-head attention in a functional model."""
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(num_heads=2, key_dim=4)(query=inputs, value=inputs)
    x = layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    model = sparsity.prune_low_magnitude(model, decay())
    trained(model, RANDOM.normal(size=(16, 5, 8)), RANDOM.normal(size=(16, 2)), "mse")
    found = [w.zeros / w.size for owner in mask_owners(model) for w in owner.pruned_weights]
    assert found == [0.5] * 5


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_the_older_tutorial(tmp_path):
    """`input_shape` in the first layer, every layer wrapped by hand, `profile_batch=0`."""
    parameters = {"pruning_schedule": decay()}
    model = keras.Sequential(
        [
            sparsity.prune_low_magnitude(
                layers.Conv2D(8, 5, padding="same", activation="relu"),
                input_shape=(12, 12, 1),
                **parameters,
            ),
            layers.MaxPooling2D((2, 2), (2, 2), padding="same"),
            layers.BatchNormalization(),
            layers.Flatten(),
            sparsity.prune_low_magnitude(layers.Dense(16, activation="relu"), **parameters),
            layers.Dropout(0.4),
            sparsity.prune_low_magnitude(layers.Dense(10, activation="softmax"), **parameters),
        ]
    )
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(), optimizer="adam", metrics=["accuracy"]
    )
    callbacks = [
        sparsity.UpdatePruningStep(),
        sparsity.PruningSummaries(log_dir=tmp_path / "logs", profile_batch=0),
    ]
    model.fit(
        IMAGES[..., None],
        DIGITS,
        batch_size=4,
        epochs=2,
        verbose=0,
        callbacks=callbacks,
        validation_data=(IMAGES[..., None], DIGITS),
    )
    final = sparsity.strip_pruning(model)
    assert len(final.layers) == 7 and not mask_owners(final)

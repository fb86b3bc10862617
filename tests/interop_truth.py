"""Trains, saves and reads models with tfmot on tf_keras: `python interop_truth.py folder`.

A script, because importing tfmot sets TF_USE_LEGACY_KERAS for the whole process. Each case leaves
its file, what the reader of `tfprune.interop` read of it, and the truth as tf_keras tells it.
"""

import os
import sys
from pathlib import Path

import numpy as np

# Steps of each epoch, before and after the file was written.
BEFORE, AFTER = 7, 9
SCHEDULE = {
    "initial_sparsity": 0.25,
    "final_sparsity": 0.75,
    "begin_step": 1,
    "end_step": 13,
    "power": 3,
    "frequency": 2,
}


def data(steps, batch=8):
    """Inputs and targets of a regression, the same in all processes."""
    random = np.random.default_rng(0)
    x = random.normal(size=(steps * batch, 8, 8, 2)).astype("float32")
    return x, x.mean(axis=(1, 2, 3))[:, None].astype("float32")


def main(folder):
    os.environ.update(TF_USE_LEGACY_KERAS="1", CUDA_VISIBLE_DEVICES="-1")
    import keras
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from interop_legacy_code import Mix, Stairs

    import tfprune
    from tfprune.interop import tfmot_reader

    tf_keras.utils.set_random_seed(1)
    folder = Path(folder)
    layers, sparsity = tf_keras.layers, tfmot.sparsity.keras
    wrap = sparsity.prune_low_magnitude
    truth = {}

    def schedule():
        return sparsity.PolynomialDecay(**SCHEDULE)

    def partly(model, names, **how):
        def wrapped(layer):
            return wrap(layer, **{"pruning_schedule": schedule(), **how.get(layer.name, {})})

        return tf_keras.models.clone_model(
            model, clone_function=lambda layer: wrapped(layer) if layer.name in names else layer
        )

    def cnn():
        return tf_keras.Sequential(
            [
                layers.Conv2D(6, 3, activation="relu", input_shape=(8, 8, 2), name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.Flatten(),
                layers.Dense(8, activation="relu", kernel_regularizer="l2", name="hidden"),
                layers.Dense(1, name="out"),
            ],
            name="cnn",
        )

    def noisy(model):
        """Weights and masks that no two layers share."""
        random = np.random.default_rng(3)
        for weight in model.weights:
            if "mask" in weight.name:
                weight.assign(random.integers(0, 2, weight.shape))
            elif weight.dtype.is_floating:
                weight.assign(np.abs(random.normal(0.3, 0.2, weight.shape)))
            elif "pruning_step" in weight.name:
                weight.assign(5)
        for _, layer in tfmot_reader.leaves(model):
            for weight, mask, _ in getattr(layer, "pruning_vars", ()):
                weight.assign(weight * mask)
        return model

    def save(model, name, suffix):
        path = folder / (name + suffix)
        model.save(path)
        return path

    def record(name, model):
        """What tf_keras and tfmot themselves say of a model."""
        random = np.random.default_rng(5)
        inputs = []
        for tensor in model.inputs:
            shape = [size or 4 for size in tensor.shape]
            whole = not tensor.dtype.is_floating
            inputs.append(random.integers(0, 5, shape) if whole else random.normal(size=shape))
            inputs[-1] = inputs[-1].astype(tensor.dtype.as_numpy_dtype)
        for path, layer in tfmot_reader.leaves(model):
            key = f"{name}/" + "/".join(path).replace("prune_low_magnitude_", "")
            if not hasattr(layer, "pruning_vars"):
                continue
            truth[f"{key}/step"] = layer.pruning_step.numpy()
            for number, (weight, mask, _) in enumerate(layer.pruning_vars):
                truth[f"{key}/weight_{number}"] = weight.numpy()
                truth[f"{key}/mask_{number}"] = mask.numpy()
        outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        for kind, arrays in (("input", inputs), ("output", outputs)):
            for number, array in enumerate(arrays):
                truth[f"{name}/{kind}_{number}"] = np.asarray(array)

    def read(path, name, code=""):
        (folder / "read" / name).mkdir(parents=True)
        tfmot_reader.main(str(path), str(folder / "read" / name), code)

    def case(name, model, suffix=".h5"):
        path = save(model, name, suffix)
        record(name, model)
        read(path, name)

    # -- Trained, saved in all formats, converted alive, trained on -------------------------------
    model = partly(cnn(), ("conv", "norm", "hidden"))
    model.compile("adam", "mse")
    masks = [m for layer in model.layers for _, m, _ in getattr(layer, "pruning_vars", ())]

    class Zeros(tf_keras.callbacks.Callback):
        """Counts the zeros in the masks after each batch."""

        seen = []

        def on_train_batch_end(self, batch, logs=None):
            zeros = sum(int((m.numpy() == 0).sum()) for m in masks)
            self.seen.append(zeros / sum(int(tf.size(m)) for m in masks))

    callbacks = [sparsity.UpdatePruningStep(), Zeros()]
    x, y = data(BEFORE)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
    for name, suffix in (("h5", ".h5"), ("keras", ".keras"), ("saved_model", "")):
        case(name, model, suffix)
    # -- Without tfmot ----------------------------------------------------------------------------
    two_inputs = [layers.Input((4,), name="wide"), layers.Input((3,), name="narrow")]
    joined = layers.Concatenate()([layers.Dense(5, "tanh")(two_inputs[0]), two_inputs[1]])
    two_outputs = [layers.Dense(2, name="a")(joined), layers.Dense(1, name="b")(joined)]
    named_inputs = dict(zip(("wide", "narrow"), two_inputs, strict=True))
    for name, plain, suffix in (
        ("plain", cnn(), ""),
        ("plain_h5", cnn(), ".h5"),
        ("plain_graph", tf_keras.Model(two_inputs, two_outputs), ""),
        ("plain_named", tf_keras.Model(named_inputs, two_outputs), ".h5"),
    ):
        case(name, noisy(plain), suffix)
    # One more update, which no callback puts to zero: what is pruned drifts.
    drifting = [w.numpy() for w in model.weights]
    optimizer = [v.numpy() for v in model.optimizer.variables]
    model.train_on_batch(*data(1))
    kernels = [w for layer in model.layers for w, _, _ in getattr(layer, "pruning_vars", ())]
    for number, kernel in enumerate(kernels):
        truth[f"drift/raw_{number}"] = kernel.numpy()
    read(save(model, "drift", ".h5"), "drift")
    before = [w.numpy() for w in model.weights]
    converted = tfprune.interop.from_tfmot(model)
    truth["live/unchanged"] = all(
        np.array_equal(w.numpy(), old) for w, old in zip(model.weights, before, strict=True)
    )
    converted.save(folder / "live.keras")
    record("live", model)
    for variables, values in ((model.weights, drifting), (model.optimizer.variables, optimizer)):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    x, y = data(AFTER)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
    truth["sparsity"] = np.array(Zeros.seen)

    # -- Others ------------------------------------------------------------------------------------
    case("fresh", partly(cnn(), ("hidden",)), ".keras")
    case("stripped", cnn())
    case("everything", noisy(wrap(cnn(), schedule())))

    blocks = {"hidden": {"block_size": (2, 4), "block_pooling_type": "MAX"}}
    blocks["out"] = {"pruning_schedule": sparsity.ConstantSparsity(0.5, 3, 40, 7)}
    case("blocks", noisy(partly(cnn(), ("hidden", "out"), **blocks)))

    m_by_n = {"hidden": {"sparsity_m_by_n": (2, 4)}}
    model = partly(cnn(), ("hidden",), **m_by_n)
    model.compile("sgd", "mse")
    model.fit(*data(3), batch_size=8, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    case("m_by_n", model)
    tfprune.interop.from_tfmot(model).save(folder / "live_m_by_n.keras")

    taking = layers.Input((6,), name="taking")
    inner = tf_keras.Sequential([layers.Dense(6, "relu", name="same")], name="inner")
    deep_in = layers.Input((6,))
    deep = tf_keras.Model(deep_in, layers.Dense(6, name="dense")(inner(deep_in)), name="deep")
    shared = layers.Dense(6, name="shared")
    hidden = deep(shared(shared(taking)))
    more = layers.Input((6,), name="more")
    joined = layers.Concatenate()([hidden, more, deep(more)])
    outputs = [layers.Dense(2, name="same")(joined), layers.Dense(3, name="last")(hidden)]
    nested = wrap(tf_keras.Model([taking, more], outputs, name="nested"), schedule())
    case("nested", noisy(nested))

    case("zoo", noisy(_zoo(tf_keras, lambda layer: wrap(layer, schedule()))), ".keras")
    case(
        "custom",
        noisy(
            tf_keras.Sequential(
                [layers.Input((4,)), wrap(Mix(5, name="mix"), Stairs(0.8, 2)), layers.Dense(2)]
            )
        ),
    )
    read(
        folder / "custom.h5",
        "custom_with_code",
        str(Path(__file__).with_name("interop_legacy_code.py")),
    )

    case(
        "alike",
        noisy(
            tf_keras.Sequential(
                [
                    layers.Input((4,)),
                    wrap(layers.Dense(4, name="a"), schedule()),
                    layers.Dense(4, name="a"),
                    wrap(layers.Dense(2, name="b"), schedule()),
                ]
            )
        ),
    )
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    half = wrap(layers.Dense(4, name="half"), schedule())
    mixed = tf_keras.Sequential([layers.Input((4,)), half, layers.Dense(2, dtype="float32")])
    tf_keras.mixed_precision.set_global_policy("float32")
    case("mixed", noisy(mixed))

    class Mix3(keras.layers.Layer, tfprune.PrunableLayer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units

        def build(self, input_shape):
            self.first = self.add_weight(shape=(input_shape[-1], self.units), name="first")
            self.second = self.add_weight(shape=(self.units, self.units), name="second")

        def call(self, inputs):
            return inputs @ self.first @ self.second

        def get_prunable_weights(self):
            return [self.second]

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    stairs = Stairs(0.8, 2)
    own = noisy(tf_keras.Sequential([layers.Input((4,)), wrap(Mix(5, name="mix"), stairs)]))
    moved = tfprune.interop.from_tfmot(own, {"Mix": Mix3}).get_layer("mix").pruned_weights[0]
    truth["live/own_schedule_is_kept"] = moved.method.schedule.schedule is stairs

    # -- Layers without a counterpart --------------------------------------------------------------
    def refused(name, *more, suffix=".h5"):
        stack = [layers.Input((4,)), wrap(layers.Dense(4, name="d"), schedule()), *more]
        read(save(tf_keras.Sequential(stack), name, suffix), name)

    for name, suffix in (("lambda", ".h5"), ("lambda_keras", ".keras"), ("lambda_folder", "")):
        refused(name, layers.Lambda(lambda x: x + 1, name="plus"), suffix=suffix)
    refused("hard_sigmoid", layers.Activation("hard_sigmoid", name="gate"))
    refused("thresholded", layers.ThresholdedReLU(name="cut"))
    recurrent = layers.LSTM(2, time_major=True, name="recurrent")
    refused("time_major", layers.Reshape((1, 4)), recurrent)
    taking = layers.Input((4,))
    hidden = wrap(layers.Dense(4), schedule())(taking)
    read(save(tf_keras.Model(taking, hidden + 1.0), "operation", ".h5"), "operation")
    layer = layers.Dense(4, name="twice")
    inner = tf_keras.Sequential([layers.Input((4,)), layer], name="inner")
    model = tf_keras.Model(taking, layer(inner(hidden)))
    for name, wrong in (("shared", model), ("subclassed", None), ("single", wrap(layer))):
        if wrong is None:

            class Own(tf_keras.Model):
                def __init__(self):
                    super().__init__()
                    self.layer = wrap(layers.Dense(2))

                def call(self, inputs):
                    return self.layer(inputs)

            wrong = Own()
            wrong(np.ones((1, 4)))
        try:
            tfprune.interop.from_tfmot(wrong)
        except (TypeError, ValueError) as error:
            truth[f"refused/{name}"] = f"{type(error).__name__}: {error}"
    try:
        tfprune.interop.from_tfmot(nested, sparsity_m_by_n=(2, 4))
    except ValueError as error:
        truth["refused/m_by_n"] = f"{type(error).__name__}: {error}"
    (folder / "text.h5").write_text("no model")
    read(folder / "text.h5", "text")
    cnn().save_weights(folder / "weights.h5")
    read(folder / "weights.h5", "weights")
    np.savez(folder / "truth.npz", **truth)


def _zoo(tf_keras, wrapped):
    """A layer of each kind with its own weights or config."""
    layers = tf_keras.layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Rescaling(0.5, offset=0.1)(image)
    x = layers.ZeroPadding2D()(x)
    x = wrapped(
        layers.Conv2D(4, 3, dilation_rate=2, padding="same", activation="swish", name="conv")
    )(x)
    x = layers.LeakyReLU(0.1)(x)
    x = layers.Conv2D(4, 3, groups=2, kernel_constraint=tf_keras.constraints.MaxNorm(2.0))(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = wrapped(layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"))(x)
    x = layers.ReLU(6.0)(x)
    x = wrapped(layers.SeparableConv2D(5, 3, padding="same", name="separable"))(x)
    x = layers.LayerNormalization()(layers.ELU(0.5)(x))
    x = layers.SpatialDropout2D(0.2)(x)
    x = wrapped(layers.Conv2DTranspose(3, 2, strides=2, name="transposed"))(x)
    x = layers.GroupNormalization(3)(layers.Cropping2D(1)(x))
    x = layers.AveragePooling2D(padding="same")(layers.UpSampling2D(interpolation="bilinear")(x))
    x = layers.GlobalMaxPooling2D()(layers.Activation("gelu")(layers.Softmax(axis=2)(x)))
    x = layers.UnitNormalization()(layers.GaussianNoise(0.1)(x))
    words = layers.Input((6,), dtype="int32", name="words")
    w = wrapped(layers.Embedding(5, 4, name="embedding", mask_zero=True))(words)
    w = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(w)
    w = wrapped(layers.GRU(4, return_sequences=True, name="gru"))(w)
    state = layers.Dense(4, trainable=False, name="frozen")(layers.Flatten()(w))
    w = layers.LSTM(4, return_sequences=True)(w, initial_state=[state, state])
    w = layers.TimeDistributed(layers.Dense(4, "tanh"), name="each")(w)
    attended = layers.MultiHeadAttention(2, 3, name="attention")(w, value=w)
    w = layers.Add()([w, attended])
    w = layers.Conv1D(4, 2, padding="causal", name="conv1d")(w)
    w = layers.RNN(layers.StackedRNNCells([layers.SimpleRNNCell(3), layers.GRUCell(2)]))(w)
    w = wrapped(
        layers.Dense(
            3, bias_initializer=tf_keras.initializers.Constant(0.1), trainable=False, name="dense"
        )
    )(w)
    joined = layers.Concatenate()([layers.Flatten()(x), layers.Reshape((-1,))(w)])
    dotted = layers.Dot(axes=1)([joined, joined])
    return tf_keras.Model([image, words], [joined, dotted], name="zoo")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1])

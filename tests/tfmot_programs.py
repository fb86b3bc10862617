"""Small programs in tfmot's way, run with tfmot on tf_keras and with tfprune on Keras 3.

`python tfmot_programs.py answers.json` runs all of them with tfmot, in a separate process,
because importing tfmot sets TF_USE_LEGACY_KERAS for the whole process; the tests run them with
tfprune and compare. Each takes both libraries and an empty folder, and returns what JSON can hold.
"""

import json
import os
import pathlib
import sys
import tempfile

import numpy as np

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(8, 6)).astype("float32")
Y = RANDOM.normal(size=(8, 2)).astype("float32")


def half(sparsity):
    # From step 1: tfmot raises its counter first, so that step 0 never comes.
    return sparsity.ConstantSparsity(0.5, begin_step=1, frequency=1)


def fitted(keras, sparsity, model, *callbacks):
    model.compile("sgd", "mse", run_eagerly=True)
    callbacks = [sparsity.UpdatePruningStep(), *callbacks]
    model.fit(X, Y, batch_size=2, epochs=1, verbose=0, callbacks=callbacks)
    return model


def wrappers(model):
    return [layer for layer in model.layers if hasattr(layer, "pruning_vars")]


def zeros(model):
    """Zeros in the masks of each wrapper."""
    found = [[np.array(mask) for _, mask, _ in layer.pruning_vars] for layer in wrappers(model)]
    return [[int((mask == 0).sum()) for mask in masks] for masks in found]


def two_layers(keras, first=()):
    return keras.Sequential([*first, keras.layers.Dense(4), keras.layers.Dense(2)])


def a_first_layer_with_a_shape(keras, sparsity, folder):
    first = sparsity.prune_low_magnitude(keras.layers.Dense(4), half(sparsity), input_shape=(6,))
    model = keras.Sequential([first, keras.layers.Dense(2)])
    return [model.built, list(model.input_shape), zeros(fitted(keras, sparsity, model))]


def a_wrapped_layer_with_a_shape(keras, sparsity, folder):
    layer = keras.layers.Dense(4, input_shape=(6,))
    model = keras.Sequential([sparsity.prune_low_magnitude(layer, half(sparsity))])
    return [model.built, list(model.input_shape)]


def summaries_with_tensorboards_arguments(keras, sparsity, folder):
    import tensorflow as tf
    from tensorflow.core.util import event_pb2

    inputs = [keras.layers.InputLayer(input_shape=(6,))] if "tf_keras" in keras.__name__ else None
    model = two_layers(keras, inputs or [keras.Input((6,))])
    model = sparsity.prune_low_magnitude(model, half(sparsity))
    summaries = sparsity.PruningSummaries(
        log_dir=str(folder), profile_batch=0, histogram_freq=1, update_freq="epoch"
    )
    fitted(keras, sparsity, model, summaries)
    tags = set()
    for path in pathlib.Path(folder).rglob("*tfevents*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = event_pb2.Event.FromString(record.numpy())
            tags.update(value.tag for value in event.summary.value)
    kinds = ("epoch_loss", "sparsity", "threshold")
    return [any(kind in tag for tag in tags) for kind in kinds]


def depthwise_layers(keras, sparsity, folder):
    layers = keras.layers
    model = keras.Sequential(
        [layers.DepthwiseConv2D(3, name="depthwise"), layers.Conv2D(4, 1, name="pointwise")]
    )
    model.build((None, 6, 6, 3))
    pruned = sparsity.prune_low_magnitude(model, half(sparsity))
    return [
        sum(hasattr(layer, "pruning_vars") and bool(layer.pruning_vars) for layer in pruned.layers)
    ]


def weights_of_a_wrapped_layer(keras, sparsity, folder):
    layer = sparsity.prune_low_magnitude(keras.layers.Dense(4), half(sparsity))
    layer.build((None, 6))
    return [list(array.shape) for array in layer.get_weights()[:2]]


def attributes_of_a_wrapper(keras, sparsity, folder):
    layer = sparsity.prune_low_magnitude(
        keras.layers.Dense(4), half(sparsity), block_size=(2, 2), block_pooling_type="MAX"
    )
    layer.build((None, 6))
    weight, mask, threshold = layer.pruning_vars[0]
    shapes = [list(weight.shape), list(mask.shape), list(threshold.shape)]
    prunable = [list(variable.shape) for variable in layer.layer.get_prunable_weights()]
    schedule = layer.pruning_schedule.get_config()
    target = schedule.get("config", schedule)["target_sparsity"]
    return [shapes, prunable, list(layer.block_size), layer.block_pooling_type, target]


def n_of_m_with_a_layer_that_does_not_fit(keras, sparsity, folder):
    layers = keras.layers
    model = keras.Sequential([layers.Conv2D(4, 3, name="one"), layers.Conv2D(4, 1, name="fits")])
    model.build((None, 6, 6, 1))
    try:
        pruned = sparsity.prune_low_magnitude(model, half(sparsity), sparsity_m_by_n=(2, 4))
        pruned.compile("sgd", "mse", run_eagerly=True)
        images = np.ones((4, 6, 6, 1), "float32")
        callbacks = [sparsity.UpdatePruningStep()]
        pruned.fit(images, np.ones((4, 4, 4, 4)), batch_size=2, verbose=0, callbacks=callbacks)
    except Exception:
        return "error"
    return [layer.layer.name for layer in wrappers(pruned)]


def weights_that_a_layer_names_itself(keras, sparsity, folder):
    class Scaled(keras.layers.Dense):
        def build(self, input_shape):
            super().build(input_shape)
            self.scale = self.add_weight(shape=(input_shape[-1], 4), name="scale")

        def get_prunable_weights(self):
            return [self.scale]

    layer = sparsity.prune_low_magnitude(Scaled(4), half(sparsity), input_shape=(6,))
    model = fitted(keras, sparsity, keras.Sequential([layer, keras.layers.Dense(2)]))
    return [zeros(model), [list(weight.shape) for weight, _, _ in layer.pruning_vars]]


def a_loop_by_hand(keras, sparsity, folder):
    import tensorflow as tf

    schedule = sparsity.PolynomialDecay(0.0, 0.5, begin_step=1, end_step=4, frequency=1)
    model = two_layers(keras)
    model.build((None, 6))
    random = np.random.default_rng(3)
    model.set_weights([random.normal(size=array.shape) for array in model.get_weights()])
    model = sparsity.prune_low_magnitude(model, schedule)
    optimizer = keras.optimizers.SGD(0.1)
    model.optimizer = optimizer
    step = sparsity.UpdatePruningStep()
    step.set_model(model)
    step.on_train_begin()
    for _ in range(2):
        for _ in range(3):
            step.on_train_batch_begin(batch=-1)
            # tfmot updates its masks where the model is called.
            model(X, training=True)
            variables = model.trainable_variables
            optimizer.apply_gradients(zip(map(tf.zeros_like, variables), variables, strict=True))
        step.on_epoch_end(batch=-1)
    masks = [np.array(layer.pruning_vars[0][1]).astype(bool) for layer in wrappers(model)]
    return [mask.tolist() for mask in masks]


def a_model_that_is_not_built(keras, sparsity, folder):
    model = sparsity.prune_low_magnitude(two_layers(keras), half(sparsity))
    before = bool(model.built)
    # tfmot's callback does not find the step of a layer that was never called.
    model(X)
    return [before, zeros(fitted(keras, sparsity, model))]


def callbacks_after_stripping(keras, sparsity, folder):
    model = two_layers(keras)
    model.build((None, 6))
    plain = sparsity.strip_pruning(sparsity.prune_low_magnitude(model, half(sparsity)))
    fitted(keras, sparsity, plain)
    return len(plain.weights)


def a_wrapped_layer_in_a_model_that_is_wrapped(keras, sparsity, folder):
    own = sparsity.ConstantSparsity(0.25, begin_step=1, frequency=1)
    first = sparsity.prune_low_magnitude(keras.layers.Dense(4), own, input_shape=(6,))
    model = keras.Sequential([first, keras.layers.Dense(2)])
    pruned = sparsity.prune_low_magnitude(model, half(sparsity))
    return zeros(fitted(keras, sparsity, pruned))


def an_old_file_with_a_schedule_of_ones_own(keras, sparsity, folder):
    class Quarter(sparsity.ConstantSparsity):
        """A schedule that is not registered with Keras."""

    model = two_layers(keras)
    model.build((None, 6))
    pruned = sparsity.prune_low_magnitude(model, Quarter(0.25, 1, frequency=1))
    path = os.path.join(folder, "model.h5")
    pruned.save(path)
    with sparsity.prune_scope():
        loaded = keras.models.load_model(path, custom_objects={"Quarter": Quarter})
    return [type(layer.pruning_schedule).__name__ for layer in wrappers(loaded)]


def a_policy_and_a_sum_written_as_code(keras, sparsity, folder):
    layers = keras.layers
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2)(layers.ZeroPadding2D(1)(inputs))
    x = x + layers.Conv2D(8, 1)(x)
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    policy = sparsity.PruneForLatencyOnXNNPack()
    model = keras.Model(inputs, x)
    try:
        pruned = sparsity.prune_low_magnitude(model, half(sparsity), pruning_policy=policy)
    except ValueError:
        return "error"
    return len(wrappers(pruned))


PROGRAMS = {
    name: thing
    for name, thing in list(globals().items())
    if callable(thing) and thing.__code__.co_varnames[:3] == ("keras", "sparsity", "folder")
}


def answers_of(keras, sparsity, names):
    """`{name: answer}` of programs, after a passage through JSON."""
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = PROGRAMS[name](keras, sparsity, pathlib.Path(folder))
    return json.loads(json.dumps(found))


def main(path):
    os.environ.update(TF_USE_LEGACY_KERAS="1", CUDA_VISIBLE_DEVICES="-1")
    import tensorflow_model_optimization as tfmot
    import tf_keras

    found = {}
    for name in PROGRAMS:
        try:
            found.update(answers_of(tf_keras, tfmot.sparsity.keras, [name]))
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:200]
    pathlib.Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])

"""Gradients, activations and scales that criteria take, against NumPy, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops
from keras_support import outputs

import tfprune
from tfprune._updates.evidence import Evidence
from tfprune._wrapping.wrapper import mask_owners

RANDOM = np.random.default_rng(0)


def wrapped(model, criterion, loss="mse", **arguments):
    pruned = tfprune.prune_low_magnitude(
        model, tfprune.ConstantSparsity(0.5, 0), criterion=criterion, **arguments
    )
    if loss is not None:
        pruned.compile("adam", loss)
    return pruned


def weights_of(model):
    return [weight for owner in mask_owners(model) for weight in owner.pruned_weights]


def collected(model, need, **arguments):
    """Evidence for each weight of a model, in order."""
    weights = weights_of(model)
    found = Evidence(model, **arguments)(weights)
    return [found[id(weight)][need] for weight in weights]


# -- Gradients -------------------------------------------------------------------------------------


def two_layers():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="relu", name="hidden"),
            keras.layers.Dense(2, name="last"),
        ]
    )


X = RANDOM.normal(size=(12, 4)).astype("float32")
Y = RANDOM.normal(size=(12, 2)).astype("float32")
SAMPLE_WEIGHT = RANDOM.uniform(size=12).astype("float32")


def numpy_gradients(model, x, y, sample_weight=None):
    """Of the mean squared error, by the chain rule, in float64."""
    w1, b1, w2, b2 = (ops.convert_to_numpy(v).astype("float64") for v in plain_weights(model))
    before = x.astype("float64") @ w1 + b1
    hidden = np.maximum(before, 0)
    weight = np.ones(len(x)) if sample_weight is None else sample_weight.astype("float64")
    error = 2 * (hidden @ w2 + b2 - y) / y.size * weight[:, None]
    return [x.T @ ((error @ w2.T) * (before > 0)), hidden.T @ error]


def plain_weights(model):
    return tfprune.strip_pruning(model).weights


def batches_of(number):
    return [(X[i * 4 : i * 4 + 4], Y[i * 4 : i * 4 + 4]) for i in range(number)]


@pytest.mark.parametrize("with_weights", [False, True])
def test_gradient_is_the_mean_over_batches(with_weights):
    model = wrapped(two_layers(), "gradient")
    data = (X, Y, SAMPLE_WEIGHT) if with_weights else (X, Y)
    parts = [SAMPLE_WEIGHT[i * 4 : i * 4 + 4] if with_weights else None for i in range(3)]
    expected = [
        np.mean(layer, axis=0)
        for layer in zip(
            *(
                numpy_gradients(model, x, y, part)
                for (x, y), part in zip(batches_of(3), parts, strict=True)
            ),
            strict=True,
        )
    ]
    found = collected(model, "gradient", data=data, batches=3, batch_size=4)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("criterion", ["taylor", "hessian_diagonal"])
def test_gradient_square_is_of_each_batch(criterion):
    model = wrapped(two_layers(), criterion)
    single = [numpy_gradients(model, x, y) for x, y in batches_of(2)]
    found = collected(model, "gradient_square", data=(X, Y), batches=2, batch_size=4)
    for position, values in enumerate(found):
        expected = (single[0][position] ** 2 + single[1][position] ** 2) / 2
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-8)


def test_gradient_momentum_is_a_moving_average():
    model = wrapped(two_layers(), "gradient_momentum")
    single = [numpy_gradients(model, x, y) for x, y in batches_of(3)]
    found = collected(model, "gradient_momentum", data=(X, Y), batches=3, batch_size=4)
    for position, values in enumerate(found):
        average = 0.0
        for gradients in single:
            average = 0.9 * average + 0.1 * gradients[position]
        np.testing.assert_allclose(values, average, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("criterion", "score"),
    [
        ("gradient", lambda w, g, g2: np.abs(g)),
        ("saliency", lambda w, g, g2: np.abs(w * g)),
        ("taylor", lambda w, g, g2: w * w * g2),
        ("hessian_diagonal", lambda w, g, g2: w * w * g2),
    ],
)
def test_masks_follow_the_scores(criterion, score):
    model = wrapped(two_layers(), criterion)
    kernels = [ops.convert_to_numpy(w.variable).astype("float64") for w in weights_of(model)]
    single = [numpy_gradients(model, x, y) for x, y in batches_of(2)]
    tfprune.UpdatePruningStep(model, data=(X, Y), batches=2, batch_size=4)
    for position, weight in enumerate(weights_of(model)):
        both = np.array([gradients[position] for gradients in single])
        scores = score(kernels[position], both.mean(axis=0), (both**2).mean(axis=0)).ravel()
        kept = ops.convert_to_numpy(weight.mask).ravel()
        assert kept.sum() == kept.size // 2
        assert scores[kept].min() >= scores[~kept].max() * (1 - 1e-4)


def test_gradients_reach_pruned_and_frozen_weights():
    model = wrapped(two_layers(), "gradient")
    model.layers[0].trainable = False
    tfprune.UpdatePruningStep(model, data=(X, Y), batch_size=12)
    expected = numpy_gradients(model, X, Y)
    found = collected(model, "gradient", data=(X, Y), batch_size=12)
    for weight, a, b in zip(weights_of(model), found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        assert a[~ops.convert_to_numpy(weight.mask)].any()


def test_loss_of_ones_own_for_a_model_that_is_not_compiled():
    model = wrapped(two_layers(), "gradient", loss=None)
    found = collected(model, "gradient", data=(X, Y), batch_size=12, loss="mse")
    for a, b in zip(found, numpy_gradients(model, X, Y), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_weights_as_they_are_now():
    """A compiled pass must not keep the weights that it was compiled with."""
    model = wrapped(two_layers(), "gradient")
    evidence = Evidence(model, data=(X, Y), batch_size=12)
    weights = weights_of(model)
    for _ in range(2):
        found = evidence(weights)
        for weight, expected in zip(weights, numpy_gradients(model, X, Y), strict=True):
            np.testing.assert_allclose(
                found[id(weight)]["gradient"], expected, rtol=1e-5, atol=1e-7
            )
        for variable in model.trainable_variables:
            variable.assign(ops.convert_to_numpy(variable) * 1.5 + 0.1)


def test_half_precision_keeps_small_gradients():
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    full, half = two_layers(), two_layers()
    half = keras.models.clone_model(
        half,
        clone_function=lambda old: type(old).from_config({**old.get_config(), "dtype": policy}),
    )
    half.set_weights(full.get_weights())
    data = (X, Y)
    a = collected(wrapped(full, "gradient"), "gradient", data=data, batch_size=12)
    model = wrapped(half, "gradient", loss=None)
    # These gradients are all zero in float16, unless the loss is scaled.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    model.compile(optimizer, lambda y, p: 1e-7 * keras.losses.mean_squared_error(y, p))
    b = collected(model, "gradient", data=data, batch_size=12)
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(other * 1e7, one, rtol=0.02, atol=0.02 * np.abs(one).max())


class OwnModel(keras.Model):
    """two_layers() as a subclassed model, the first layer inside another one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.TimeDistributed(keras.layers.Dense(5, activation="relu"))
        self.last = keras.layers.Dense(2)

    def call(self, inputs):
        hidden = self.first(ops.expand_dims(inputs, 1))
        return self.last(hidden[:, 0])

    def get_config(self):
        return {}


def the_same_in_other_models():
    plain = two_layers()
    own = OwnModel()
    own(X)
    own.set_weights(plain.get_weights())
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, activation="relu")])
    inputs = keras.Input((4,))
    nested = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    nested.set_weights(plain.get_weights())
    return {"subclassed": own, "nested": nested}


@pytest.mark.parametrize("kind", ["subclassed", "nested"])
@pytest.mark.parametrize(
    ("criterion", "need"), [("gradient", "gradient"), ("mean_activation", "activation_mean")]
)
def test_subclassed_and_nested_models(kind, criterion, need):
    other = wrapped(the_same_in_other_models()[kind], criterion)
    expected = collected(wrapped(two_layers(), criterion), need, data=(X, Y), batch_size=12)
    found = collected(other, need, data=(X, Y), batch_size=12)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


# -- Activations -----------------------------------------------------------------------------------


def convolutions(data_format="channels_last"):
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((7, 7, 3)),
            keras.layers.Conv2D(6, 3, name="first"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(),
            keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
            keras.layers.SeparableConv2D(4, 2, activation="relu", name="separable"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="last"),
        ]
    )


IMAGES = RANDOM.normal(size=(8, 7, 7, 3)).astype("float32")
NOT_INNER = [tfprune.Rule("depthwise"), tfprune.Rule("separable", prune=False)]


@pytest.mark.parametrize("need", ["activation_zeros", "activation_mean"])
def test_activations_by_channel(need):
    model = convolutions()
    criterion = "apoz" if need == "activation_zeros" else "mean_activation"
    pruned = wrapped(model, criterion, rules=NOT_INNER)
    found = collected(pruned, need, data=IMAGES, batches=2, batch_size=4)
    for name, values in zip(("first", "depthwise", "last"), found, strict=True):
        layer = model.get_layer(name)
        output = outputs(keras.Model(model.inputs, layer.output), IMAGES)
        active = np.maximum(output, 0).reshape(-1, output.shape[-1])
        expected = (active == 0).mean(axis=0) if criterion == "apoz" else active.mean(axis=0)
        kernel_shape = tuple(layer.kernel.shape)
        if name == "depthwise":
            expected = expected.reshape(kernel_shape[-2:])
        assert values.shape == kernel_shape
        spread = np.broadcast_to(expected, kernel_shape)
        np.testing.assert_allclose(values, spread, rtol=1e-5, atol=1e-6)


def test_activations_of_a_shared_layer_count_all_its_calls():
    shared = keras.layers.Dense(4, name="shared")
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], keras.layers.Add()([shared(a), shared(b)]))
    kernel, bias = (ops.convert_to_numpy(variable) for variable in shared.weights)
    both = np.maximum(np.concatenate([X @ kernel + bias, -X @ kernel + bias]), 0)
    found = collected(
        wrapped(model, "mean_activation"), "activation_mean", data=([X, -X],), batch_size=12
    )
    np.testing.assert_allclose(found[0][0], both.mean(axis=0), rtol=1e-5, atol=1e-6)


# -- Scales ----------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(4, 3)
        self.other = keras.layers.Conv2D(4, 3)
        self.norm_of_other = keras.layers.BatchNormalization()
        self.norm_of_conv = keras.layers.BatchNormalization()

    def call(self, inputs):
        a, b = self.conv(inputs), self.other(inputs)
        return self.norm_of_other(b) + self.norm_of_conv(a)

    def get_config(self):
        return {}


def test_scale_in_a_functional_model():
    inner = keras.Sequential(
        [
            keras.Input((5, 5, 4)),
            keras.layers.Conv2D(6, 3),
            keras.layers.BatchNormalization(name="inner_norm"),
        ]
    )
    inputs = keras.Input((7, 7, 3))
    hidden = keras.layers.Conv2D(4, 3)(inputs)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    model = keras.Model(inputs, inner(keras.layers.ReLU()(hidden)))
    norms = [model.get_layer("norm"), inner.get_layer("inner_norm")]
    for norm in norms:
        norm.gamma.assign(RANDOM.normal(size=norm.gamma.shape))
    found = collected(wrapped(model, "batch_norm_scale"), "scale")
    for norm, values in zip(norms, found, strict=True):
        expected = np.broadcast_to(ops.convert_to_numpy(norm.gamma), values.shape)
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("with_data", [False, True])
def test_scale_in_a_subclassed_model(with_data):
    model = Subclassed()
    model(IMAGES)
    model.norm_of_conv.gamma.assign([1.0, 2.0, 3.0, 4.0])
    model.norm_of_other.gamma.assign([5.0, 6.0, 7.0, 8.0])
    found = collected(
        wrapped(model, "batch_norm_scale"), "scale", data=IMAGES if with_data else None
    )
    assert [values[0, 0, 0].tolist() for values in found] == [[1, 2, 3, 4], [5, 6, 7, 8]]


# -- State that does not change --------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["saliency", "apoz"])
def test_nothing_in_the_model_changes(criterion):
    model = convolutions()
    model.add(keras.layers.Dropout(0.5))
    pruned = wrapped(model, criterion, rules=NOT_INNER)
    y = RANDOM.normal(size=(8, 3)).astype("float32")
    pruned.fit(IMAGES, y, verbose=0, callbacks=[tfprune.UpdatePruningStep(data=(IMAGES, y))])

    def state():
        values = [*pruned.variables, *pruned.optimizer.variables]
        values += [variable for metric in pruned.metrics for variable in metric.variables]
        return [np.array(ops.convert_to_numpy(value)) for value in values]

    before = state()
    Evidence(pruned, data=(IMAGES, y))(weights_of(pruned))
    for a, b in zip(before, state(), strict=True):
        np.testing.assert_array_equal(a, b)


# -- Data ------------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return batches_of(3)[index]


def a_generator():
    yield from batches_of(3)


def a_tf_dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def a_data_loader():
    import torch

    pairs = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(pairs, batch_size=4)


DATA = {"arrays": lambda: (X, Y), "py_dataset": Batches, "generator": a_generator}
DATA["tf_dataset"] = a_tf_dataset
if keras.backend.backend() == "torch":
    DATA["data_loader"] = a_data_loader


@pytest.mark.parametrize("kind", DATA)
def test_batches_follow_on_and_begin_again(kind):
    model = wrapped(two_layers(), "gradient")
    evidence = Evidence(model, data=DATA[kind](), batch_size=4)
    weights = weights_of(model)
    for number in [0, 1, 2] if kind == "generator" else [0, 1, 2, 0]:
        expected = numpy_gradients(model, *batches_of(3)[number])
        found = evidence(weights)
        for weight, values in zip(weights, expected, strict=True):
            np.testing.assert_allclose(found[id(weight)]["gradient"], values, rtol=1e-5, atol=1e-7)


# -- Bad input -------------------------------------------------------------------------------------


class EmptyBatches(keras.utils.PyDataset):
    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


def dead():
    model = two_layers()
    model.layers[0].bias.assign(np.full(5, -1e3))
    return model


BAD = {
    "no_data": (two_layers, "taylor", {}, r"'gradient_square' for hidden/kernel.*data=\.\.\."),
    "no_data_for_activations": (two_layers, "apoz", {}, r"'activation_zeros' for hidden/kernel"),
    "no_loss": (two_layers, "gradient", {"data": (X, Y), "compile": False}, r"not compiled"),
    "other_features": (two_layers, "gradient", {"data": (X[:, :3], Y)}, r"data that fits"),
    "other_features_for_activations": (two_layers, "apoz", {"data": X[:, :3]}, r"data that fits"),
    "empty": (two_layers, "gradient", {"data": EmptyBatches()}, r"at least one batch"),
    "no_data_at_all": (two_layers, "gradient", {"data": "mnist"}, r"`data` to be .*'mnist'"),
    "nan": (two_layers, "gradient", {"data": (X * np.nan, Y)}, r"finite gradients for hidden"),
    "dead": (dead, "gradient", {"data": (X, Y)}, r"gradients for hidden/kernel.*not all zero"),
    "no_norm": (two_layers, "batch_norm_scale", {}, r"BatchNormalization.*'hidden'"),
    "gates": (
        lambda: keras.Sequential([keras.Input((3, 4)), keras.layers.LSTM(2)]),
        "apoz",
        {"data": RANDOM.normal(size=(4, 3, 4))},
        r"output channels are its layer's.*lstm_cell",
    ),
    "batches": (two_layers, "gradient", {"data": (X, Y), "batches": 0}, r"`batches`"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_leaves_the_model_as_it_was(case):
    make, criterion, arguments, message = BAD[case]
    arguments = dict(arguments)
    loss = None if arguments.pop("compile", True) is False else "mse"
    model = wrapped(make(), criterion, loss=loss)
    before = [np.array(ops.convert_to_numpy(value)) for value in model.variables]
    with pytest.raises(ValueError, match=rf"(?s)Expected .*({message})"):
        tfprune.UpdatePruningStep(model, **arguments)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, ops.convert_to_numpy(b))


def test_unknown_evidence_names_what_there_is():
    with pytest.raises(ValueError, match=r"'gradient' for the weight.*Give data="):
        tfprune.compute_mask(X, 0.5, criterion="gradient")
    with pytest.raises(ValueError, match=r"shape \(12, 4\).*shape \(12, 2\)"):
        tfprune.compute_mask(X, 0.5, criterion="gradient", evidence={"gradient": Y})


# -- Initial weights -------------------------------------------------------------------------------


def trained_from(tmp_path, criterion="movement"):
    """A wrapped model that has moved away from the weights it was wrapped with."""
    model = two_layers()
    initial = [ops.convert_to_numpy(layer.kernel) for layer in model.layers]
    schedule = tfprune.ConstantSparsity(0.5, 6, frequency=1)
    pruned = tfprune.prune_low_magnitude(model, schedule, criterion=criterion)
    pruned.compile(keras.optimizers.Adam(0.05), "mse")
    return pruned, initial


def test_movement_is_from_the_weights_that_were_wrapped(tmp_path):
    pruned, initial = trained_from(tmp_path)
    seen = {}

    class Before(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                seen["kernels"] = [ops.convert_to_numpy(w.variable) for w in weights_of(self.model)]

    before = Before()
    pruned.fit(X, Y, batch_size=2, verbose=0, callbacks=[before, tfprune.UpdatePruningStep()])
    for weight, start, kernel in zip(weights_of(pruned), initial, seen["kernels"], strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight.initial), start)
        scores = np.abs(kernel - start).ravel()
        lowest = np.sort(np.argsort(scores, kind="stable")[: scores.size // 2])
        pruned_now = np.flatnonzero(~ops.convert_to_numpy(weight.mask).ravel())
        assert pruned_now.tolist() == lowest.tolist()


@pytest.mark.parametrize("scope", ["local", "global", "lamp"])
def test_movement_may_begin_at_a_sparsity_of_zero(scope):
    schedule = tfprune.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=4, frequency=2)
    pruned = tfprune.prune_low_magnitude(two_layers(), schedule, criterion="movement", scope=scope)
    pruned.compile(keras.optimizers.Adam(0.05), "mse")
    callback = tfprune.UpdatePruningStep()
    pruned.fit(X, Y, batch_size=2, verbose=0, callbacks=[callback])
    assert callback.sparsity == 0.5


@pytest.mark.parametrize("format", ["model.keras", "model.weights.h5"])
def test_initial_weights_are_saved(tmp_path, format):
    pruned, initial = trained_from(tmp_path)
    pruned.fit(X, Y, batch_size=2, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    if format == "model.keras":
        pruned.save(tmp_path / format)
        loaded = keras.saving.load_model(tmp_path / format)
    else:
        pruned.save_weights(tmp_path / format)
        loaded, _ = trained_from(tmp_path)
        for variable in loaded.variables:
            variable.assign(np.ones(variable.shape, dtype=str(variable.dtype)))
        loaded.load_weights(tmp_path / format)
    for weight, start in zip(weights_of(loaded), initial, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight.initial), start)


def test_initial_weights_leave_no_trace(tmp_path):
    pruned, _ = trained_from(tmp_path)
    magnitude = tfprune.prune_low_magnitude(two_layers())
    assert len(pruned.weights) == len(magnitude.weights) + 2
    assert [tuple(v.shape) for v in plain_weights(pruned)] == [
        tuple(v.shape) for v in two_layers().weights
    ]


def test_weights_loaded_before_pruning_are_the_initial_ones(tmp_path):
    pruned, _ = trained_from(tmp_path)
    other = two_layers()
    other.set_weights([value + 1 for value in other.get_weights()])
    tfprune.load_plain_weights(pruned, other)
    for weight, layer in zip(weights_of(pruned), other.layers, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(weight.initial), ops.convert_to_numpy(layer.kernel)
        )

"""Code that was written for tfmot runs with its imports changed.

The docstring of each test describes the habit of tfmot's users that it covers.
"""

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune._wrapping.wrapper import PruneLowMagnitude, mask_owners

HALF = tfprune.ConstantSparsity(0.5, begin_step=0, frequency=1)
X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")


def fitted(model, *callbacks, epochs=1):
    model.compile("sgd", "mse")
    callbacks = callbacks or (tfprune.UpdatePruningStep(),)
    return model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(callbacks))


def dense(**arguments):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="a"), layers.Dense(2)])
    return tfprune.prune_low_magnitude(model, HALF, **arguments)


def status(model):
    return {row.layer: row.status for row in tfprune.sparsity_report(model).rows}


# 1
@pytest.mark.parametrize(
    "first",
    [
        lambda: tfprune.prune_low_magnitude(layers.Dense(4), HALF, input_shape=(6,)),
        lambda: tfprune.prune_low_magnitude(layers.Dense(4, input_shape=(6,)), HALF),
        lambda: tfprune.prune_low_magnitude(layers.Dense(4, input_dim=6), HALF),
    ],
    ids=["argument", "layer", "input_dim"],
)
@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_a_wrapped_first_layer_builds_the_model(first):
    model = keras.Sequential([first(), layers.Dense(2)])
    assert model.built and model.input_shape == (None, 6)
    fitted(model)
    assert mask_owners(model)[0].pruned_weights[0].zeros == 12


def test_an_input_shape_is_for_one_layer():
    with pytest.raises(ValueError, match="the shape of one layer's inputs"):
        tfprune.prune_low_magnitude([layers.Dense(2)], HALF, input_shape=(6,))
    with pytest.raises(ValueError, match="the shape of one layer's inputs"):
        tfprune.prune_low_magnitude(layers.Dense(2), HALF, input_shape="6")


# 2
def test_summaries_take_tensorboards_arguments(tmp_path):
    pytest.importorskip("tensorflow")
    model = dense()
    summaries = tfprune.PruningSummaries(
        log_dir=tmp_path, profile_batch=0, histogram_freq=1, update_freq="batch"
    )
    fitted(model, tfprune.UpdatePruningStep(), summaries, epochs=2)
    found = events(tmp_path)
    assert any("histogram" in tag or "kernel" in tag for tag in found)
    assert [step for step, _ in found["sparsity"]] == [1, 2, 3, 4]
    assert any(tag.endswith("epoch_loss") for tag in found)


def test_sparsity_and_loss_share_an_axis(tmp_path):
    pytest.importorskip("tensorflow")
    summaries = tfprune.PruningSummaries(tmp_path, profile_batch=0)
    fitted(dense(), tfprune.UpdatePruningStep(), summaries, epochs=3)
    found = events(tmp_path)
    losses = next(values for tag, values in found.items() if tag.endswith("epoch_loss"))
    assert [step for step, _ in found["sparsity"]] == [step for step, _ in losses] == [0, 1, 2]


def events(folder):
    """`{tag: [(step, value)]}` of all event files in a folder."""
    from tensorflow.compat.v1 import train
    from tensorflow.core.util import event_pb2

    del train
    import tensorflow as tf

    found: dict = {}
    for path in sorted(folder.rglob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = event_pb2.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


@pytest.mark.parametrize(
    ("log_dir", "error"), [(None, TypeError), (3, TypeError), ("", ValueError)]
)
def test_a_wrong_log_dir(log_dir, error):
    with pytest.raises(error, match="`log_dir` to be a folder"):
        tfprune.PruningSummaries(log_dir=log_dir)


# 3
def convolutions():
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.SeparableConv2D(8, 3, name="separable"),
            layers.Conv2D(4, 1, name="pointwise"),
        ]
    )


@pytest.mark.parametrize("arguments", [{}, {"block_size": (2, 1)}, {"sparsity_m_by_n": (2, 4)}])
def test_depthwise_kernels_are_not_pruned_by_default(arguments):
    pruned = tfprune.prune_low_magnitude(convolutions(), HALF, **arguments)
    assert [w.name for owner in mask_owners(pruned) for w in owner.pruned_weights] == [
        "separable/pointwise_kernel",
        "pointwise/kernel",
    ]
    assert status(pruned)["depthwise"] == "depthwise: exempt by default"


def test_a_rule_brings_depthwise_kernels_in():
    rules = [tfprune.Rule(layers.DepthwiseConv2D), tfprune.Rule("separable")]
    pruned = tfprune.prune_low_magnitude(convolutions(), HALF, rules=rules)
    names = [w.name for owner in mask_owners(pruned) for w in owner.pruned_weights]
    assert names[:2] == ["depthwise/kernel", "separable/depthwise_kernel"]


def test_a_depthwise_layer_that_is_asked_for_is_pruned():
    wrapper = tfprune.prune_low_magnitude(layers.DepthwiseConv2D(3), HALF)
    wrapper(np.ones((1, 5, 5, 2), "float32"))
    assert [weight.path for weight in wrapper.pruned_weights] == ["kernel"]


# 4
def test_weights_of_a_wrapped_layer_are_the_layers_own():
    model = dense()
    fitted(model)
    wrapper = model.layers[0]
    kernel, bias = wrapper.get_weights()
    np.testing.assert_array_equal(kernel, wrapper.layer.kernel)
    assert bias.shape == (4,)
    (mask,) = wrapper.masks.values()
    wrapper.set_weights([np.ones((6, 4)), np.ones(4)])
    np.testing.assert_array_equal(wrapper.get_weights()[0], np.asarray(mask, "float32"))


def test_the_longer_list_with_masks_is_accepted():
    model = dense()
    wrapper = model.layers[0]
    arrays = [np.asarray(variable) for variable in wrapper.weights]
    assert any(array.dtype == bool for array in arrays)
    mask = np.arange(24).reshape(6, 4) % 2 == 0
    wrapper.set_weights([mask if array.dtype == bool else np.ones_like(array) for array in arrays])
    np.testing.assert_array_equal(wrapper.get_weights()[0], mask.astype("float32"))
    assert wrapper.pruned_weights[0].zeros == 12


def test_the_models_weights_hold_the_masks():
    """EarlyStopping keeps and restores them that way."""
    model = dense()
    assert sum(array.dtype == bool for array in model.get_weights()) == 2


# 5
def test_attributes_of_tfmots_wrapper():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    pruned = tfprune.prune_low_magnitude(model, HALF, block_size=(2, 2))
    (wrapper,) = pruned.layers
    ((weight, mask, threshold),) = wrapper.pruning_vars
    assert weight is wrapper.layer.kernel and tuple(mask.shape) == (6, 4)
    assert float(threshold) == 0
    assert wrapper.pruning_schedule == HALF and wrapper.block_size == (2, 2)
    assert [v is weight for v in wrapper.layer.get_prunable_weights()] == [True]


# 6
def test_n_of_m_leaves_out_layers_that_do_not_fit():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, name="one_channel"),
            layers.Conv2D(4, 1, name="fits"),
        ]
    )
    with pytest.warns(UserWarning, match="one_channel, which are not pruned") as told:
        pruned = tfprune.prune_low_magnitude(model, HALF, sparsity_m_by_n=(2, 4))
    assert len([w for w in told if "N:M" in str(w.message)]) == 1
    assert status(pruned) == {"one_channel": "does not fit 2:4", "fits": "pruned"}
    with pytest.raises(ValueError, match="one_channel"):
        rules = [tfprune.Rule("one_channel", schedule=HALF)]
        tfprune.prune_low_magnitude(model, HALF, sparsity_m_by_n=(2, 4), rules=rules)
    with pytest.raises(ValueError, match="one_channel"):
        tfprune.prune_low_magnitude(model.layers[0], HALF, sparsity_m_by_n=(2, 4))


# 7
class Scaled(layers.Dense):
    """A Dense layer that says itself, without tfprune's base class, what can be pruned in it."""

    def build(self, input_shape):
        super().build(input_shape)
        self.scale = self.add_weight(shape=(input_shape[-1], 4), name="scale")

    def get_prunable_weights(self):
        return [self.scale]


def test_get_prunable_weights_needs_no_base_class():
    model = keras.Sequential([keras.Input((6,)), Scaled(4, name="scaled"), layers.Dense(2)])
    pruned = tfprune.prune_low_magnitude(model, HALF)
    assert [weight.path for weight in mask_owners(pruned)[0].pruned_weights] == ["scale"]
    fitted(pruned)
    assert mask_owners(pruned)[0].pruned_weights[0].zeros == 12


# 8
class Cell(layers.Layer):
    """A cell of the user's own, without a config."""

    def __init__(self):
        super().__init__()
        self.state_size = 4
        self.inner = layers.Dense(4)

    def build(self, input_shape):
        self.inner.build((input_shape[0], input_shape[-1] + 4))
        self.built = True

    def call(self, inputs, states):
        output = self.inner(keras.ops.concatenate([inputs, states[0]], axis=-1))
        return output, [output]


def test_layers_that_cannot_be_copied_are_pruned_as_they_are():
    recurrent = layers.RNN(Cell())
    model = keras.Sequential([keras.Input((3, 6)), recurrent, layers.Dense(2)])
    with pytest.raises(ValueError, match="copy=False"):
        tfprune.prune_low_magnitude(model, HALF)
    pruned = tfprune.prune_low_magnitude(model, HALF, copy=False)
    assert len(tfprune.sparsity_report(pruned).rows) >= 2


# 9
def test_tfmots_own_loop():
    """`unused_arg = -1` and calls of the callback's methods, one after the other."""
    schedule = tfprune.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=4, frequency=1)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(2)])
    model = tfprune.prune_low_magnitude(model, schedule)
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    model.optimizer = optimizer
    step = tfprune.UpdatePruningStep()
    step.set_model(model)
    step.on_train_begin()
    for _ in range(2):
        for _ in range(2):
            step.on_train_batch_begin(batch=-1)
            gradients = [keras.ops.ones_like(v) for v in model.trainable_variables]
            optimizer.apply(gradients, model.trainable_variables)
        step.on_epoch_end(batch=-1)
    owners = mask_owners(model)
    assert {owner.pruning_step for owner in owners} == {4}
    for owner in owners:
        (weight,) = owner.pruned_weights
        assert weight.zeros == weight.size // 2
        assert np.count_nonzero(np.asarray(weight.variable) == 0) == weight.zeros


# 10
def test_an_unbuilt_model_is_wrapped_and_builds_on_first_use():
    model = keras.Sequential([layers.Dense(4), layers.Dense(2)])
    pruned = tfprune.prune_low_magnitude(model, HALF)
    assert not pruned.built and not model.built
    pruned(X)
    assert pruned.built and not model.built
    fitted(pruned)
    assert [owner.pruned_weights[0].zeros for owner in mask_owners(pruned)] == [12, 4]


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.b = layers.Dense(4), layers.Dense(2)

    def call(self, inputs):
        return self.b(self.a(inputs))

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


def test_an_unbuilt_subclassed_model():
    pruned = tfprune.prune_low_magnitude(Own(), HALF)
    pruned(X)
    fitted(pruned)
    assert [weight.zeros for weight in mask_owners(pruned)[0].pruned_weights] == [12, 4]


@pytest.mark.parametrize(
    "make", [lambda: keras.Sequential([layers.Dense(4), layers.Dense(2)]), Own]
)
def test_fit_is_a_first_use(make):
    pruned = tfprune.prune_low_magnitude(make(), HALF)
    fitted(pruned)
    weights = [weight for owner in mask_owners(pruned) for weight in owner.pruned_weights]
    assert [weight.zeros for weight in weights] == [12, 4]
    assert {owner.pruning_step for owner in mask_owners(pruned)} == {2}


def three_layers(inputs=()):
    return [
        *inputs,
        layers.Dense(4, name="a"),
        layers.Dense(4, name="b"),
        layers.Dense(2, name="c"),
    ]


class AllButA(tfprune.PruningPolicy):
    """A policy that looks at the weights."""

    def allow_pruning(self, layer):
        return layer.built and layer.name != "a"

    def ensure_model_supports_pruning(self, model):
        if not model.built:
            raise ValueError("not built")


CHOICES = {
    "filter": {"pattern": "filter"},
    "filter of one layer": {"rules": [tfprune.Rule("a", pattern="filter")]},
    "policy": {"pruning_policy": AllButA()},
    "2:4": {"sparsity_m_by_n": (2, 4)},
}


@pytest.mark.parametrize("given", CHOICES.values(), ids=list(CHOICES))
@pytest.mark.parametrize("copy", [True, False])
def test_an_unbuilt_model_is_planned_when_it_is_built(given, copy, tmp_path):
    """Training gives the masks and the reasons that the built model has."""
    found = []
    for inputs in ((), (keras.Input((6,)),)):
        keras.utils.set_random_seed(0)
        pruned = tfprune.prune_low_magnitude(
            keras.Sequential(three_layers(inputs)), HALF, copy=copy, **given
        )
        fitted(pruned)
        shapes = [
            weight.mask.shape for owner in mask_owners(pruned) for weight in owner.pruned_weights
        ]
        found.append((status(pruned), tfprune.sparsity_report(pruned).sparsity, shapes))
        pruned.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        outputs = [one.predict(X, verbose=0) for one in (loaded, pruned)]
        np.testing.assert_allclose(*outputs, rtol=1e-6)
        assert type(tfprune.strip_pruning(pruned)) is keras.Sequential
    assert found[0] == found[1]


@pytest.mark.parametrize("given", [CHOICES["filter"], CHOICES["policy"]])
def test_an_unbuilt_subclassed_model_is_planned_when_it_is_built(given):
    pruned = tfprune.prune_low_magnitude(Own(), HALF, **given)
    with pytest.raises(ValueError, match="to be built before it is saved"):
        pruned.get_config()
    pruned(X)
    built = Own()
    built(X)
    built = tfprune.prune_low_magnitude(built, HALF, **given)
    for model in (pruned, built):
        fitted(model)
    assert list(status(pruned).values()) == list(status(built).values())
    zeros = [[w.zeros for w in mask_owners(model)[0].pruned_weights] for model in (pruned, built)]
    assert zeros[0] == zeros[1]


def test_depthwise_layers_of_an_unbuilt_model_stay_dense_under_n_of_m():
    model = keras.Sequential([layers.DepthwiseConv2D(3), layers.Conv2D(4, 1, name="fits")])
    pruned = tfprune.prune_low_magnitude(model, HALF, sparsity_m_by_n=(2, 4))
    pruned.build((None, 6, 6, 8))
    assert list(status(pruned).values()) == ["depthwise: exempt by default", "pruned"]
    # As Keras allows of any Sequential model.
    pruned.build((None, 6, 6, 8))


def test_prediction_is_a_first_use():
    model = keras.Sequential(three_layers())
    pruned = tfprune.prune_low_magnitude(model, HALF, pattern="filter")
    assert pruned.predict(X, verbose=0).shape == (8, 2)
    kept = "its filters stay: they are the model's output"
    assert status(pruned) == {"a": "pruned", "b": "pruned", "c": kept}


def test_a_rule_for_a_layer_that_comes_with_the_weights():
    def models():
        for built in (False, True):
            inputs = keras.Input((5, 8))
            attention = Attending(name="attending")
            model = keras.Sequential([inputs, attention] if built else [attention])
            yield tfprune.prune_low_magnitude(
                model, HALF, rules=[tfprune.Rule("query", prune=False)]
            )

    later, at_once = models()
    later(np.ones((1, 5, 8), "float32"))
    paths = [[w.path for o in mask_owners(m) for w in o.pruned_weights] for m in (later, at_once)]
    assert paths[0] == paths[1] and paths[0] and not any("query" in path for path in paths[0])


class Attending(layers.Layer):
    """Makes its layers when it is built."""

    def build(self, input_shape):
        self.query, self.key = layers.Dense(8, name="query"), layers.Dense(8, name="key")
        self.query.build(input_shape)
        self.key.build(input_shape)

    def call(self, inputs):
        return self.query(inputs) * self.key(inputs)


def test_errors_at_build_leave_the_model_to_be_built_again():
    rules = [tfprune.Rule("missing", prune=False)]
    model = keras.Sequential([Attending(name="attending")])
    pruned = tfprune.prune_low_magnitude(model, HALF, rules=rules)
    for _ in range(2):
        with pytest.raises(ValueError, match="each rule to match a layer"):
            pruned.build((None, 5, 8))
    assert not mask_owners(pruned)
    with pytest.raises(ValueError, match="each rule to match a layer"):
        tfprune.prune_low_magnitude(keras.Sequential(three_layers()), HALF, rules=rules)
    model = keras.Sequential(three_layers()[:1])
    pruned = tfprune.prune_low_magnitude(model, HALF, pattern="filter")
    with pytest.raises(ValueError, match="filters that can be removed"):
        pruned(X)
    with pytest.raises(ValueError, match="to be built before it is saved"):
        pruned.get_config()
    with pytest.raises(ValueError, match="which has no weights yet"):
        tfprune.UpdatePruningStep(pruned)


# 11
def test_callbacks_on_a_stripped_model_warn_and_do_nothing(tmp_path):
    plain = tfprune.strip_pruning(dense())
    plain.compile("sgd", "mse")
    callbacks = [tfprune.UpdatePruningStep(), tfprune.PruningSummaries(tmp_path)]
    with pytest.warns(UserWarning, match="without any, so that nothing is done"):
        history = plain.fit(X, Y, verbose=0, callbacks=callbacks)
    assert "sparsity" not in history.history


# 12
def test_a_wrapped_layer_in_a_plain_model_keeps_its_schedule():
    own = tfprune.ConstantSparsity(0.25, begin_step=0, frequency=1)
    first = tfprune.prune_low_magnitude(layers.Dense(4, name="first"), own)
    model = keras.Sequential([keras.Input((6,)), first, layers.Dense(2, name="second")])
    pruned = tfprune.prune_low_magnitude(model, HALF)
    fitted(pruned)
    one, two = mask_owners(pruned)
    assert one.pruning_schedule == own and two.pruning_schedule == HALF
    assert one.pruned_weights[0].zeros == 6 and two.pruned_weights[0].zeros == 4
    assert isinstance(tfprune.strip_pruning(pruned).layers[0], layers.Dense)


def test_wrapping_a_wrapper_is_still_refused():
    wrapper = tfprune.prune_low_magnitude(layers.Dense(4), HALF)
    with pytest.raises(ValueError, match="wrapped already"):
        tfprune.prune_low_magnitude(wrapper, HALF)
    with pytest.raises(ValueError, match="wrapped already"):
        tfprune.prune_low_magnitude(dense(), HALF)


# 13
class Own25(tfprune.PruningSchedule):
    """A schedule of the user's own, not registered with Keras."""

    target_sparsity = 0.25

    def __call__(self, step):
        return keras.ops.equal(step, 0), keras.ops.convert_to_tensor(0.25)

    def get_config(self):
        return {}


@pytest.mark.filterwarnings("ignore:Expected a model with wrapped layers to be saved as .keras")
def test_old_files_with_a_schedule_of_ones_own(tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    pruned = tfprune.prune_low_magnitude(model, Own25())
    pruned.save(tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5", custom_objects={"Own25": Own25})
    assert isinstance(loaded.layers[0].pruning_schedule, Own25)


# 14
def test_the_policy_takes_sums_written_as_code():
    def body(x, add):
        r = layers.Conv2D(8, 1)(x)
        return add(x, r)

    def model(add):
        inputs = keras.Input((16, 16, 3))
        x = layers.ZeroPadding2D(1)(inputs)
        x = layers.Conv2D(8, 3, strides=2)(x)
        x = body(x, add)
        return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))

    for add in (lambda x, r: x + r, lambda x, r: layers.Add()([x, r])):
        policy = tfprune.PruneForLatencyOnXNNPack()
        pruned = tfprune.prune_low_magnitude(model(add), HALF, pruning_policy=policy)
        assert len([n for n in pruned.layers if isinstance(n, PruneLowMagnitude)]) == 1

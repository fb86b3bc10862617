"""Models of custom classes, and models that are pruned without a copy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfprune
from tfprune import Rule

register = keras.saving.register_keras_serializable(package="own_class")
HALF = tfprune.ConstantSparsity(0.5, begin_step=0)
X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")


def rising(target=0.75, end=4):
    return tfprune.PolynomialDecay(0.0, target, begin_step=0, end_step=end, frequency=1)


@register
class Own(keras.Model):
    """A subclassed model with a weight, a method and attributes that pruning could want."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, activation="relu", name="first")
        self.inner = layers.Dense(3, name="last")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        return self.scale * self.inner(self.first(inputs))

    def describe(self):
        return f"{self.units} units"

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class OwnFunctional(keras.Model):
    """A Functional model whose constructor makes the graph, as those of KerasHub do."""

    def __init__(self, units=6, **kwargs):
        inputs = keras.Input((8,), name="x")
        hidden = layers.Dense(units, activation="relu", name="first")(inputs)
        super().__init__(inputs, layers.Dense(3, name="last")(hidden), **kwargs)
        self.units = units

    def describe(self):
        return f"{self.units} units"

    def get_config(self):
        return {"units": self.units, "name": self.name}


class Bare(keras.Model):
    """The usual way: no config, and an argument that none could hold."""

    def __init__(self, activation):
        super().__init__()
        self.first = layers.Dense(6)
        self.last = layers.Dense(3)
        self.activation = activation
        self.train_steps = 0

    def call(self, inputs):
        return self.last(self.activation(self.first(inputs)))

    def train_step(self, *args):
        self.train_steps += 1
        return super().train_step(*args)


def own():
    model = Own()
    model(X)
    return model


def bare():
    model = Bare(lambda x: ops.maximum(x, 0))
    model(X)
    return model


def train(model, epochs=1):
    if not getattr(model, "compiled", False):
        model.compile("adam", "mse")
    model.fit(X, Y, 4, epochs, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    return model


def zeros(model):
    return {weight.name: weight.zeros for weight in model.pruned_weights}


def exact(model):
    return all(
        not np.asarray(weight.variable.numpy())[~weight.mask.numpy()].any()
        for weight in model.pruned_weights
    )


def same(one, other):
    np.testing.assert_array_equal(one.predict(X, verbose=0), other.predict(X, verbose=0))


each = pytest.mark.parametrize("make", [own, OwnFunctional], ids=["subclassed", "functional"])
AIM = {"first/kernel": 36, "last/kernel": 14}


@each
def test_the_class_is_kept(make):
    plain = make()
    before = [weight.numpy() for weight in plain.weights]
    pruned = train(tfprune.prune_low_magnitude(plain, rising()))
    assert isinstance(pruned, type(plain)) and type(pruned).__name__ == type(plain).__name__
    assert pruned.describe() == "6 units"
    assert zeros(pruned) == AIM and exact(pruned) and pruned.pruning_step == 4
    for old, new in zip(before, plain.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    stripped = tfprune.strip_pruning(pruned)
    assert type(stripped) is type(plain)
    assert len(stripped.weights) == len(plain.weights)
    same(stripped, pruned)


@each
def test_saved_and_trained_on(make, tmp_path):
    pruned = tfprune.prune_low_magnitude(make(), rising(end=8))
    with pytest.warns(UserWarning, match="Train for 4 more optimizer steps"):
        train(pruned)
    pruned.save(tmp_path / "half.keras")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    assert isinstance(loaded, type(make()))
    assert zeros(loaded) == zeros(pruned) and loaded.pruning_step == 4
    same(loaded, pruned)
    assert zeros(train(loaded)) == AIM and exact(loaded)
    pruned.save_weights(tmp_path / "half.weights.h5")
    other = tfprune.prune_low_magnitude(make(), rising(end=8))
    other.load_weights(tmp_path / "half.weights.h5")
    same(other, pruned)
    assert other.pruning_step == 4
    tfprune.strip_pruning(loaded).save(tmp_path / "plain.keras")
    same(keras.saving.load_model(tmp_path / "plain.keras"), loaded)


@each
def test_weights_of_the_plain_class(make, tmp_path):
    plain, pruned = make(), train(tfprune.prune_low_magnitude(make(), HALF))
    plain.save_weights(tmp_path / "plain.weights.h5")
    mask = pruned.pruned_weights[0].mask.numpy()
    tfprune.load_plain_weights(pruned, tmp_path / "plain.weights.h5")
    np.testing.assert_array_equal(
        pruned.first.kernel.numpy() if make is own else pruned.layers[1].kernel.numpy(),
        np.where(mask, plain.trainable_weights[1 if make is own else 0].numpy(), 0),
    )
    with pytest.raises(ValueError, match="Weights of a plain model are read by"):
        pruned.load_weights(tmp_path / "plain.weights.h5")


def test_a_file_that_does_not_fit_changes_nothing(tmp_path):
    other = Own(units=5)
    other(X)
    other.save_weights(tmp_path / "other.weights.h5")
    pruned = train(tfprune.prune_low_magnitude(own(), HALF))
    before = [weight.numpy() for weight in pruned.weights]
    with pytest.raises(ValueError):
        tfprune.load_plain_weights(pruned, tmp_path / "other.weights.h5")
    for old, new in zip(before, pruned.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


@each
def test_rules_and_reports_read_as_in_plain_models(make):
    rules = [Rule("last", schedule=tfprune.ConstantSparsity(0.25, 0))]
    pruned = tfprune.prune_low_magnitude(make(), HALF, rules=rules)
    tfprune.UpdatePruningStep(pruned)
    assert zeros(pruned) == {"first/kernel": 24, "last/kernel": 4}
    rows = {row.layer: (row.zeros, row.status) for row in tfprune.sparsity_report(pruned).rows}
    assert rows == {"first": (24, "pruned"), "last": (4, "pruned")}


def test_filters_are_coupled_in_a_functional_model_of_its_own_class():
    pruned = tfprune.prune_low_magnitude(OwnFunctional(), HALF, pattern="filter")
    tfprune.UpdatePruningStep(pruned)
    # The bias of a pruned unit goes with it.
    assert zeros(pruned) == {"first/kernel": 24, "first/bias": 3}
    small = tfprune.shrink(tfprune.strip_pruning(pruned))
    outputs = [ops.convert_to_numpy(one(X)) for one in (small, pruned)]
    np.testing.assert_allclose(*outputs, atol=1e-6)


def test_a_model_of_its_own_class_inside_another(tmp_path):
    inputs = keras.Input((8,))
    plain = keras.Model(inputs, layers.Dense(2, name="head")(OwnFunctional(name="body")(inputs)))
    pruned = tfprune.prune_low_magnitude(plain, HALF)
    tfprune.UpdatePruningStep(pruned)
    body = pruned.get_layer("body")
    assert isinstance(body, OwnFunctional)
    assert zeros(body) == {"body/first/kernel": 24, "body/last/kernel": 9}
    statuses = {row.layer: row.status for row in tfprune.sparsity_report(pruned).rows}
    assert statuses == dict.fromkeys(["body/first", "body/last", "head"], "pruned")
    pruned.save(tmp_path / "nested.keras")
    loaded = keras.saving.load_model(tmp_path / "nested.keras")
    same(loaded, pruned)
    stripped = tfprune.strip_pruning(loaded)
    assert type(stripped.get_layer("body")) is OwnFunctional
    same(stripped, pruned)


@register
class TwoTowers(keras.Model):
    """A retrieval model: its loss and its metrics look at both towers, and there are no targets."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.towers = {
            name: keras.Sequential(
                [layers.Embedding(12, 8), layers.Dense(6, name="dense")], name=name
            )
            for name in ("user", "item")
        }
        self.found = keras.metrics.Mean(name="found")

    def call(self, inputs):
        return {name: tower(inputs[name]) for name, tower in self.towers.items()}

    def scores(self, y_pred):
        scores = ops.matmul(y_pred["user"], ops.transpose(y_pred["item"]))
        return scores, ops.arange(ops.shape(scores)[0])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        scores, own = self.scores(y_pred)
        losses = keras.losses.sparse_categorical_crossentropy(own, scores, from_logits=True)
        return ops.mean(losses)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        scores, own = self.scores(y_pred)
        self.found.update_state(ops.equal(ops.cast(ops.argmax(scores, axis=1), own.dtype), own))
        return self.get_metrics_result()

    def get_config(self):
        return {"name": self.name}


@pytest.mark.parametrize("copy", [True, False])
def test_two_towers_keep_their_loss_and_metrics(copy):
    if copy and keras.backend.backend() == "jax":
        pytest.skip("Keras keeps no dtypes, and JAX builds no Embedding from shapes alone")
    x = {"user": np.arange(12), "item": np.arange(12)[::-1].copy()}
    plain = TwoTowers()
    plain(x)
    plain.compile(keras.optimizers.Adam(0.1))
    outputs = {name: ops.convert_to_numpy(value) for name, value in plain(x).items()}
    scores = outputs["user"] @ outputs["item"].T
    best = np.mean(scores.argmax(axis=1) == np.arange(12))
    loss = np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diag(scores))
    pruned = tfprune.prune_low_magnitude(plain, HALF, copy=copy)
    pruned.compile(keras.optimizers.Adam(0.1))
    before = pruned.evaluate(x, batch_size=12, verbose=0, return_dict=True)
    assert before["found"] == pytest.approx(best)
    assert before["loss"] == pytest.approx(loss, rel=1e-5)
    history = pruned.fit(
        x, batch_size=12, epochs=20, verbose=0, callbacks=[tfprune.UpdatePruningStep()]
    ).history
    assert history["loss"][-1] < history["loss"][0] and history["found"][-1] > best
    assert isinstance(pruned, TwoTowers) and exact(pruned)
    kernels = [weight for name, weight in zeros(pruned).items() if "dense" in name]
    assert kernels == [24, 24]
    after = pruned.evaluate(x, batch_size=12, verbose=0)
    stripped = tfprune.strip_pruning(pruned, copy=copy)
    assert type(stripped) is TwoTowers
    stripped.compile()
    assert stripped.evaluate(x, batch_size=12, verbose=0) == after


# -- Without a copy --------------------------------------------------------------------------------


def test_without_a_copy(tmp_path):
    model = bare()
    assert tfprune.prune_low_magnitude(model, rising(), copy=False) is model
    assert isinstance(model, Bare)
    train(model)
    assert sorted(zeros(model).values()) == [14, 36] and exact(model)
    assert model.train_steps > 0 and model.pruning_step == 4
    model.save_weights(tmp_path / "model.weights.h5")
    again = tfprune.prune_low_magnitude(bare(), rising(), copy=False)
    again.load_weights(tmp_path / "model.weights.h5")
    same(again, model)
    assert again.pruning_step == 4
    assert list(zeros(again).values()) == list(zeros(model).values())


def test_stripped_without_a_copy():
    constraint = keras.constraints.NonNeg()
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3, kernel_constraint=constraint)])
    count, kind = len(model.weights), type(model)
    train(tfprune.prune_low_magnitude(model, HALF, copy=False))
    assert isinstance(model, kind) and len(model.weights) == count + 1
    expected = model.predict(X, verbose=0)
    assert tfprune.strip_pruning(model, copy=False) is model
    assert type(model) is kind and len(model.weights) == count
    assert model.layers[0].kernel.constraint is constraint
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)
    assert np.count_nonzero(model.layers[0].kernel.numpy()) <= 12
    model.quantize("int8")
    again = own()
    tfprune.strip_pruning(tfprune.prune_low_magnitude(again, HALF, copy=False), copy=False)
    train(tfprune.prune_low_magnitude(again, HALF, copy=False))
    assert exact(again)


def test_a_stripped_copy_is_plain_and_can_be_pruned_again():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(3)])
    model = keras.Model(model.inputs[0], model.outputs[0])
    pruned = tfprune.prune_low_magnitude(model, HALF, copy=False)
    tfprune.UpdatePruningStep(pruned)
    stripped = tfprune.strip_pruning(pruned)
    assert type(stripped) is keras.src.models.Functional
    np.testing.assert_array_equal(stripped(X), pruned(X))
    again = tfprune.prune_low_magnitude(stripped, HALF)
    tfprune.UpdatePruningStep(again)
    assert tfprune.sparsity_report(again).rows[0].zeros == 24


def test_a_compiled_model_that_was_trained_before():
    model = bare()
    model.compile("adam", "mse")
    model.fit(X, Y, 4, verbose=0)
    train(tfprune.prune_low_magnitude(model, rising(), copy=False))
    assert exact(model) and model.pruning_step == 4


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a format of TensorFlow")
def test_tensorflow_checkpoint(tmp_path):
    import tensorflow as tf

    model = train(tfprune.prune_low_magnitude(bare(), rising(), copy=False))
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    again = tfprune.prune_low_magnitude(bare(), rising(), copy=False)
    tf.train.Checkpoint(model=again).restore(path)
    same(again, model)
    assert again.pruning_step == 4
    assert list(zeros(again).values()) == list(zeros(model).values())


def test_backup_and_restore(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    def fit(model, *callbacks):
        model.compile("adam", "mse")
        calls = [*callbacks, tfprune.UpdatePruningStep()]
        model.fit(X, Y, 4, 4, shuffle=False, verbose=0, callbacks=calls)

    model = tfprune.prune_low_magnitude(bare(), rising(end=12), copy=False)
    with pytest.raises(KeyboardInterrupt):
        fit(model, backup(), Stop())
    again = tfprune.prune_low_magnitude(bare(), rising(end=12), copy=False)
    fit(again, backup())
    assert again.pruning_step == 16 and exact(again)
    assert list(zeros(again).values()) == [36, 14]


def test_a_layer_without_a_copy():
    cell = layers.RNN(layers.LSTMCell(4))
    wrapper = tfprune.prune_low_magnitude(cell, HALF, copy=False)
    assert wrapper.layer is cell


def test_masks_survive_early_stopping():
    class Worse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = epoch

    model = tfprune.prune_low_magnitude(own(), rising(end=8))
    model.compile("adam", "mse")
    stop = keras.callbacks.EarlyStopping("score", mode="min", patience=1, restore_best_weights=True)
    with pytest.warns(UserWarning, match="restored an earlier epoch"):
        model.fit(X, Y, 4, 2, verbose=0, callbacks=[tfprune.UpdatePruningStep(), Worse(), stop])
    assert exact(model) and sum(zeros(model).values()) < 50


# -- Bad input -------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_copied_names_the_way_out():
    model = bare()
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(
        ValueError,
        match=r"Expected 'bare.*' to be a layer that can be copied. Received: Bare, whose "
        r".*prune_low_magnitude\(..., copy=False\), and later .*strip_pruning\(..., copy=False\)",
    ):
        tfprune.prune_low_magnitude(model, HALF)
    assert type(model) is Bare
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    pruned = tfprune.prune_low_magnitude(model, HALF, copy=False)
    with pytest.raises(ValueError, match=r"strip_pruning\(..., copy=False\)"):
        tfprune.strip_pruning(pruned)


@register
class Forgetful(Own):
    """Its config does not hold what decides on the shapes of its weights."""

    def get_config(self):
        return {"name": self.name}


def test_a_copy_with_other_weights_is_noticed():
    model = Forgetful(units=5)
    model(X)
    with pytest.raises(ValueError, match=r"whose copy has other weights: .* not \(8, 5\).*False"):
        tfprune.prune_low_magnitude(model, HALF)


@pytest.mark.parametrize("copy", [True, False])
def test_wrapped_again(copy):
    model = tfprune.prune_low_magnitude(bare(), HALF, copy=False)
    count = len(model.weights)
    with pytest.raises(ValueError, match="wrapped already"):
        tfprune.prune_low_magnitude(model, HALF, copy=copy)
    assert len(model.weights) == count and len(model.pruned_weights) == 2


def test_masks_of_a_model_wrapped_in_another_way(tmp_path):
    model = train(tfprune.prune_low_magnitude(bare(), HALF, copy=False))
    model.save_weights(tmp_path / "all.weights.h5")
    plain = bare()
    rules = [Rule(plain.first.name, prune=False)]
    other = tfprune.prune_low_magnitude(plain, HALF, rules=rules, copy=False)
    before = [weight.numpy() for weight in other.weights]
    with pytest.raises(ValueError, match="Expected the mask of"):
        other.load_weights(tmp_path / "all.weights.h5")
    for old, new in zip(before, other.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


class Branches(keras.Model):
    """A model with a branch that never ran."""

    def __init__(self):
        super().__init__()
        self.used = layers.Dense(3, name="used")
        self.idle = layers.Dense(3, name="idle")

    def call(self, inputs, other=False):
        return self.idle(inputs) if other else self.used(inputs)


def test_a_layer_that_never_ran_is_left_out():
    model = Branches()
    model(X)
    train(tfprune.prune_low_magnitude(model, HALF, copy=False))
    assert zeros(model) == {"used/kernel": 12}
    with pytest.raises(ValueError, match="Expected a layer that ran"):
        other = Branches()
        other(X)
        tfprune.prune_low_magnitude(other, HALF, rules=[Rule("idle", pattern="block")], copy=False)


def test_a_shared_layer_is_pruned_by_one_model_alone():
    shared = layers.Dense(3, name="shared")
    models = []
    for _ in range(2):
        inputs = keras.Input((8,))
        models.append(keras.Model(inputs, shared(inputs)))
    tfprune.prune_low_magnitude(models[0], HALF, copy=False)
    count = len(models[1].weights)
    with pytest.raises(ValueError, match="one pruning wrapper around shared/kernel"):
        tfprune.prune_low_magnitude(models[1], HALF, copy=False)
    assert len(models[1].weights) == count
    # A copy has its own weight.
    assert len(tfprune.prune_low_magnitude(models[1], HALF).layers[1].pruned_weights) == 1


def test_a_quantized_model_is_refused():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3, name="dense")])
    model.quantize("int8")
    for copy in (True, False):
        with pytest.raises(ValueError, match="Prune the model before you quantize it"):
            tfprune.prune_low_magnitude(model, HALF, copy=copy)
    assert [row.status for row in tfprune.sparsity_report(model).rows] == ["quantized"]


def test_quantizing_a_pruned_model_is_refused():
    model = tfprune.prune_low_magnitude(own(), HALF)
    before = [weight.numpy() for weight in model.weights]
    for call in (model.quantize, model.first.quantize):
        with pytest.raises(ValueError, match=r"strip_pruning\(model\) first, then quantize\(\)"):
            call("int8")
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


@pytest.mark.parametrize("copy", [True, False])
def test_quantizing_a_loaded_model_changes_nothing(copy, tmp_path):
    plain = keras.Sequential(
        [keras.Input((8,)), layers.Dense(4, name="exempt"), layers.Dense(3, name="pruned")]
    )
    model = tfprune.prune_low_magnitude(plain, HALF, rules=[Rule("exempt", prune=False)], copy=copy)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    around = keras.Sequential([keras.Input((8,)), loaded])
    for outer in (model, loaded, around):
        with pytest.raises(ValueError, match=r"strip_pruning\(model\) first, then quantize\(\)"):
            outer.quantize("int8")
        assert outer.count_params() == model.count_params()
        assert loaded.get_layer("exempt").quantization_mode is None
    stripped = tfprune.strip_pruning(loaded)
    stripped.quantize("int8")
    assert stripped.get_layer("exempt").quantization_mode == "int8"


def test_strip_without_a_copy_of_a_model_with_wrappers():
    model = tfprune.prune_low_magnitude(
        keras.Sequential([keras.Input((8,)), layers.Dense(3)]), HALF
    )
    with pytest.raises(
        ValueError, match="Expected `copy=False` only for a model that was pruned in place"
    ):
        tfprune.strip_pruning(model, copy=False)

"""Models of a class of their own become sparse, and keep their class."""

import keras
import numpy as np
import pytest
from keras import layers
from sparse_support import inputs_of, run_elsewhere, with_zeros

import tfprune
from tfprune import _keras
from tfprune.sparse import conversion
from tfprune.sparse.layers.base import SparseLayer
from tfprune.sparse.timing import Race

HERE = "sparse_own_classes"


@keras.saving.register_keras_serializable(package=HERE)
class Gate(layers.Layer):
    """Holds a layer in a dictionary, and makes it in its `build`."""

    def build(self, input_shape):
        self.parts = {"gate": layers.Dense(input_shape[-1], activation="sigmoid")}
        self.parts["gate"].build(input_shape)
        self.built = True

    def call(self, inputs):
        return inputs * self.parts["gate"](inputs)


@keras.saving.register_keras_serializable(package=HERE)
class Coded(keras.Model):
    """Layers in attributes, lists, layers and a nested graph; one of them in two places."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.first = layers.Dense(width, activation="relu", name="first")
        self.stack = [self.first, layers.Dense(width, name="second")]
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.gate = Gate(name="gate")
        deep = [keras.Input((None, width)), layers.Dense(width, name="deep")]
        self.inner = keras.Sequential(deep, name="inner")
        inputs = keras.Input((None, width))
        self.graph = keras.Model(inputs, layers.Dense(width, name="low")(inputs), name="graph")
        self.head = layers.Dense(3, name="head")

    def call(self, inputs):
        x = self.stack[1](self.first(inputs)) + self.stack[0](inputs)
        x = self.graph(self.inner(self.gate(x + self.attention(x, x))))
        return {"scores": self.head(x), "features": x}

    def best(self, inputs):
        return np.argmax(keras.ops.convert_to_numpy(self(inputs)["scores"]), -1)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package=HERE)
class Connected(keras.Model):
    """A Functional model that only its own constructor makes; a layer is called twice."""

    def __init__(self, width, **kwargs):
        twice = layers.Dense(width, name="twice")
        inputs = keras.Input((5, width))
        x = layers.MultiHeadAttention(2, 4, name="attention")(twice(inputs), inputs)
        super().__init__(inputs, layers.Dense(3, name="head")(twice(x)), **kwargs)
        self.twice, self.width = twice, width

    def get_config(self):
        return {"width": self.width, "name": self.name}


@keras.saving.register_keras_serializable(package=HERE)
class Stacked(keras.Sequential):
    """A Sequential model that makes its own layers."""

    def __init__(self, width, **kwargs):
        dense = [layers.Dense(width, activation="relu", name=f"layer_{n}") for n in range(2)]
        super().__init__([keras.Input((5, width)), *dense], **kwargs)
        self.width = width

    def get_config(self):
        return {"width": self.width, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


MODELS = {cls.__name__: cls for cls in (Coded, Connected, Stacked)}
X = inputs_of(3, (5, 8))


@pytest.fixture(params=MODELS)
def model(request):
    made = MODELS[request.param](8, name="own")
    made(X)
    return with_zeros(made, 0.8)


def arrays(model, x=X):
    found = keras.tree.flatten(model(x, training=False))
    return [keras.ops.convert_to_numpy(tensor) for tensor in found]


def check_same(found, expected):
    for ours, theirs in zip(arrays(found), arrays(expected), strict=True):
        assert np.ptp(theirs) > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def kinds(model, kind):
    return sum(isinstance(layer, kind) for layer in _keras.flatten(model))


DENSE = (layers.Dense, layers.EinsumDense)


def test_all_its_layers_become_sparse_and_its_class_stays(model):
    number = kinds(model, DENSE)
    before = arrays(model)
    plan = tfprune.plan_sparse(model, prefer="size")
    found = plan.apply()
    assert len(plan.rows) == number and all(row.sparse for row in plan.rows)
    assert isinstance(found, type(model)) and type(found).__name__ == type(model).__name__
    assert kinds(found, DENSE) == 0 and kinds(found, SparseLayer) == number
    check_same(found, model)
    for ours, theirs in zip(arrays(model), before, strict=True):
        assert np.array_equal(ours, theirs) and kinds(model, DENSE) == number
    given = sum(int(np.prod(weight.shape)) for weight in found.weights if "values" in weight.path)
    assert given == sum(
        np.count_nonzero(keras.ops.convert_to_numpy(weight))
        for weight in model.weights
        if "kernel" in weight.path
    )


def test_predict_and_methods(model):
    found = tfprune.to_sparse(model, prefer="size")
    predicted = keras.tree.flatten(found.predict(X, verbose=0))
    for ours, theirs in zip(predicted, arrays(model), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    if isinstance(model, Coded):
        assert np.array_equal(found.best(X), model.best(X))


def test_it_is_saved_and_loaded(model, tmp_path):
    found = tfprune.to_sparse(model, prefer="size")
    found.save(tmp_path / "own.keras")
    loaded = keras.saving.load_model(tmp_path / "own.keras")
    assert isinstance(loaded, type(model)) and kinds(loaded, DENSE) == 0
    for ours, theirs in zip(arrays(loaded), arrays(found), strict=True):
        assert np.array_equal(ours, theirs)
    loaded.save_weights(tmp_path / "own.weights.h5")
    fresh = keras.models.clone_model(found) if isinstance(model, Coded) else loaded
    fresh.load_weights(tmp_path / "own.weights.h5")
    check_same(fresh, model)
    copied = tfprune.strip_pruning(loaded)
    check_same(copied, model)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_it_is_loaded_in_a_new_process_on_any_backend(backend, tmp_path):
    pytest.importorskip(backend)
    model = with_zeros(Connected(8), 0.8)
    tfprune.to_sparse(model, prefer="size").save(tmp_path / "own.keras")
    found = run_elsewhere(tmp_path / "own.keras", tmp_path, X, backend, "test_sparse_own_class")
    np.testing.assert_allclose(found, arrays(model)[0], rtol=1e-4, atol=1e-5)


def test_training_is_refused_before_and_after_loading(model, tmp_path):
    found = tfprune.to_sparse(model, prefer="size")
    found.save(tmp_path / "own.keras")
    labels = keras.tree.map_structure(keras.ops.convert_to_numpy, model(X))
    for converted in (found, keras.saving.load_model(tmp_path / "own.keras")):
        converted.compile("sgd", "mse")
        with pytest.raises(ValueError, match="a sparse model to be used only for prediction"):
            converted.fit(X, labels, verbose=0)
        check_same(converted, model)


def test_a_model_pruned_in_place_stays_as_it_was(model):
    pruned = tfprune.pruners.one_shot(model, 0.9)
    expected = arrays(pruned)
    found = tfprune.to_sparse(pruned, prefer="size")
    assert kinds(found, DENSE) == 0 and tfprune.sparsity_report(pruned).sparsity > 0.8
    for ours, theirs in zip(arrays(found), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_only_what_is_faster_becomes_sparse(model, monkeypatch):
    def timed(slow, fast, calls, runs):
        gain = 0.5 if slow.name == "head" else 2.0
        return Race(gain, 1.0, gain)

    monkeypatch.setattr(conversion, "race", timed)
    plan = tfprune.plan_sparse(model, X)
    stay = [row.layer for row in plan.rows if not row.sparse]
    assert kinds(plan.apply(), DENSE) == len(stay) < len(plan.rows)
    assert all(path.endswith("head") for path in stay)
    check_same(plan.apply(), model)


@keras.saving.register_keras_serializable(package=HERE)
class Named(keras.Model):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width, self.dense = width, layers.Dense(width, name="dense")

    def call(self, inputs):
        return self.dense(inputs=inputs)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def test_code_may_name_the_inputs():
    model = Named(8)
    model(X)
    plan = tfprune.plan_sparse(with_zeros(model, 0.8), X, prefer="size")
    assert [row.sparse for row in plan.rows] == [True]
    check_same(plan.apply(), model)


class ReadsKernels(Coded):
    def call(self, inputs):
        return keras.ops.matmul(self.first(inputs), self.first.kernel)


def test_code_that_reads_a_kernel_is_refused():
    model = ReadsKernels(8)
    model(X)
    with pytest.raises(ValueError, match=r"ReadsKernels.call\(\) to read no weights of layers"):
        tfprune.to_sparse(with_zeros(model, 0.8), prefer="size")


class Unserializable(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.dense = layer

    def call(self, inputs):
        return self.dense(inputs)


def test_a_class_that_cannot_be_copied_is_refused_with_the_reason():
    model = Unserializable(layers.Dense(8))
    model(X)
    with pytest.raises(ValueError, match="to be a layer that can be copied"):
        tfprune.to_sparse(with_zeros(model, 0.8), prefer="size")

"""Everything that tfprune takes from inside Keras: a change there is to be noticed here first."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_support import needs_multi_optimizer

from tfprune import _keras

pytestmark = pytest.mark.usefixtures("fresh")


@keras.saving.register_keras_serializable(package="tests")
class Holder(layers.Layer):
    """Layers in an attribute, a list, a dictionary, one of them held twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a = layers.Dense(4, name="a")
        self.many = [layers.Dense(4, name="b"), self.a]
        self.named = {"c": layers.Dropout(0.5, name="c")}
        self.d = layers.Bidirectional(layers.LSTM(2, name="lstm"), name="d")

    def build(self, input_shape):
        self.a.build((None, None, 4))
        self.many[0].build((None, None, 4))
        self.d.build((None, 5, 4))
        self.built = True

    def call(self, inputs, training=False):
        x = self.named["c"](self.many[0](self.a(inputs)))
        return self.d(x)


def functional():
    x = keras.Input((5, 4))
    inner = keras.Sequential([keras.Input((5, 4)), layers.Dense(4, name="deep")], name="inner")
    y = layers.Dense(2, name="out")(Holder(name="holder")(inner(x)))
    return keras.Model(x, y, name="outer")


def names(items):
    return [layer.name for layer in items if not isinstance(layer, layers.InputLayer)]


# -- Walking -----------------------------------------------------------------------------------

INSIDE_HOLDER = [
    "a",
    "b",
    "c",
    "d",
    "backward_lstm",
    "lstm_cell",
    "forward_lstm",
    "lstm_cell",
]


def test_flatten_is_the_same_before_and_after_building():
    holder = Holder(name="holder")
    assert names(_keras.flatten(holder)) == ["holder", *INSIDE_HOLDER]
    before = [id(layer) for layer in _keras.flatten(holder)]
    holder(np.ones((1, 5, 4), "float32"))
    assert [id(layer) for layer in _keras.flatten(holder)] == before


def test_flatten_of_a_model_is_the_same_in_a_copy(tmp_path):
    model = functional()
    expected = names(_keras.flatten(model))
    assert expected[0] == "outer" and set(INSIDE_HOLDER) | {"inner", "deep", "out"} < set(expected)
    assert names(_keras.flatten(keras.models.clone_model(model))) == expected
    model.save(tmp_path / "model.keras")
    assert names(_keras.flatten(keras.saving.load_model(tmp_path / "model.keras"))) == expected


def test_children_are_the_layers_directly_inside():
    model = functional()
    assert names(_keras.children(model)) == ["inner", "holder", "out"]
    assert names(_keras.children(model.get_layer("holder"))) == ["a", "b", "c", "d"]
    assert names(_keras.children(model.get_layer("out"))) == []


def test_walk_gives_paths_once_each_outer_first():
    model = functional()
    paths = [c[-1][0] for c in _keras.walk(model) if not isinstance(c[-1][1], layers.InputLayer)]
    assert paths == [
        "inner",
        "inner/deep",
        "holder",
        "holder/a",
        "holder/b",
        "holder/c",
        "holder/d",
        "holder/d/forward_lstm",
        "holder/d/forward_lstm/lstm_cell",
        "holder/d/backward_lstm",
        "holder/d/backward_lstm/lstm_cell",
        "out",
    ]
    chain = next(c for c in _keras.walk(model) if c[-1][0] == "holder/d")
    assert [path for path, _ in chain] == ["holder", "holder/d"]
    around = (("outer", model),)
    assert next(iter(_keras.walk(model.get_layer("inner"), around)))[-1][0].startswith("outer/")


class Own(keras.Model):
    def train_step(self, data):
        return super().train_step(data)

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


class Stacked(keras.Sequential):
    pass


@pytest.mark.parametrize(
    ("make", "is_graph", "own"),
    [
        (functional, True, []),
        (lambda: keras.Sequential([layers.Dense(2)]), True, []),
        (lambda: Stacked([layers.Dense(2)]), True, []),
        (keras.Model, False, []),
        (Own, False, ["train_step", "compute_loss"]),
        (
            lambda: Own(i := keras.Input((2,)), layers.Dense(2)(i)),
            True,
            ["train_step", "compute_loss"],
        ),
    ],
    ids=["functional", "sequential", "sequential subclass", "empty", "own", "functional own"],
)
def test_kinds_of_models(make, is_graph, own):
    model = make()
    assert (_keras.is_graph(model), _keras.own_loop(model)) == (is_graph, own)


# -- Copying -----------------------------------------------------------------------------------


def same(layer):
    clone = _keras.bare_clone(layer)
    return layer, clone, clone


def outputs(model, x):
    return ops.convert_to_numpy(model(x))


@pytest.mark.parametrize("compiled", [False, True])
def test_clone_has_the_weights_and_shares_nothing(compiled):
    model, x = functional(), np.ones((2, 5, 4), "float32")
    if compiled:
        # A loss that no config can hold.
        model.compile("adam", lambda a, b: ops.mean(a - b), metrics=[lambda a, b: ops.mean(a)])
    clone = _keras.clone_graph(model, same)
    assert model.compiled is compiled and not clone.compiled
    expected = outputs(model, x)
    np.testing.assert_array_equal(outputs(clone, x), expected)
    for one, other in zip(model.weights, clone.weights, strict=True):
        assert one is not other and one.path == other.path
        other.assign(ops.zeros_like(other))
    np.testing.assert_array_equal(outputs(model, x), expected)
    assert not set(map(id, _keras.flatten(model))) & set(map(id, _keras.flatten(clone)))


def test_clone_of_a_frozen_model():
    model = functional()
    model.trainable = False
    assert not _keras.clone_graph(model, same).trainable_weights
    model.trainable = True
    model.get_layer("holder").a.trainable = False
    assert _keras.clone_graph(model, same).trainable_weights


def test_clone_keeps_random_states():
    model = keras.Sequential([keras.Input((100,)), layers.Dropout(0.5, seed=3)])
    x = np.ones((1, 100), "float32")
    model(x, training=True)
    clone = _keras.clone_graph(model, same)
    np.testing.assert_array_equal(clone(x, training=True), model(x, training=True))
    fresh = keras.models.clone_model(model)
    assert (outputs_in_training(fresh, x) != outputs_in_training(model, x)).any()


def outputs_in_training(model, x):
    return ops.convert_to_numpy(model(x, training=True))


class NeedsMore(keras.Model):
    """A Functional model that cannot be made from (inputs, outputs) alone."""

    def __init__(self, width):
        x = keras.Input((4,))
        super().__init__(x, layers.Dense(width)(x))

    def train_step(self, data):
        return super().train_step(data)


def test_a_train_step_is_not_lost_silently():
    with pytest.raises(
        ValueError, match=r"Expected a class that can be made from \(inputs, outputs\).*NeedsMore"
    ):
        _keras.clone_graph(NeedsMore(3), same)


class NoConfig(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.width = width


def test_a_layer_without_config_says_so():
    with pytest.raises(ValueError, match=r"implement NoConfig.get_config\(\)"):
        _keras.bare_clone(NoConfig(3))


def test_weights_that_do_not_match():
    one, other = layers.Dense(2), layers.Dense(3)
    one.build((None, 4))
    other.build((None, 4))
    before = other.kernel.numpy()
    with pytest.raises(ValueError, match="Expected the same weights in 'one' and its copy"):
        _keras.copy_variables(one.weights, other.weights, "one")
    np.testing.assert_array_equal(other.kernel, before)


def test_replacing_layers_keeps_their_order():
    holder = Holder()
    order = names(_keras.children(holder))
    new = {"a": layers.Dense(4, name="a2"), "b": layers.Dense(4, name="b2")}
    _keras.replace_inside(holder, lambda layer: new.get(layer.name, layer))
    assert order == ["a", "b", "c", "d"]
    assert names(_keras.children(holder)) == ["a2", "b2", "c", "d"]
    assert holder.a is holder.many[1] is new["a"]
    holder(np.ones((1, 5, 4), "float32"))
    assert [v.path.split("/")[-2] for v in holder.weights[:4]] == ["a2", "a2", "b2", "b2"]


# -- Random states -----------------------------------------------------------------------------


def test_seed_generators_are_found():
    x = keras.Input((8, 8, 3))
    y = layers.GaussianNoise(0.1)(layers.RandomFlip()(x))
    y = layers.TimeDistributed(layers.Dropout(0.5))(y)
    y = layers.LSTM(2, dropout=0.5)(layers.Reshape((8, 24))(y))
    model = keras.Model(x, y)
    found = _keras.seed_generators(model)
    assert len(found) == len({id(generator) for generator in found}) >= 4
    # Every random state that Keras itself lists among the variables is among them.
    weights = {id(v) for v in model.weights}
    states = {id(v) for v in model.variables if id(v) not in weights and "seed" in v.path}
    assert states == {id(generator.state) for generator in found}
    before = [generator.state.numpy() for generator in found]
    model(np.ones((1, 8, 8, 3), "float32"), training=True)
    moved = [(b != g.state.numpy()).any() for b, g in zip(before, found, strict=True)]
    assert sum(moved) >= 4


# -- Reading variables -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "bool"])
def test_host_array(dtype):
    value = np.array([[1, 0], [0, 1]])
    variable = keras.Variable(value.astype("float32"), dtype=dtype)
    array = _keras.host_array(variable)
    assert isinstance(array, np.ndarray) and str(array.dtype) == dtype
    np.testing.assert_array_equal(array.astype(int), value)
    variable.assign(ops.ones((2, 2), dtype=dtype))
    assert _keras.host_array(variable).all()


def test_stateless_scope():
    assert not _keras.is_tracing_without_state()
    with keras.StatelessScope():
        assert _keras.is_tracing_without_state()
    assert not _keras.is_tracing_without_state()


class Witness(layers.Dense):
    """Notes in which mode it is called; it does not ask for `training` itself."""

    def call(self, inputs):
        self.modes.add(_keras.is_training())
        return super().call(inputs)


def test_training_mode_is_seen_inside():
    layer = Witness(2)
    layer.modes = set()
    model = keras.Sequential([keras.Input((3,)), keras.Sequential([keras.Input((3,)), layer])])
    x = np.ones((4, 3), "float32")
    layer.modes = set()
    model.predict(x, verbose=0)
    model(x)
    assert layer.modes == {False}
    model(x, training=True)
    assert layer.modes == {False, True}
    model.compile("sgd", "mse")
    layer.modes = set()
    model.fit(x, np.ones((4, 2)), verbose=0)
    assert layer.modes == {True}
    assert not _keras.is_training()
    # Asking where no layer is called must not leave Keras in the middle of a call.
    layer.modes = set()
    layer.call(np.ones((1, 3), "float32"))
    model(x, training=True)
    layer(x)
    assert layer.modes == {True, False}


def test_call_arguments_are_those_of_the_layer():
    class Odd(layers.Layer):
        def call(self, first, second=None, *, mask=None, training=False):
            return first

    class Around(layers.Wrapper):
        def call(self, *args, **kwargs):
            return self.layer(*args, **kwargs)

    layer = Odd()
    around = Around(layer)
    count = len(around.weights), len(_keras.children(around))
    _keras.adopt_call_arguments(around, layer)
    assert around._call_signature == inspect.signature(layer.call)
    assert around._call_has_training_arg and around._call_has_mask_arg
    assert (len(around.weights), len(_keras.children(around))) == count
    x = ops.ones((2, 3))
    # Keras takes a tensor and a number together only where it sees the names.
    assert around(x, second=x, mask=None, training=True).shape == (2, 3)


# -- Optimizers --------------------------------------------------------------------------------


def trained(optimizer, batches=7):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile(optimizer, "mse")
    random = np.random.default_rng(0)
    x, y = (random.normal(size=(4 * batches, n)).astype("float32") for n in (3, 2))
    model.fit(x, y, 4, verbose=0)
    return model


@pytest.mark.parametrize(("accumulation", "updates"), [(None, 7), (2, 3), (3, 2), (8, 0)])
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scaling"])
def test_batches_and_updates(accumulation, updates, scaled):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulation)
    inner = optimizer
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0)
    model = trained(optimizer)
    assert _keras.single_optimizers(model.optimizer) == [inner]
    batches, steps = _keras.batches_done(model.optimizer)
    assert (batches, steps) == (7, accumulation or 1)
    assert batches // steps == int(inner.iterations) == updates


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scaling"])
def test_averages(scaled):
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.75)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert _keras.averages(optimizer) == {}
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    found = _keras.averages(optimizer)
    assert set(found) == {id(v) for v in model.trainable_variables}
    kernel = model.layers[0].kernel
    start = kernel.numpy()
    model.train_on_batch(np.ones((4, 3), "float32"), np.ones((4, 2), "float32"))
    assert (kernel.numpy() != start).any()
    # The first average is what the optimizer starts from; then 3/4 old and 1/4 new.
    first, second = found[id(kernel)].numpy(), kernel.numpy()
    model.train_on_batch(np.ones((4, 3), "float32"), np.ones((4, 2), "float32"))
    np.testing.assert_allclose(
        found[id(kernel)].numpy(), 0.75 * first + 0.25 * kernel.numpy(), rtol=1e-5
    )
    assert (second != kernel.numpy()).any()


@needs_multi_optimizer
def test_several_optimizers():
    """The parts stand in the optimizer once it is built; each counts the batches."""
    sgd, adam = keras.optimizers.SGD(0.1), keras.optimizers.Adam(use_ema=True)
    optimizer = keras.optimizers.MultiOptimizer(lambda v: adam if v.ndim == 2 else sgd)
    model = trained(optimizer)
    assert set(map(id, _keras.single_optimizers(optimizer))) == {id(sgd), id(adam)}
    assert _keras.batches_done(optimizer) == (7, 1)
    assert set(_keras.averages(optimizer)) == {id(model.layers[0].kernel)}


def test_an_optimizer_that_was_built_for_nothing():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    nothing = keras.optimizers.Adam()
    assert not _keras.is_built_for_nothing(nothing)
    nothing.build([])
    assert _keras.is_built_for_nothing(nothing)
    whole = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    whole.build(model.trainable_variables)
    assert not _keras.is_built_for_nothing(whole)


def test_no_averages_without_ema():
    assert _keras.averages(trained("adam").optimizer) == {}


# -- Optimizer slots, batches, watched calls -------------------------------------------------------


def variables():
    return [keras.Variable(np.ones(shape), name=f"v{len(shape)}") for shape in ((3, 2), (2,))]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SGD", 1),
        ("Adam", 2),
        ("AdamW", 2),
        ("Nadam", 2),
        ("Adamax", 2),
        ("Adagrad", 1),
        ("Adadelta", 2),
        ("RMSprop", 1),
        ("Lion", 1),
        ("Ftrl", 2),
        ("Lamb", 2),
    ],
)
def test_slots_of_each_optimizer(name, number):
    optimizer = getattr(keras.optimizers, name)(0.1, **({"momentum": 0.9} if name == "SGD" else {}))
    matrix, vector = variables()
    optimizer.build([matrix, vector])
    for variable in (matrix, vector):
        slots = _keras.slots(optimizer, variable)
        assert len(slots) == number
        assert all(slot.shape == variable.shape for slot in slots)
        assert all(any(slot is v for v in optimizer.variables) for slot in slots)
    assert not set(map(id, _keras.slots(optimizer, matrix))) & set(
        map(id, _keras.slots(optimizer, vector))
    )
    assert _keras.slots(optimizer, keras.Variable(np.ones((3, 2)))) == []


def test_slots_inside_loss_scaling_with_averages_and_accumulation():
    inner = keras.optimizers.Adam(use_ema=True, gradient_accumulation_steps=2)
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    matrix, vector = variables()
    optimizer.build([matrix, vector])
    # Two momenta, the moving average of the weight, and the accumulated gradient.
    assert len(_keras.slots(optimizer, matrix)) == 4


def test_numpy_batches():
    x, y = np.arange(10).reshape(5, 2), np.arange(5)
    batches = list(_keras.numpy_batches((x, y), 2))
    assert [len(batch[0]) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in batches]), y)
    assert all(isinstance(array, np.ndarray) for batch in batches for array in batch)


def test_calls_are_watched_and_then_no_more():
    layer = keras.layers.Dense(2)
    seen = []
    with _keras.watched_calls([layer], lambda *call: seen.append(call)):
        output = layer(np.ones((1, 3)))
    layer(np.ones((1, 3)))
    assert len(seen) == 1
    assert seen[0][0] is layer and seen[0][2] is output
    assert "call" not in vars(layer)


def test_a_model_stops_in_the_middle():
    """Keras replaces every other exception of a call by its own."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    seen = []

    def stop(layer, call, args, kwargs):
        seen.append((layer, args, kwargs))
        raise _keras.RunStopped

    with _keras.intercepted_calls(model.layers[1:], stop), pytest.raises(_keras.RunStopped):
        model(np.ones((1, 3)))
    assert [call[0] for call in seen] == model.layers[1:]
    assert tuple(model(np.ones((1, 3))).shape) == (1, 1)


def test_held_tensors_come_back_with_their_masks():
    embedding = keras.layers.Embedding(4, 2, mask_zero=True)
    tensor = embedding(np.array([[1, 2, 0]]))
    held = _keras.HeldTensor(tensor)
    np.testing.assert_array_equal(held.array, keras.ops.convert_to_numpy(tensor))
    seen = []

    class Masked(keras.layers.Layer):
        def call(self, x, mask=None):
            seen.append(None if mask is None else keras.ops.convert_to_numpy(mask).tolist())
            return x

    Masked()(held.tensor())
    assert seen == [[[True, True, False]]]


def test_operations_are_watched_and_then_no_more():
    seen = []
    before = keras.ops.einsum
    with _keras.watched_operations(("einsum",), lambda *call: seen.append(call)):
        found = keras.ops.einsum("i,i->", np.ones(2), np.ones(2))
    assert keras.ops.einsum is before
    ((name, arguments, outputs),) = seen
    assert name == "einsum" and arguments[0] == "i,i->" and outputs is found


def test_trace_computes_nothing_and_sees_one_tensor_pass_on():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.ReLU()])
    seen = []
    with _keras.watched_calls(model.layers, lambda *call: seen.append(call)):
        _keras.trace(model, _keras.symbolic_inputs(model))
    (_, _, made), (_, (taken,), _) = seen
    assert taken is made
    assert tuple(taken.shape)[1:] == (2,)


def test_input_shape_is_known_once_built():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    assert _keras.input_shape(model) is None
    model(np.ones((4, 3)))
    assert tuple(_keras.input_shape(model)) == (4, 3)


# -- Around a training -------------------------------------------------------------------------


class Last(keras.callbacks.Callback):
    def __init__(self, said):
        super().__init__()
        self.said = said

    def on_train_begin(self, logs=None):
        _keras.after_training(self.model, lambda: self.said.append("after"))

    def on_train_end(self, logs=None):
        self.said.append("end")


def test_an_action_after_training_comes_after_all_callbacks_and_once():
    model, said = keras.Sequential([keras.Input((2,)), layers.Dense(1)]), []
    model.compile("sgd", "mse")
    x = np.ones((4, 2), "float32")
    history = model.fit(x, x[:, :1], verbose=0, callbacks=[Last(said), Last(said)])
    assert said == ["end", "end", "after", "after"]
    assert "on_train_end" not in vars(history)
    model.fit(x, x[:, :1], verbose=0)
    assert said.count("end") == 2


def test_an_action_before_training_comes_before_training_alone():
    model, said = keras.Sequential([keras.Input((2,)), layers.Dense(1)]), []
    model.compile("sgd", "mse")
    x = np.ones((4, 2), "float32")
    for _ in range(2):
        _keras.before_training(model, said.append)
    model.evaluate(x, x[:, :1], verbose=0)
    model.predict(x, verbose=0)
    assert said == []
    for train in (model.fit, model.train_on_batch):
        said.clear()
        train(x, x[:, :1])
        assert said and all(item is model for item in said)


def test_places_are_the_same_in_a_clone_and_after_build():
    class Holder(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.net = keras.Sequential([layers.Dense(2), layers.LSTM(2)])
            self.several = {"a/b": [layers.Dense(2)]}
            self._hidden = layers.Bidirectional(layers.GRU(2))

    def places_of(holder):
        named = {id(layer): type(layer).__name__ for layer in _keras.flatten(holder)}
        return {place: named[key] for key, place in _keras.places(holder).items()}

    holder = Holder()
    expected = {
        "": "Holder",
        "net": "Sequential",
        "net/0": "Dense",
        "net/1": "LSTM",
        "net/1/cell": "LSTMCell",
        "several.a|b.0": "Dense",
        "_hidden": "Bidirectional",
        "_hidden/forward_layer": "GRU",
        "_hidden/forward_layer/cell": "GRUCell",
        "_hidden/backward_layer": "GRU",
        "_hidden/backward_layer/cell": "GRUCell",
    }
    assert places_of(holder) == places_of(Holder()) == expected
    holder.net.build((None, 3, 2))
    holder._hidden.build((None, 3, 2))
    # Keras puts an input and a functional model into a Sequential that is built.
    assert expected.items() <= places_of(holder).items()


# -- Graphs rebuilt from changed configs -----------------------------------------------------------


def test_graph_calls_are_in_running_order_with_their_tensors():
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(4)
    x = dense(inputs)
    y = dense(x * 2.0)
    inner = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    model = keras.Model(inputs, keras.layers.Concatenate()([inner(y), x]))
    calls = list(_keras.graph_calls(model))
    kinds = [type(operation).__name__ for operation, *_ in calls]
    assert kinds == ["Dense", "Multiply", "Dense", "Sequential", "Concatenate"]
    assert calls[0][1][0] is model.inputs[0]
    assert calls[1][1][0] is calls[0][3][0] and calls[1][1][1] == 2.0
    assert calls[-1][3][0] is model.outputs[0]
    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.ReLU()])
    kinds = [type(operation).__name__ for operation, *_ in _keras.graph_calls(sequential)]
    assert kinds == ["Dense", "ReLU"]


class Around(keras.layers.Wrapper):
    """A wrapper that walks go through."""

    is_transparent = True

    @property
    def inner(self):
        return self.layer

    def call(self, inputs):
        return self.layer(inputs)


def test_following_calls_goes_through_wrappers_and_into_models():
    inputs = keras.Input((4,))
    shared = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="a")], name="twice")
    opaque = keras.layers.TimeDistributed(keras.layers.Dense(4, name="hidden"), name="steps")
    x = Around(shared, name="again")(shared(inputs) * 2.0)
    x = keras.layers.Flatten()(opaque(keras.layers.Reshape((1, 4))(x)))
    model = keras.Model(inputs, Around(Around(keras.layers.Dense(2, name="b")), name="b")(x))
    seen = []

    def visit(call, given):
        seen.append((call.path, type(call.layer).__name__, call.output_shapes))
        return [value + 1 for value in given[:1]]

    assert _keras.follow_calls(model, [10], visit) == [17]
    wide = [(None, 4)]
    kinds = [("twice/a", "Dense"), (seen[1][0], "Multiply"), ("again/a", "Dense")]
    assert seen[:3] == [(path, kind, wide) for path, kind in kinds]
    assert seen[-1] == ("b", "Dense", [(None, 2)])
    assert ("steps", "TimeDistributed", [(None, 1, 4)]) in seen
    # Values can be changed on their way into a model.
    assert _keras.follow_calls(model, [10], visit, enter=lambda call, given: [0]) == [5]


def test_runs_as_graph():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    class Other(keras.Sequential):
        def call(self, inputs):
            return 2 * super().call(inputs)

    inputs = keras.Input((4,))
    assert _keras.runs_as_graph(keras.Model(inputs, keras.layers.ReLU()(inputs)))
    assert _keras.runs_as_graph(keras.Sequential([inputs, keras.layers.ReLU()]))
    assert not _keras.runs_as_graph(Own())
    assert not _keras.runs_as_graph(Other([inputs, keras.layers.ReLU()]))


def test_rebuild_graph_changes_configs_operations_and_inner_inputs():
    inner_input = keras.Input((4,), name="into")
    inner = keras.Model(inner_input, keras.layers.Dense(3, name="end")(inner_input), name="inner")
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, name="start")(inputs)
    x = keras.ops.reshape(x, (-1, 4, 1))
    model = keras.Model(inputs, inner(keras.ops.squeeze(x, 2)))
    model.compile("sgd", lambda y, z: y - z)
    before = model.get_weights()

    def config_of(layer):
        config = layer.get_config()
        if layer.name == "start":
            return {**config, "units": 2}
        return {**config, "newshape": (-1, 2, 1)} if "newshape" in config else None

    def move(old, new):
        for variable, target in zip(old.weights, new.weights, strict=True):
            target.assign(variable.numpy()[tuple(slice(0, n) for n in target.shape)])

    new = _keras.rebuild_graph(model, config_of, lambda inner, number: (None, 2), move)
    shapes = [tuple(weight.shape) for weight in new.weights]
    assert shapes == [(5, 2), (2,), (2, 3), (3,)] and not new.compiled and model.compiled
    x = np.ones((2, 5), "float32")
    truth = (x @ before[0][:, :2] + before[1][:2]) @ before[2][:2] + before[3]
    np.testing.assert_allclose(new(x), truth, 1e-5, 1e-6)
    for old, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, weight)


def test_rebuild_graph_leaves_layers_out_of_both_kinds_of_models():
    kind = keras.layers.Rescaling
    inner = keras.Sequential([keras.Input((2,)), kind(3.0), kind(5.0)], name="inner")
    inputs = keras.Input((2,), name="into")
    double = kind(2.0)
    model = keras.Model(inputs, {"a": inner(double(inputs)), "b": kind(7.0)(inputs)})
    for one, gone in ((model, [double, inner.layers[0]]), (inner, inner.layers[:1])):
        new = _keras.rebuild_graph(
            one,
            lambda layer: None,
            lambda inner, number: tuple(inner.inputs[number].shape),
            _keras.copy_weights,
            leave_out={id(layer) for layer in gone},
        )
        assert type(new) is type(one) and new.name == one.name
        assert [tensor.name for tensor in new.inputs] == [tensor.name for tensor in one.inputs]
        left = [layer.scale for layer in _keras.flatten(new) if isinstance(layer, kind)]
        assert left == ([5.0, 7.0] if one is model else [5.0])
        result = keras.tree.flatten(new(np.ones((1, 2), "float32")))
        assert [float(np.asarray(y)[0, 0]) for y in result] == left
    assert len(inner.layers) == 2 and float(np.asarray(inner(np.ones((1, 2))))[0, 0]) == 15


def test_layers_of_keras_applications_are_where_they_were():
    assert _keras.LayerScale(1.0, 4).projection_dim == 4
    assert _keras.CustomScaleLayer(0.5).scale == 0.5


HAS_GATES = "use_gate" in inspect.signature(layers.MultiHeadAttention).parameters
needs_gates = pytest.mark.skipif(not HAS_GATES, reason="this Keras has no gates in attention")


@pytest.mark.parametrize("gates", [{}, pytest.param({"use_gate": True}, marks=needs_gates)])
def test_attention_parts_are_all_projections(gates):
    inputs = keras.Input((5, 4))
    for layer in (
        keras.layers.MultiHeadAttention(2, 3, **gates),
        keras.layers.GroupQueryAttention(3, 2, 1, **gates),
    ):
        layer(inputs, inputs)
        parts = _keras.attention_parts(layer)
        assert set(parts) == {"query", "key", "value", "output", *["gate"] * len(gates)}
        held = [part for part in _keras.children(layer) if part.weights]
        assert {id(part) for part in parts.values()} == {id(part) for part in held}
        assert parts["output"].name == "attention_output"


def test_rebuild_graph_narrows_the_inputs_of_a_model_inside():
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    new = _keras.rebuild_graph(
        inner,
        lambda layer: None,
        lambda model, number: (None, 1),
        lambda old, new: None,
        inside=True,
    )
    assert new.input_shape == (None, 1) and new.layers[0].kernel.shape == (1, 2)


def test_recurrent_states_are_what_stateful_layers_remember():
    for layer_class, number in ((keras.layers.LSTM, 2), (keras.layers.GRU, 1)):
        layer = layer_class(3, stateful=True)
        layer(np.ones((2, 4, 5), "float32"))
        states = _keras.recurrent_states(layer)
        assert [tuple(state.shape) for state in states] == [(2, 3)] * number
        assert all(np.any(_keras.host_array(state) != 0) for state in states)
        # They are no weights, so that nothing else carries them over.
        assert not {id(state) for state in states} & {id(weight) for weight in layer.weights}
    assert _keras.recurrent_states(keras.layers.LSTM(3)) == []
    assert _keras.recurrent_states(keras.layers.Dense(3)) == []

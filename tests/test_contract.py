"""One contract for every schedule, pattern, criterion, scope and distribution, on every backend.

    KERAS_BACKEND=jax python -m pytest tests/test_contract.py

The parts are found, not listed: a new one is held to all this without a change here, but for a
value in `VALUES` if its constructor has an argument of a new name.
"""

import dataclasses
import inspect
import json
import re

import keras
import numpy as np
import pytest
from keras import ops
from keras_support import SLOW_ON_TENSORFLOW, outputs
from schedules.test_schedules import FORMULAS

import tfprune
from tfprune import criteria, distributions, masks, patterns, schedules, scopes
from tfprune.patterns import KernelAxes

BACKEND = keras.backend.backend()

VALUES = {
    "target_sparsity": 0.5,
    "initial_sparsity": 0.1,
    "final_sparsity": 0.8,
    "begin_step": 2,
    "end_step": 21,
    "frequency": 4,
    "power": 2,
    "n_steps": 4,
    "block_size": (2, 3),
    "zeros": 4,
    "group": 8,
    "pooling": "MAX",
    "axes": (0,),
    "max_sparsity": 0.75,
    "normalize": "mean",
    "seed": 3,
    "distribution": distributions.ErdosRenyi(),
    "sparsities": {"*": 0.75},
    "coupled": False,
    "over_group": "SUM",
    # Another number would change the counts; tests/_channels/test_coupling.py tries others.
    "round_to": 1,
}
BUILT_IN = {
    schedules: tuple(schedules.built_in().values()),
    patterns: tuple(patterns.built_in().values()),
    criteria: tuple(dict.fromkeys(criteria.built_in().values())),
    scopes: tuple(scopes.built_in().values()),
    distributions: tuple(distributions.built_in().values()),
}
BASES = {
    schedules: tfprune.PruningSchedule,
    patterns: tfprune.Pattern,
    criteria: tfprune.Criterion,
    scopes: scopes.Scope,
    distributions: distributions.Distribution,
}
# A distribution means the scope that has it.
SCOPES = (scopes, distributions)


def example(cls):
    """An object with no argument at its default."""
    return cls(**{name: VALUES[name] for name in inspect.signature(cls).parameters})


def named(things):
    return {"ids": [getattr(thing, "__name__", type(thing).__name__) for thing in things]}


def of(*modules):
    pairs = [(module, cls) for module in modules for cls in BUILT_IN[module]]
    return pytest.mark.parametrize(("module", "cls"), pairs, **named([cls for _, cls in pairs]))


every_part = of(schedules, patterns, criteria, scopes, distributions)
every_schedule = pytest.mark.parametrize(
    "cls", schedules.built_in().values(), **named(BUILT_IN[schedules])
)
every_pattern = pytest.mark.parametrize("name", patterns.built_in())


@pytest.mark.parametrize("module", BUILT_IN, ids=lambda module: module.__name__)
def test_built_in_lists_are_complete(module):
    written = {
        thing
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and issubclass(thing, BASES[module]) and not name.startswith("_")
    }
    # Bases of others are no parts; some schedules are shells around others.
    bases = {base for cls in written for base in cls.__mro__[1:]} - set(BUILT_IN[module])
    shells = {schedules.AdoptedSchedule, schedules.EpochSchedule}
    assert written - bases - shells == set(BUILT_IN[module])
    public = set(tfprune.__all__) | set(getattr(module, "__all__", ()))
    assert {cls.__name__ for cls in BUILT_IN[module]} <= public


# -- Configs ---------------------------------------------------------------------------------------


@every_part
def test_config_round_trip(module, cls):
    thing = example(cls)
    config = thing.get_config()
    assert config == {name: VALUES[name] for name in inspect.signature(cls).parameters}
    serialized = keras.saving.serialize_keras_object(thing)
    assert serialized["registered_name"] == f"tfprune>{cls.__name__}"
    for back in (
        cls.from_config(config),
        keras.saving.deserialize_keras_object(json.loads(json.dumps(serialized))),
        module.get(json.loads(json.dumps(serialized))),
    ):
        assert type(back) is cls
        assert back == thing and hash(back) == hash(thing) and repr(back) == repr(thing)
        assert back.get_config() == config


@every_part
def test_frozen_and_equal_by_value(module, cls):
    thing = example(cls)
    for name in (*inspect.signature(cls).parameters, "anything_else"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, 1)
    assert thing == example(cls)
    assert thing != object()


@of(schedules)
def test_schedule_takes_the_nested_config_of_tfmot(module, cls):
    thing = example(cls)
    nested = {"class_name": cls.__name__, "config": thing.get_config()}
    assert cls.from_config(nested) == thing


@pytest.mark.parametrize(
    "module", [patterns, criteria, scopes, distributions], ids=lambda m: m.__name__
)
def test_get(module):
    for name, cls in module.built_in().items():
        assert module.get(name) == cls()
        thing = example(cls)
        assert module.get(thing) is thing
    assert isinstance(module.get(None), BASES[module])


@pytest.mark.parametrize(
    "module", [patterns, criteria, scopes, distributions], ids=lambda m: m.__name__
)
@pytest.mark.parametrize("bad", ["no_such_name", 1, 0.5, ["filter"], object, print])
def test_get_rejects_anything_else(module, bad):
    known = ".*".join(module.built_in())
    with pytest.raises(
        (ValueError, TypeError), match=rf"Expected .* Received: \w+={re.escape(repr(bad))}"
    ):
        module.get(bad)
    with pytest.raises((ValueError, TypeError), match=known):
        module.get(bad)


@pytest.mark.parametrize("module", BUILT_IN, ids=lambda m: m.__name__)
def test_get_rejects_classes_and_parts_of_another_kind(module):
    others = [
        example(classes[0])
        for other, classes in BUILT_IN.items()
        if other is not module and not (module is scopes and other in SCOPES)
    ]
    for bad in [BUILT_IN[module][0], *others]:
        with pytest.raises(TypeError, match=r"Expected .* Received: \w+="):
            module.get(bad)


# -- Schedules -------------------------------------------------------------------------------------


@every_schedule
@pytest.mark.parametrize("step", [0, np.int32(2), np.array(9), [3, 4], np.arange(25)])
def test_schedule_shapes_and_dtypes(cls, step):
    due, sparsity = example(cls)(step)
    assert ops.is_tensor(due) and ops.is_tensor(sparsity)
    assert keras.backend.standardize_dtype(due.dtype) == "bool"
    assert keras.backend.standardize_dtype(sparsity.dtype) == "float32"
    assert tuple(due.shape) == tuple(sparsity.shape) == np.shape(step)


@every_schedule
def test_schedule_asked_at_once_and_step_by_step(cls):
    schedule = example(cls)
    due, sparsity = schedule.evaluate(np.arange(30))
    single = [schedule.evaluate([step]) for step in range(30)]
    np.testing.assert_array_equal(due, np.concatenate([d for d, _ in single]))
    np.testing.assert_allclose(sparsity, np.concatenate([s for _, s in single]), rtol=0, atol=1e-7)
    assert {2, 6, 10, 14, 18, 21} <= set(np.flatnonzero(due)) <= set(range(2, 22))
    assert sparsity.min() >= 0 and sparsity.max() == np.float32(schedule.target_sparsity) < 1


@pytest.mark.parametrize("name", FORMULAS)
def test_schedule_formula(name):
    make, more, formula = FORMULAS[name]
    steps = np.arange(230)
    progress = np.clip((steps - 10) / 200, 0, 1)
    sparsity = make(0.1, 0.8, 10, 210, **more).evaluate(steps)[1]
    np.testing.assert_allclose(sparsity, formula(0.1, 0.8, progress), rtol=0, atol=5e-7)


# -- Masks -----------------------------------------------------------------------------------------

# Evidence that a criterion may need, except what the mask kernel provides.
ARRAYS = set(criteria.EVIDENCE) - {"axes", "position"}
SHAPES = {"dense": (16, 9), "conv": (3, 2, 8, 6)}


@every_pattern
@pytest.mark.parametrize("scope", [scopes.Local(), *map(example, BUILT_IN[scopes])], ids=repr)
@pytest.mark.parametrize("criterion", criteria.built_in())
def test_exact_count_in_every_combination(name, scope, criterion):
    pattern = example(patterns.built_in()[name])
    random = np.random.default_rng(0)
    requests = [
        masks.MaskRequest(
            random.normal(size=shape).astype("float32"),
            pattern,
            criteria.get(criterion),
            KernelAxes(),
            evidence={need: random.normal(size=shape) for need in ARRAYS},
        )
        for shape in SHAPES.values()
    ]
    results = scope.masks(requests, 0.5)
    for request, (kept, _) in zip(requests, results, strict=True):
        mask = request.spread(kept)
        assert (mask.shape, mask.dtype, kept.dtype) == (request.weight.shape, bool, bool)
        np.testing.assert_array_equal(pattern.collapse(mask, request.axes).ravel(), kept)
    units = sum(request.units for request in requests)
    pruned = sum(np.count_nonzero(~kept) for kept, _ in results)
    per_weight = sum(request.units - masks.kept_count(request.units, 0.5) for request in requests)
    alone = scope == scopes.Local()
    assert pruned == (per_weight if alone else units - masks.kept_count(units, 0.5))


@every_pattern
@pytest.mark.parametrize("distribution", distributions.built_in())
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.2])
def test_exact_count_of_every_distribution(name, distribution, sparsity):
    pattern = example(patterns.built_in()[name])
    random = np.random.default_rng(0)
    requests = [
        masks.MaskRequest(random.normal(size=shape), pattern, tfprune.Magnitude(), KernelAxes())
        for shape in SHAPES.values()
    ]
    scope = scopes.get(distribution)
    kept = [kept for kept, _ in scope.masks(requests, sparsity)]
    units = sum(request.units for request in requests)
    assert sum(map(np.count_nonzero, kept)) == masks.kept_count(units, sparsity)
    assert all(one.any() for one in kept)


def by_blocks(kernel):
    """Mean of each block of 2 inputs by 3 outputs, at its weights."""
    pooled = kernel.reshape(*kernel.shape[:-2], kernel.shape[-2] // 2, 2, kernel.shape[-1] // 3, 3)
    means = np.broadcast_to(pooled.mean(axis=(-3, -1), keepdims=True), pooled.shape)
    return means.reshape(kernel.shape)


def by_mean(*axes):
    return lambda kernel: np.broadcast_to(kernel.mean(axis=axes, keepdims=True), kernel.shape)


def by_rank_in_eights(kernel):
    along = np.moveaxis(kernel, -2, -1)
    ranks = along.reshape(-1, 8).argsort(axis=1).argsort(axis=1)
    return np.moveaxis(ranks.reshape(along.shape), -1, -2)


# For each pattern the object, and the scores of its units at their weights, in float64: for a
# Dense kernel and for a convolution.
POOLED = {
    "unstructured": (tfprune.Unstructured(), np.copy, np.copy),
    "block": (tfprune.Block((2, 3)), by_blocks, by_blocks),
    "n_of_m": (tfprune.NOfM(4, 8), by_rank_in_eights, by_rank_in_eights),
    "filter": (tfprune.Filter(coupled=False), by_mean(0), by_mean(0, 1, 2)),
    "channel": (tfprune.Channel(), by_mean(1), by_mean(0, 1, 3)),
    "kernel": (tfprune.Kernel(), np.copy, by_mean(0, 1)),
    "row": (tfprune.Row(), by_mean(1), by_mean(1)),
    "column": (tfprune.Column(), by_mean(0), by_mean(0)),
    "slice": (tfprune.Slice((0, -1)), None, by_mean(0, 3)),
}


def kernel_of(shape):
    """Weights whose magnitudes differ by far more than rounding."""
    random = np.random.default_rng(7)
    size = int(np.prod(shape))
    magnitudes = random.permutation(size) + random.uniform(0, 0.5, size)
    return (magnitudes * random.choice([-1, 1], magnitudes.size)).reshape(shape).astype("float32")


def half_of(pooled):
    """The mask that keeps half of the units, each told by its score."""
    scores = np.unique(pooled)
    return pooled > scores[len(scores) - masks.kept_count(len(scores), 0.5) - 1]


def wrapped_layer(kind, pattern, kernel):
    if kind == "dense":
        inputs, layer = keras.Input(kernel.shape[:1]), keras.layers.Dense(kernel.shape[-1])
    else:
        inputs = keras.Input((8, 8, kernel.shape[2]))
        layer = keras.layers.Conv2D(kernel.shape[-1], kernel.shape[:2])
    model = keras.Sequential([inputs, layer])
    layer.kernel.assign(kernel)
    return tfprune.prune_low_magnitude(
        model, tfprune.ConstantSparsity(0.5, begin_step=0), pattern=pattern
    )


@every_pattern
@pytest.mark.parametrize("kind", SHAPES)
def test_same_masks_on_every_backend(name, kind):
    """NumPy says what the masks are; each backend is held to the same."""
    pattern, *truths = POOLED[name]
    truth = truths[list(SHAPES).index(kind)]
    kernel = kernel_of(SHAPES[kind])
    expected = (
        np.ones(kernel.shape, bool)
        if truth is None
        else half_of(truth(np.abs(kernel.astype("float64"))))
    )
    model = wrapped_layer(kind, pattern, kernel)
    tfprune.UpdatePruningStep(model)
    (weight,) = model.layers[0].pruned_weights
    mask = ops.convert_to_numpy(weight.mask)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(weight.variable), np.where(expected, kernel, 0)
    )
    assert keras.backend.standardize_dtype(weight.mask.dtype) == "bool"


# -- Saving ----------------------------------------------------------------------------------------


def small_model():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6, 6, 8)),
            keras.layers.Conv2D(8, 3, activation="relu", name="conv"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, name="last"),
        ]
    )


def data(samples):
    random = np.random.default_rng(2)
    x = random.normal(size=(samples, 6, 6, 8)).astype("float32")
    return x, x.mean(axis=(1, 2))[:, :3]


def pruned_weights(model):
    return [
        weight
        for layer in model.layers
        if isinstance(layer, tfprune.PruneLowMagnitude)
        for weight in layer.pruned_weights
    ]


@every_part
def test_saved_in_a_model(module, cls, tmp_path):
    part = example(cls)
    parts = {schedules: "pruning_schedule", patterns: "pattern", criteria: "criterion"}
    arguments = {"pruning_schedule": tfprune.ConstantSparsity(0.5, 0)}
    arguments[parts.get(module, "scope")] = part
    model = small_model()
    rules = [tfprune.Rule("last", prune=False)]
    pruned = tfprune.prune_low_magnitude(model, rules=rules, **arguments)
    pruned.compile("sgd", "mse")
    for weight in pruned_weights(pruned):
        # As training would: some criteria go by how far weights have moved.
        moved = ops.convert_to_numpy(weight.variable)
        weight.variable.assign(moved + np.random.default_rng(3).normal(size=moved.shape) * 0.1)
    tfprune.UpdatePruningStep(pruned, data=data(16))
    pruned.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x, _ = data(4)
    np.testing.assert_array_equal(outputs(loaded, x), outputs(pruned, x))
    pairs = list(zip(pruned_weights(pruned), pruned_weights(loaded), strict=True))
    assert len(pairs) == 2
    for before, after in pairs:
        assert after.method == before.method
        assert (
            after.method.scope == scopes.get(part)
            if module in SCOPES
            else part in vars(after.method).values()
        )
        np.testing.assert_array_equal(
            ops.convert_to_numpy(after.mask), ops.convert_to_numpy(before.mask)
        )


class Recorder(keras.callbacks.Callback):
    """Saves the whole model after every batch and every epoch, with the steps done by then."""

    def __init__(self, folder, name):
        super().__init__()
        self.folder, self.name, self.files, self.batches = folder, name, {}, 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.save("batch")

    def on_epoch_end(self, epoch, logs=None):
        self.save("epoch")

    def save(self, when):
        path = self.folder / f"{self.name}_{when}_{self.batches:02}.keras"
        self.model.save(path)
        self.files[path] = self.batches


SCHEDULE = tfprune.PolynomialDecay(0.1, 0.8, begin_step=2, end_step=7, frequency=2)


def sparsity_held_at(step):
    """What the masks hold after the update at `step`; `None` before the first."""
    due, sparsity = SCHEDULE.evaluate(np.arange(step + 1))
    passed = sparsity[due]
    return passed[-1] if passed.size else None


@pytest.mark.parametrize(
    ("pattern", "scope", "optimizer"),
    [
        ("unstructured", "local", "adam"),
        (
            POOLED["filter"][0],
            "local",
            lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        ),
        pytest.param(
            tfprune.Block((2, 2)),
            "local",
            lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
            marks=SLOW_ON_TENSORFLOW,
        ),
        pytest.param("unstructured", "global", "rmsprop", marks=SLOW_ON_TENSORFLOW),
    ],
    ids=["unstructured", "filter", "block", "global"],
)
def test_every_file_saved_in_training_is_exactly_sparse(tmp_path, pattern, scope, optimizer):
    model = tfprune.prune_low_magnitude(small_model(), SCHEDULE, pattern=pattern, scope=scope)
    model.compile(optimizer if isinstance(optimizer, str) else optimizer(), "mse")
    before, after = Recorder(tmp_path, "before"), Recorder(tmp_path, "after")
    checkpoints = [
        keras.callbacks.ModelCheckpoint(
            tmp_path / (name + "_{epoch:02d}-{batch:02d}.keras"), save_freq=1
        )
        for name in ("first", "last")
    ]
    x, y = data(40)
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=2,
        verbose=0,
        callbacks=[before, checkpoints[0], tfprune.UpdatePruningStep(), checkpoints[1], after],
    )
    files = {**before.files, **after.files}
    for checkpoint in ("first", "last"):
        for epoch, batch in np.ndindex(2, 5):
            files[tmp_path / f"{checkpoint}_{epoch + 1:02}-{batch + 1:02}.keras"] = (
                5 * epoch + batch + 1
            )
    assert len(files) == len(list(tmp_path.iterdir())) == 2 * (10 + 2) + 2 * 10
    for path, step in files.items():
        loaded = keras.saving.load_model(path)
        # Callbacks that stand before UpdatePruningStep see the masks of the step before.
        early = path.name.startswith(("before_batch", "first"))
        sparsity = sparsity_held_at(step - 1 if early else step)
        check_exactly_sparse(loaded, sparsity, scope, path.name)
        assert {layer.pruning_step for layer in owners(loaded)} == {step}
    assert history.history["sparsity"] == [
        zero_share(keras.saving.load_model(tmp_path / f"after_epoch_{step:02}.keras"))
        for step in (5, 10)
    ]
    plain = tfprune.strip_pruning(model)
    np.testing.assert_array_equal(outputs(plain, x), outputs(model, x))


def owners(model):
    return [layer for layer in model.layers if isinstance(layer, tfprune.PruneLowMagnitude)]


def unit_counts(model):
    """`(units, kept units)` for each mask."""
    counts = []
    for weight in pruned_weights(model):
        mask = ops.convert_to_numpy(weight.mask)
        units = weight.method.pattern.collapse(mask, weight.axes.resolve(mask.ndim))
        counts.append((units.size, np.count_nonzero(units)))
    return counts


def check_exactly_sparse(model, sparsity, scope, name):
    for weight in pruned_weights(model):
        mask, value = (ops.convert_to_numpy(v) for v in (weight.mask, weight.variable))
        assert not value[~mask].any() and not np.signbit(value[~mask]).any(), name
        assert value[mask].all(), name
    counts = unit_counts(model)
    if sparsity is None:
        assert all(kept == units for units, kept in counts), name
    elif scope == "local":
        assert all(kept == masks.kept_count(units, sparsity) for units, kept in counts), name
    else:
        units, kept = map(sum, zip(*counts, strict=True))
        assert kept == masks.kept_count(units, sparsity), name


def zero_share(model):
    """Share of zeros among the weights that are pruned."""
    values = [ops.convert_to_numpy(weight.variable) for weight in pruned_weights(model)]
    zeros = sum(value.size - np.count_nonzero(value) for value in values)
    return zeros / sum(value.size for value in values)


def test_training_without_the_callback_says_so():
    """On JAX the weights would not stay sparse, so there it is an error."""
    model = tfprune.prune_low_magnitude(small_model(), tfprune.ConstantSparsity(0.5, 0))
    model.compile("sgd", "mse")
    x, y = data(8)
    line = (
        r"Expected .*UpdatePruningStep.* Received: .*callbacks=\[tfprune\.UpdatePruningStep\(\)\]"
    )
    if BACKEND == "jax":
        with pytest.raises(ValueError, match=line):
            model.fit(x, y, verbose=0)
    else:
        with pytest.warns(UserWarning, match=line):
            model.fit(x, y, verbose=0)


def test_backend_is_the_one_asked_for():
    kinds = {"tensorflow": "tensorflow", "jax": "jaxlib", "torch": "torch"}
    assert type(ops.zeros(1)).__module__.split(".")[0] == kinds[BACKEND]

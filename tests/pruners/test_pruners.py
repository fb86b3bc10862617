"""One-shot pruners and AGP against NumPy; every criterion with every pattern."""

import io
import itertools
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras_support import outputs

import tfprune
from tfprune import criteria, patterns, pruners, schedules
from tfprune._updates.evidence import Evidence
from tfprune._wrapping.wrapper import mask_owners
from tfprune.pruners import recipes

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 8, 8, 3)).astype("float32")
Y = RANDOM.integers(0, 5, 32)


def network():
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(12, 3, name="first"),
            layers.BatchNormalization(name="norm_1"),
            layers.ReLU(),
            layers.Conv2D(10, 3, activation="relu", name="second"),
            layers.Conv2D(14, 3, use_bias=False, name="third"),
            layers.BatchNormalization(name="norm_3"),
            layers.Flatten(),
            layers.Dense(5, name="head"),
        ]
    )
    for name in ("norm_1", "norm_3"):
        gamma = model.get_layer(name).gamma
        gamma.assign(RANDOM.normal(size=gamma.shape))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def masks_of(model):
    return {
        owner.name: ops.convert_to_numpy(owner.pruned_weights[0].mask)
        for owner in mask_owners(model)
    }


def kept_filters(mask):
    """Which output channels are kept; whole filters only."""
    flat = mask.reshape(-1, mask.shape[-1])
    assert (flat.all(axis=0) | ~flat.any(axis=0)).all()
    return flat[0]


def kernel(model, name):
    value = ops.convert_to_numpy(model.get_layer(name).kernel).astype("float64")
    return value.reshape(-1, value.shape[-1])


def active(model, name):
    output = outputs(keras.Model(model.inputs, model.get_layer(name).output), X)
    return np.maximum(output, 0).reshape(-1, output.shape[-1])


CONVOLUTIONS = ("first", "second", "third")
FILTER_SCORES = {
    "fpgm": lambda m, n: [np.linalg.norm(kernel(m, n).T - f, axis=1).sum() for f in kernel(m, n).T],
    "l1_filter": lambda m, n: np.abs(kernel(m, n)).sum(axis=0),
    "l2_filter": lambda m, n: np.linalg.norm(kernel(m, n), axis=0),
    "activation_apoz_rank": lambda m, n: -(active(m, n) == 0).mean(axis=0),
    "activation_mean_rank": lambda m, n: active(m, n).mean(axis=0),
}


@pytest.mark.parametrize("name", FILTER_SCORES)
def test_filters_with_the_lowest_scores_of_each_convolution_go(name):
    model = network()
    needs = {"data": (X, Y), "batches": 2, "batch_size": 16} if "activation" in name else {}
    masks = masks_of(getattr(pruners, name)(model, 0.5, **needs))
    assert tuple(masks) == CONVOLUTIONS
    for layer, mask in masks.items():
        scores, kept = np.array(FILTER_SCORES[name](model, layer)), kept_filters(mask)
        assert kept.sum() == kept.size // 2
        assert scores[kept].min() >= scores[~kept].max() - 1e-6


def test_slim_has_one_threshold_on_all_scales():
    model = network()
    masks = masks_of(pruners.slim(model, 0.5))
    assert tuple(masks) == ("first", "third")
    scales = {
        layer: np.abs(ops.convert_to_numpy(model.get_layer(norm).gamma))
        for layer, norm in (("first", "norm_1"), ("third", "norm_3"))
    }
    kept = {layer: kept_filters(mask) for layer, mask in masks.items()}
    assert sum(k.sum() for k in kept.values()) == 13
    lowest_kept = min(scales[layer][kept[layer]].min() for layer in kept)
    assert all(scales[layer][~kept[layer]].max() <= lowest_kept for layer in kept)


def test_taylor_sums_squared_products_over_filters():
    model = network()
    pruned = pruners.taylor_fo_weight(model, 0.5, data=(X, Y), batches=2, batch_size=16)
    masks = masks_of(pruned)
    # tests/_updates/test_evidence.py holds the gradients to NumPy.
    plain = tfprune.prune_low_magnitude(
        model, criterion="taylor", rules=[tfprune.Rule("head", prune=False)]
    )
    weights = [w for owner in mask_owners(plain) for w in owner.pruned_weights]
    found = Evidence(plain, (X, Y), 2, 16, compiled=model)(weights)
    scores = {
        weight.layer.name: (
            ops.convert_to_numpy(weight.variable).astype("float64") ** 2
            * found[id(weight)]["gradient_square"]
        )
        .reshape(-1, weight.variable.shape[-1])
        .sum(axis=0)
        for weight in weights
    }
    kept = {layer: kept_filters(mask) for layer, mask in masks.items()}
    assert sum(k.sum() for k in kept.values()) == 18
    lowest = min(scores[layer][kept[layer]].min(initial=np.inf) for layer in kept)
    for layer, k in kept.items():
        if k.sum() > 1:  # a layer never loses its last filter
            assert scores[layer][~k].max(initial=0) <= lowest * (1 + 1e-4)


def test_level_prunes_the_smallest_weights_of_every_layer():
    model = network()
    masks = masks_of(pruners.level(model, 0.7))
    assert tuple(masks) == (*CONVOLUTIONS, "head")
    for layer, mask in masks.items():
        sizes = np.abs(kernel(model, layer)).ravel()
        assert mask.sum() == sizes.size - round(0.7 * sizes.size)
        assert sizes[mask.ravel()].min() >= sizes[~mask.ravel()].max()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_pass_over_data_shows_progress(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    model = network()
    arguments = {"data": (X, Y), "batches": 4, "batch_size": 8}
    pruners.taylor_fo_weight(model, 0.5, **arguments)
    assert "4/4" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", Terminal())
    pruners.taylor_fo_weight(model, 0.5, verbose=0, **arguments)
    pruners.l1_filter(model, 0.5)
    assert sys.stderr.getvalue() == ""


def test_every_recipe_leaves_the_model_as_it_was():
    model = network()
    before = model.get_weights()
    for name in recipes.RECIPES:
        getattr(pruners, name)(model, 0.5, data=(X, Y), batches=1)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.compiled and model.optimizer.iterations == 0


@pytest.mark.parametrize("name", ["taylor_fo_weight", "slim", "level"])
def test_masks_hold_through_fine_tuning_without_the_data(name):
    model = network()
    pruned = getattr(pruners, name)(model, 0.5, data=(X, Y))
    before = masks_of(pruned)
    pruned.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = pruned.fit(X, Y, epochs=2, verbose=0, callbacks=[tfprune.UpdatePruningStep()])
    for layer, mask in masks_of(pruned).items():
        np.testing.assert_array_equal(mask, before[layer])
        assert not kernel(tfprune.strip_pruning(pruned), layer)[
            ~mask.reshape(-1, mask.shape[-1])
        ].any()
    assert len(set(history.history["sparsity"])) == 1


def test_rules_take_layers_in_and_out():
    rules = [tfprune.Rule("first", prune=False), tfprune.Rule(layers.Dense)]
    assert tuple(masks_of(pruners.l1_filter(network(), 0.5, rules=rules))) == (
        "second",
        "third",
        "head",
    )
    own = [tfprune.Rule("second", schedule=tfprune.ConstantSparsity.one_shot(0.2))]
    masks = masks_of(pruners.l1_filter(network(), 0.5, rules=own))
    assert [kept_filters(mask).mean() for mask in masks.values()] == [0.5, 0.8, 0.5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: pruners.taylor_fo_weight(m, 0.5), r"'gradient_square'.*Give data="),
        (lambda m: pruners.activation_apoz_rank(m, 0.5), r"'activation_zeros'.*Give data="),
        (lambda m: pruners.level(m, 90), r"did you mean 0\.9"),
        (lambda m: pruners.one_shot(m, 0.5, criterion="movement"), r"moved since.*begin_step"),
        (lambda m: pruners.one_shot(m, 0.5, criterion="movmag"), r"moved since"),
        (lambda m: pruners.one_shot(m, 0.5, criterion="magnitude_increase"), r"moved since"),
        (lambda m: pruners.level(m, 0.5, rules=[tfprune.Rule("x")]), r"matches none"),
        (lambda m: pruners.agp(m, 0.5), r"either `end_step` or `epochs`"),
        (lambda m: pruners.agp(m, 0.5, 10, epochs=2, steps_per_epoch=3), r"either `end_step`"),
        (lambda m: pruners.agp(m, 0.5, 9, steps_per_epoch=3), r"either `end_step`"),
        (lambda m: pruners.agp(m, 0.5, epochs=2, begin_step=1), r"`begin_step` to be 0"),
        (lambda m: pruners.agp(m, 0.5, 10, recipe="l3"), r"`recipe` to be one of 'level'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=rf"Expected .*{message}"):
        call(network())


def test_slim_without_batch_normalization():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match=r"BatchNormalization, whose scale Slim uses.*l1_filter"):
        pruners.slim(model, 0.5)


def test_filters_of_a_model_without_convolutions():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    with pytest.raises(ValueError, match=r"Expected"):
        pruners.l1_filter(model, 0.5)


# -- AGP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_agp_follows_the_cubic_curve_with_every_recipe(recipe):
    pruned = pruners.agp(network(), 0.6, 8, recipe=recipe, frequency=2)
    pruned.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            masks = masks_of(self.model)
            units = [m if recipe == "level" else kept_filters(m) for m in masks.values()]
            seen.append(sum(u.sum() for u in units) / sum(u.size for u in units))

    pruned.fit(
        X,
        Y,
        batch_size=8,
        epochs=3,
        verbose=0,
        callbacks=[tfprune.UpdatePruningStep(data=(X, Y)), Look()],
    )
    total = 36 if recipe not in ("level", "slim") else None
    for step in (2, 4, 6, 8, 12):
        progress = min(step, 8) / 8
        sparsity = 0.6 - 0.6 * (1 - progress) ** 3
        # Whole filters of three layers: half a filter each at the most.
        assert abs(1 - seen[step - 1] - sparsity) <= (1.5 / total if total else 0.5 / 26)


def test_agp_by_epochs():
    by_steps = pruners.agp(network(), 0.5, 60, begin_step=10, frequency=5)
    by_epochs = pruners.agp(
        network(), 0.5, epochs=3, steps_per_epoch=20, begin_step=10, frequency=5
    )
    schedule = [mask_owners(m)[0].pruned_weights[0].method.schedule for m in (by_steps, by_epochs)]
    assert schedule[0] == schedule[1] == tfprune.PolynomialDecay(0.0, 0.5, 10, 60, 3, 5)


def test_agp_by_epochs_of_unknown_length_counts_the_steps_when_fit_begins():
    model = pruners.agp(network(), 0.5, epochs=2)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callbacks = [tfprune.UpdatePruningStep()]
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    owner = mask_owners(model)[0]
    assert owner.pruning_step == 8
    for mask in masks_of(model).values():
        assert mask.sum() == round(mask.size / 2)


# -- The whole grid --------------------------------------------------------------------------------

PATTERNS = {
    "unstructured": "unstructured",
    "block": tfprune.Block((2, 2)),
    "n_of_m": tfprune.NOfM(2, 4),
    "filter": "filter",
    "channel": "channel",
    "kernel": "kernel",
    "row": "row",
    "column": "column",
    "slice": tfprune.Slice((0,)),
}
SCHEDULES = {
    "PolynomialDecay": tfprune.PolynomialDecay(0.0, 0.5, 0, 3, frequency=1),
    "ConstantSparsity": tfprune.ConstantSparsity(0.5, 1, frequency=1),
    "Exponential": tfprune.Exponential(0.0, 0.5, 0, 3, frequency=1),
    "Iterative": tfprune.Iterative(0.0, 0.5, 0, 3, n_steps=3, frequency=1),
    "Cosine": tfprune.Cosine(0.0, 0.5, 0, 3, frequency=1),
    "OneCycle": tfprune.OneCycle(0.0, 0.5, 0, 3, frequency=1),
    "DenseSparseDense": tfprune.DenseSparseDense(0.0, 0.5, 0, 6, frequency=1),
}


def small():
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(8, name="dense"),
            layers.BatchNormalization(),
        ]
    )
    return model


IMAGES = RANDOM.normal(size=(16, 6, 6, 4)).astype("float32")
TARGETS = RANDOM.normal(size=(16, 8)).astype("float32")


def check_grid(schedule, criterion, pattern, scope):
    model = tfprune.prune_low_magnitude(
        small(), schedule, pattern=PATTERNS[pattern], scope=scope, criterion=criterion
    )
    model.compile("sgd", "mse")
    for owner in mask_owners(model):
        for weight in owner.pruned_weights:
            moved = ops.convert_to_numpy(weight.variable)
            weight.variable.assign(moved + RANDOM.normal(size=moved.shape) * 0.1)
    # In a custom loop, which compiles nothing.
    pruning = tfprune.UpdatePruningStep(model, data=(IMAGES, TARGETS), batch_size=16)
    for _ in range(3):
        pruning.step()
    weights = [w for owner in mask_owners(model) for w in owner.pruned_weights]
    units = pruned = 0
    for weight in weights:
        mask = ops.convert_to_numpy(weight.mask)
        assert not ops.convert_to_numpy(weight.variable)[~mask].any()
        axes = weight.axes.resolve(mask.ndim)
        kept = weight.method.pattern.collapse(mask, axes)
        spread = weight.method.pattern.expand(kept, mask.shape, axes)
        np.testing.assert_array_equal(spread, mask)
        units, pruned = units + kept.size, pruned + int((~kept).sum())
        if scope == "local":
            assert (~kept).sum() == kept.size - max(1, round(kept.size / 2))
    assert abs(pruned - units / 2) <= 1


def pairs_of_the_grid():
    """Every pattern in both scopes; a plain `pytest` takes weights locally and filters globally."""
    quick = ("unstructured", "local"), ("filter", "global")
    for pair in itertools.product(patterns.built_in(), ("local", "global")):
        yield pytest.param(*pair, marks=[] if pair in quick else pytest.mark.slow)


@pytest.mark.parametrize(("pattern", "scope"), list(pairs_of_the_grid()))
def test_every_criterion_with_every_pattern(pattern, scope):
    """On a convolution and a Dense layer; the schedule is the same, as it only gives a number."""
    for criterion in dict.fromkeys(criteria.built_in()):
        check_grid(SCHEDULES["PolynomialDecay"], criterion, pattern, scope)


@pytest.mark.parametrize("cls", schedules.built_in().values(), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("scope", ["local", "global"])
def test_every_schedule_with_criteria_and_patterns(cls, scope):
    for criterion, pattern in (("magnitude", "filter"), ("taylor", "row"), ("random", "channel")):
        check_grid(SCHEDULES[cls.__name__], criterion, pattern, scope)

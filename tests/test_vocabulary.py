"""One vocabulary: names and order of arguments, patterns of names, and old spellings."""

import fnmatch
import inspect
import warnings

import keras
import numpy as np
import pytest

import tfprune
from tfprune._base import globs
from tfprune._base.renamed import renamed

ORDER = ("schedule", "pattern", "criterion", "scope", "rules")
# Those of Keras, which its users know: ModelCheckpoint, TensorBoard.
KERAS_NAMES = {"PruningCheckpoint": "filepath", "PruningSummaries": "log_dir"}


def public_callables():
    """`(name, thing)`: all public functions and classes, and the public methods of these."""
    packages = [getattr(tfprune, name) for name in tfprune.__all__]
    modules = [tfprune, *filter(inspect.ismodule, packages)]
    seen = {}
    for module in modules:
        for name in getattr(module, "__all__", vars(module)):
            thing = getattr(module, name)
            own = getattr(thing, "__module__", "").startswith("tfprune.")
            if name.startswith("_") or inspect.ismodule(thing) or not (callable(thing) and own):
                continue
            seen.setdefault(id(thing), (name, thing))
    for name, thing in seen.values():
        yield pytest.param(thing, id=name)
        for inner, method in vars(thing).items() if inspect.isclass(thing) else ():
            if inspect.isfunction(method) and not inner.startswith("_"):
                yield pytest.param(method, id=f"{name}.{inner}")


each_callable = pytest.mark.parametrize("thing", list(public_callables()))


def parameters(thing):
    try:
        return inspect.signature(thing).parameters
    except ValueError:
        return {}


@each_callable
def test_arguments_come_in_one_order(thing):
    given = [name.removeprefix("pruning_") for name in parameters(thing)]
    shared = [name for name in given if name in ORDER]
    assert shared == [name for name in ORDER if name in shared]


@each_callable
def test_files_and_folders_are_called_path(thing):
    if thing.__name__ not in KERAS_NAMES:
        assert not {"folder", "filepath", "filename", "file", "directory"} & set(parameters(thing))


@each_callable
def test_signatures_are_explicit(thing):
    """`**kwargs` are only those of Keras's and KerasHub's functions, or of a schedule's name."""
    open_ended = [p.name for p in parameters(thing).values() if p.kind is p.VAR_KEYWORD]
    if inspect.isclass(thing) and issubclass(thing, keras.layers.Layer):
        return
    keras_own = ("PruningCheckpoint", "PruningSummaries", "call", "load_preset")
    keras_own += ("compute_output_shape", "compute_output_spec")
    assert not open_ended or thing.__name__ in (*keras_own, "from_epochs", "get")


# -- Patterns of names -----------------------------------------------------------------------------

NAMES = ("stem", "body/block_1/conv", "body/block_2/conv", "body/block_2/dense", "head")
MEANT = {
    "*": NAMES,
    "conv": ("body/block_1/conv", "body/block_2/conv"),
    "block_2": ("body/block_2/conv", "body/block_2/dense"),
    "block_2/*": ("body/block_2/conv", "body/block_2/dense"),
    "block_[13]/conv": ("body/block_1/conv",),
    "body/block_2/dense": ("body/block_2/dense",),
    "body": NAMES[1:4],
    "?ead": ("head",),
    "Head": (),
    "block": (),
    "lock_1/conv": (),
}


@pytest.fixture(scope="module")
def model():
    def block(name):
        return keras.Sequential(
            [keras.layers.Dense(4, name="conv"), keras.layers.Dense(4, name="dense")], name=name
        )

    first = keras.Sequential([keras.layers.Dense(4, name="conv")], name="block_1")
    body = keras.Sequential([first, block("block_2")], name="body")
    layers = [keras.layers.Dense(4, name="stem"), body, keras.layers.Dense(4, name="head")]
    made = keras.Sequential([keras.Input((4,)), *layers])
    for variable in made.trainable_variables:
        variable.assign(1 + np.arange(np.prod(variable.shape)).reshape(variable.shape))
    return made


@pytest.mark.parametrize("pattern", MEANT)
def test_rules_distributions_and_analyses_know_the_same_patterns(model, pattern):
    meant = MEANT[pattern]
    assert [name for name in NAMES if globs.matches_within(pattern, name)] == list(meant)
    assert [n for n in NAMES if globs.matches_weight(pattern, f"{n}/kernel")] == list(meant)
    schedule = tfprune.ConstantSparsity.one_shot(0.5)
    none, own = tfprune.Rule("*", prune=False), tfprune.Rule(pattern, schedule=schedule)
    if not meant:
        for use in (
            lambda: tfprune.prune_low_magnitude(model, schedule, rules=[own]),
            lambda: tfprune.sensitivity(model, metric=len_of, layers=pattern, verbose=0),
            lambda: shared_out(model, {"*": 0.5, pattern: 0.25}),
        ):
            with pytest.raises(ValueError, match=r"match|The model has"):
                use()
        return
    pruned = tfprune.prune_low_magnitude(model, schedule, rules=[none, own])
    rows = tfprune.sparsity_report(pruned).rows
    assert [row.layer for row in rows if row.status == "pruned"] == list(meant)
    found = tfprune.sensitivity(model, metric=len_of, layers=pattern, sparsities=[0.5], verbose=0)
    assert [row.layer for row in found.rows] == list(meant)
    zeros = shared_out(model, {"*": 0.0, pattern: 0.5} if pattern != "*" else {"*": 0.5})
    assert [name for name, number in zeros.items() if number] == list(meant)


def len_of(model):
    return float(len(model.weights))


def shared_out(model, sparsities):
    """Zeros of each layer where a distribution shares them out."""
    number = len(MEANT.get(list(sparsities)[-1], ())) or 1
    overall = 0.5 * number / len(NAMES)
    schedule = tfprune.ConstantSparsity.one_shot(overall)
    pruned = tfprune.prune_low_magnitude(model, schedule, scope=tfprune.PerLayer(sparsities))
    tfprune.UpdatePruningStep(pruned)
    return {row.layer: row.zeros for row in tfprune.sparsity_report(pruned).rows}


def test_a_weight_is_meant_by_its_layer_and_its_name_but_not_by_its_name_alone():
    assert globs.matches_weight("dense/kernel", "body/dense/kernel")
    assert globs.matches_weight("body/dense/ker*", "body/dense/kernel")
    assert not globs.matches_weight("kernel", "body/dense/kernel")
    # A layer alone has no path.
    assert globs.matches_weight("kernel", "kernel") == fnmatch.fnmatchcase("kernel", "kernel")


# -- Old spellings ---------------------------------------------------------------------------------


def one_layer():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="only")])
    model.layers[0].kernel.assign(np.arange(16).reshape(4, 4))
    return model


def test_plain_weights_from_a_filepath(tmp_path):
    plain = one_layer()
    plain.save_weights(tmp_path / "plain.weights.h5")
    for name, warned in {"path": 0, "filepath": 1}.items():
        pruned = tfprune.prune_low_magnitude(one_layer())
        pruned.layers[0].inner.kernel.assign(np.zeros((4, 4)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tfprune.load_plain_weights(pruned, **{name: tmp_path / "plain.weights.h5"})
        said = [str(w.message) for w in caught if w.category is DeprecationWarning]
        expected = "`load_plain_weights(filepath=)` is deprecated: use `path=`."
        assert [text for text in said if "tfprune" in text or "path" in text] == [expected] * warned
        np.testing.assert_array_equal(
            tfprune.strip_pruning(pruned).layers[0].kernel, plain.layers[0].kernel
        )


def test_tickets_in_a_folder(tmp_path):
    def train(model, callback):
        model.compile("sgd", "mse")
        model.fit(np.ones((4, 4)), np.ones((4, 4)), verbose=0, callbacks=[callback])
        return {"loss": 0.0}

    lottery = tfprune.LotteryTicket(one_layer(), 0.5, 1)
    with pytest.warns(DeprecationWarning, match=r"`LotteryTicket.run\(folder=\)`.*use `path=`"):
        old = lottery.run(train, folder=tmp_path / "tickets")
    assert (tmp_path / "tickets" / "config.json").exists()
    # Nothing is left to train.
    new = lottery.run(train, path=tmp_path / "tickets")
    assert old.rounds == new.rounds


def test_a_layer_of_a_mask():
    pytest.importorskip("matplotlib")
    with pytest.warns(DeprecationWarning, match=r"`plot_mask\(layer=\)`.*use `layers=`") as caught:
        figure = tfprune.plot_mask(one_layer(), layer="only")
    assert caught[0].filename == __file__
    assert len(figure.axes) == len(tfprune.plot_mask(one_layer(), layers="on*").axes) == 1


def test_an_argument_by_both_names():
    @renamed(old="new")
    def function(new):
        return new

    assert function(1) == function(new=1) == 1
    with pytest.raises(TypeError, match="Leave old out: new replaces it"):
        function(new=1, old=2)
    assert list(inspect.signature(function).parameters) == ["new"]

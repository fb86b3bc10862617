"""Makes layers sparse where that pays."""

import warnings
from dataclasses import dataclass, replace

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.progress import progress
from tfprune._formats.examples import fitting_inputs
from tfprune._formats.processors import limited_to
from tfprune._keras.checks import check_model
from tfprune._layers.registry import own_prunable_weights
from tfprune._wrapping.strip import strip_pruning
from tfprune.sparse.forms import has_form, sparse_form, zero_share
from tfprune.sparse.layers import SparseInside
from tfprune.sparse.layers.base import not_for_training
from tfprune.sparse.plan import LayerChoice, SparsePlan
from tfprune.sparse.sparse_model import with_sparse_layers
from tfprune.sparse.timing import race

PREFER = ("speed", "size")
# Gains below are noise.
_LEAST_GAIN = 1.05


def to_sparse(model, x=None, *, threads=None, prefer="speed", runs=15, verbose=1):
    """Makes a model whose pruned layers store and multiply only nonzero weights.

    Each Dense, EinsumDense and convolution with at least half of its weights at zero is timed in
    both forms on its inputs for the batch `x`; the faster form is kept. The size of `x` therefore
    matters: pass a batch like those in production. The result predicts, saves and loads like any
    Keras model, but cannot be trained.

    Args:
        model: A built model, wrapped or plain. It is not changed. A model of your own class needs
            a `get_config` by which Keras can copy it.
        x: One batch of inputs: an array, a data set whose first batch is taken, or anything else
            that `fit` takes. Random numbers of batch size 1 by default.
        threads: Number of threads to time with; by default, as many as the backend uses.
            TensorFlow and JAX fix this number when they start, so they are restricted to as many
            processors.
        prefer: "speed" times each layer; "size" makes each layer sparse that then takes fewer
            bytes, without timing.
        runs: Number of rounds in which a layer is timed.
        verbose: 1 shows a progress bar on a terminal, 0 does not.

    Returns:
        A Keras model, uncompiled; one of your own class keeps this class and its methods.
        `plan_sparse` also lists which layers are sparse, and why.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If the model is not built, cannot be copied, or does not fit `x`; or if an
            argument is unknown.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    >>> pruned = tfprune.pruners.one_shot(model, 0.95)
    >>> sparse = tfprune.to_sparse(pruned, prefer="size")
    >>> type(sparse.layers[0]).__name__
    'SparseDense'
    """
    plan = plan_sparse(model, x, threads=threads, prefer=prefer, runs=runs, verbose=verbose)
    if not any(row.sparse for row in plan.rows):
        reasons = sorted({row.reason for row in plan.rows}) or ["it has no layer with a kernel"]
        warnings.warn(
            f"to_sparse left every layer of '{model.name}' dense: {'; '.join(reasons)}. "
            "print(tfprune.plan_sparse(model, x)) shows the measurements.",
            stacklevel=2,
        )
    return plan.apply()


def plan_sparse(model, x=None, *, threads=None, prefer="speed", runs=15, verbose=1):
    """Plans `to_sparse`: which layers become sparse, and how much each gains.

    See `to_sparse` for the arguments and errors.

    Returns:
        A `SparsePlan`: `print` it for a table, `apply()` it for the model.

    Example:

    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, name="wide")])
    >>> plan = tfprune.plan_sparse(tfprune.pruners.one_shot(model, 0.95), prefer="size")
    >>> plan.rows[0].layer, plan.rows[0].sparse
    ('wide', True)
    """
    check_model(model)
    check.choice("prefer", prefer, PREFER)
    runs = check.integer("runs", runs, 1, "Use for instance 15.")
    if threads is not None:
        threads = check.integer("threads", threads, 1, "Use for instance 1, or None for all.")
    plain = strip_pruning(model)
    inputs = _batch(plain, x)
    with limited_to(threads):
        candidates = _candidates(plain, inputs)
        if prefer == "speed":
            candidates = _all_timed(candidates, runs, verbose)
        chosen = {id(c.layer): c.form for c in candidates if c.choice.sparse}
        if not chosen:
            return SparsePlan([c.choice for c in candidates], plain)
        sparse = _assembled(plain, chosen, inputs)
        rows = [candidate.choice for candidate in candidates]
        if prefer == "size":
            return SparsePlan(rows, sparse)
        whole = race(plain, sparse, [inputs], runs)
    if whole.gain * _LEAST_GAIN < 1:
        slower = "faster alone, but the whole model is slower"
        rows = [replace(row, sparse=False, reason=slower) if row.sparse else row for row in rows]
        return SparsePlan(rows, plain, whole)
    return SparsePlan(rows, sparse, whole)


def _batch(model, x):
    number = 1
    if x is not None:
        arrays = keras.tree.flatten(x)
        number = len(arrays[0]) if hasattr(arrays[0], "shape") else 1 << 31
    return keras.tree.map_structure(
        keras.ops.convert_to_tensor, fitting_inputs(model, x, max(1, number))
    )


# -- Choosing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    """A layer with a kernel.

    Attributes:
        layer: The layer.
        calls: List of its inputs.
        form: The sparse layer; `None` if there is none.
        choice: The `LayerChoice`.
    """

    layer: object
    calls: list
    form: object
    choice: LayerChoice


def _candidates(model, inputs):
    chains = [chain for chain in _keras.walk(model) if own_prunable_weights(chain[-1][1])]
    calls: dict = {id(chain[-1][1]): [] for chain in chains}
    watched = [chain[-1][1] for chain in chains if has_form(chain[-1][1])]
    with _keras.watched_calls(watched, lambda layer, args, _: calls[id(layer)].append(args[0])):
        model(inputs, training=False)
    whole = None if _is_plain_graph(model) else model
    return [_candidate(chain, calls[id(chain[-1][1])], whole) for chain in chains]


def _candidate(chain, calls, whole):
    """Returns the candidate at the end of a chain; `whole` is the model if it keeps its class."""
    path, layer = chain[-1]
    if calls:
        form = _unreachable(whole or _outermost(chain), layer) or sparse_form(
            layer, tuple(calls[0].shape)
        )
    else:
        form = "is not called" if has_form(layer) else sparse_form(layer, ())
    zeros = zero_share(layer) if has_form(layer) and layer.built else 0.0
    kind = type(layer).__name__
    if isinstance(form, str):
        return _Candidate(layer, calls, None, LayerChoice(path, kind, zeros, False, form))
    return _Candidate(layer, calls, form, LayerChoice(path, kind, zeros, True, "fewer bytes"))


def _unreachable(holder, layer):
    """Returns why a layer cannot be replaced in the layer or model around; `None` if it can."""
    if holder is layer or _keras.can_put_inside(holder, layer):
        return None
    return f"held by a {type(holder).__name__} in a way that allows no other layer"


def _outermost(chain):
    """The first layer of a chain that is not a graph of layers."""
    return next(layer for _, layer in chain if not _is_plain_graph(layer))


def _is_plain_graph(layer):
    return _keras.is_graph(layer) and not _keras.keeps_class(layer)


def _place(outer, layer):
    return _keras.places(outer)[id(layer)]


def _all_timed(candidates, runs, verbose):
    found = []
    with progress(len(candidates), "layers timed", verbose) as done:
        for candidate in candidates:
            found.append(candidate if candidate.form is None else _timed(candidate, runs))
            done()
    return found


def _timed(candidate, runs):
    result = race(candidate.layer, candidate.form, candidate.calls, runs)
    faster = result.gain >= _LEAST_GAIN
    slower = "slower" if result.gain * _LEAST_GAIN < 1 else "no faster"
    choice = replace(
        candidate.choice,
        sparse=faster,
        reason="faster" if faster else slower,
        dense_seconds=result.dense,
        sparse_seconds=result.sparse,
        gain=result.gain,
    )
    return replace(candidate, choice=choice)


# -- Assembling ------------------------------------------------------------------------------------


def _assembled(model, chosen, inputs):
    """Returns a copy of a model with sparse layers in place of the chosen ones."""
    if not _is_plain_graph(model):
        sparse = with_sparse_layers(_keras.clone_as_it_is(model), _forms_inside(model, chosen))
        _check_runs(sparse, inputs)
        return sparse

    def make(layer):
        if id(layer) in chosen:
            return None, None, chosen[id(layer)]
        forms = _forms_inside(layer, chosen)
        if not forms:
            clone = _keras.bare_clone(layer)
            return layer, clone, clone
        made = SparseInside(_keras.clone_layer(layer), forms)
        made.build()
        return None, None, made

    sparse = _keras.clone_graph(model, make)
    _keras.before_training(sparse, _refuse_training)
    return sparse


def _check_runs(model, inputs):
    """Raises if code of a model does more with its layers than to call them."""
    try:
        model(inputs, training=False)
    except AttributeError as error:
        raise ValueError(
            check.message(
                f"{type(model).__name__}.call() to read no weights of layers that become sparse",
                str(error),
                "Call the layer instead, or give its kernel fewer than half of zeros, so that it "
                "stays dense: tfprune.Rule(layer, prune=False).",
            )
        ) from error


def _forms_inside(holder, chosen):
    """Returns `{place: (sparse layer, input shape)}` of the chosen layers in a layer or model."""
    inside = [part for part in _keras.flatten(holder) if id(part) in chosen]
    return {
        _place(holder, part): (chosen[id(part)], _input_shape(chosen[id(part)])) for part in inside
    }


def _refuse_training(model):
    # Layers refuse too, but JAX's fit takes the values out of the variables before it calls them.
    raise ValueError(not_for_training(f"fit of '{model.name}'"))


def _input_shape(form):
    return form.get_build_config()["input_shape"]

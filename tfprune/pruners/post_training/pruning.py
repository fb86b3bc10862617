"""One pruning without training, block by block."""

import math
import time

import keras
import numpy as np

from tfprune import _keras, patterns
from tfprune._base import validation as check
from tfprune._base.progress import progress
from tfprune._keras.checks import check_model
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.mask_set import keep_masks
from tfprune.patterns.single_weights import NOfM, Unstructured
from tfprune.prune import prune_low_magnitude
from tfprune.pruners.post_training import calibration
from tfprune.pruners.post_training.block_calls import BlockCalls
from tfprune.pruners.post_training.blocks import named_layers
from tfprune.pruners.post_training.outliers import divided
from tfprune.pruners.post_training.owl import Owl
from tfprune.pruners.post_training.plan import make_plan, sparsities_of
from tfprune.pruners.post_training.products import product_of
from tfprune.pruners.post_training.result import BlockResult, PostTrainingResult
from tfprune.pruners.post_training.statistics import InputStatistics, padding_of, watch
from tfprune.pruners.records import RecordStore


def prune_blocks(
    method, model, sparsity, data, *, pattern, distribution, blocks, layers, path, verbose
):
    """Prunes a copy of a model; see `tfprune.pruners.wanda` for the arguments.

    Args:
        method: One of `methods`.

    Returns:
        A `PostTrainingResult`.
    """
    check_model(model)
    _check_not_quantized(model)
    pattern = _checked_pattern(pattern)
    planned = make_plan(model, blocks, layers, pattern)
    sparsities = sparsities_of(sparsity, planned.blocks, pattern)
    if distribution is not None:
        _check_distribution(distribution, sparsity, pattern)
    data = None if data is None else calibration.get(data)
    if data is None and (method.needs_data or distribution is not None):
        raise ValueError(
            check.message(
                "calibration data",
                "None",
                "Give texts, tokens or arrays.",
            )
        )
    batches = None if data is None else data.batches(model)
    if batches is not None:
        flow = BlockCalls(model, [block.layer for block in planned.blocks], batches)
        planned.blocks.sort(key=lambda block: _place(block.layer, flow.blocks))
        if not isinstance(sparsity, (list, tuple)) and distribution is not None:
            sparsities = divided(distribution, float(sparsity), planned.blocks, flow, batches)
    for block, own in zip(planned.blocks, sparsities, strict=True):
        block.sparsity = own
    pruned = prune_low_magnitude(model, **planned.arguments(method, pattern, sparsities[0]))
    store = RecordStore(path, _identity(method, model, planned, pattern, data, batches), "blocks")
    work = BlockPruning(method, pattern, model, pruned, planned.blocks, store)
    rows, notes = work.run(batches, verbose)
    return PostTrainingResult(method.name, pruned, rows, notes, planned.left_dense)


class BlockPruning:
    """Prunes the blocks of a wrapped copy in turn.

    Args:
        method: One of `methods`.
        pattern: `Unstructured` or `NOfM`.
        model: The plain model.
        pruned: Its wrapped copy.
        blocks: The `PlannedBlock`s of the plain model, in running order.
        store: `RecordStore` of the blocks that are done.
    """

    def __init__(self, method, pattern, model, pruned, blocks, store):
        self._method, self._pattern, self._store = method, pattern, store
        self._pruned = pruned
        self._blocks = blocks
        pairs = zip(named_layers(model), named_layers(pruned), strict=True)
        self._copies = {id(layer): copy for (_, layer), (_, copy) in pairs}
        update = MaskUpdate(pruned)
        self._owners = update.owners
        self._masked = {id(weight.variable): weight for weight in update.weights}

    def run(self, batches, verbose):
        """Returns the `BlockResult`s and the notes."""
        copies = [self._copies[id(block.layer)] for block in self._blocks]
        flow = None if batches is None else BlockCalls(self._pruned, copies, batches)
        rows, notes = [], {}
        with progress(len(self._blocks), "blocks", verbose) as done:
            for number, (block, copy) in enumerate(zip(self._blocks, copies, strict=True)):
                calls = [] if flow is None else flow.calls(number)
                name = f"block_{number:04}"
                if name in self._store:
                    self._restore(block, self._store.arrays(name))
                else:
                    self._prune(name, block, copy, calls, batches)
                if flow is not None:
                    flow.passed([_held(call.run(copy)) for call in calls])
                data = self._store.data(name)
                rows.append(BlockResult(**data["row"]))
                notes.update(data["notes"])
                done()
        keep_masks(self._owners)
        return rows, notes

    def _prune(self, name, block, copy, calls, batches):
        start = time.perf_counter()
        products = {w.name: product_of(self._copy(w), w.entry) for w in block.weights}
        statistics = {
            name: InputStatistics(product, self._method.needs_hessian)
            for name, product in products.items()
        }
        masks = [padding_of(batches[call.batch]) for call in calls]
        before = watch(statistics, calls, lambda call: _held(call.run(copy)), masks)
        found, notes = {}, {}
        for weight in block.weights:
            product = products[weight.name]
            found[weight.name] = self._method.prune(
                product,
                weight.kernel,
                statistics[weight.name],
                block.sparsity,
                self._pattern,
                weight.name,
            )
            if found[weight.name].note:
                notes[weight.name] = found[weight.name].note
        for weight in block.weights:
            self._wrapped(weight).set_mask(found[weight.name].mask)
        alone = _error(before, calls, copy)
        error = alone
        if self._method.changes_weights:
            for weight in block.weights:
                self._assign(weight, found[weight.name].kernel)
            error = _error(before, calls, copy)
        row = {
            "name": block.name,
            "weights": block.size,
            "zeros": sum(int(np.sum(~one.mask)) for one in found.values()),
            "error_of_masks": alone,
            "error": error,
            "seconds": time.perf_counter() - start,
        }
        self._store.save(name, self._state(block), {"row": row, "notes": notes})

    def _copy(self, weight):
        return self._copies[id(weight.product.layer)]

    def _wrapped(self, weight):
        return self._masked[id(weight.entry.get(self._copy(weight)))]

    def _assign(self, weight, kernel):
        if kernel is not None:
            wrapped = self._wrapped(weight)
            wrapped.variable.assign(keras.ops.cast(kernel, wrapped.variable.dtype))
            wrapped.project()

    def _state(self, block):
        wrapped = [self._wrapped(weight) for weight in block.weights]
        return {
            "kernels": [np.array(_keras.host_array(weight.variable)) for weight in wrapped],
            "masks": [np.packbits(_keras.host_array(weight.mask)) for weight in wrapped],
        }

    def _restore(self, block, arrays):
        for weight, kernel, bits in zip(
            block.weights, arrays["kernels"], arrays["masks"], strict=True
        ):
            wrapped = self._wrapped(weight)
            mask = np.unpackbits(bits, count=kernel.size).astype(bool).reshape(kernel.shape)
            wrapped.variable.assign(kernel)
            wrapped.set_mask(mask)


def _held(tensors):
    return [_keras.HeldTensor(tensor) for tensor in tensors]


def _error(before, calls, block):
    """Relative L2 norm of the change of a block's first output; `None` without calls."""
    difference, size = 0.0, 0.0
    for outputs, call in zip(before, calls, strict=True):
        then = outputs[0].array.astype("float64")
        now = _keras.HeldTensor(call.run(block)[0]).array
        difference += float(np.sum((now - then) ** 2))
        size += float(np.sum(then**2))
    return math.sqrt(difference / size) if size else None


def _place(layer, ordered):
    return next(n for n, other in enumerate(ordered) if other is layer)


def _check_not_quantized(model):
    quantized = [layer.name for layer in _keras.flatten(model) if _keras.is_quantized(layer)]
    if quantized:
        raise ValueError(
            check.message(
                "a model with weights in floating point",
                f"'{model.name}', whose layer '{quantized[0]}' is quantized",
                "Prune first, then call stripped().quantize(...): it keeps every zero.",
            )
        )


def _checked_pattern(pattern):
    pattern = patterns.get(pattern)
    if not isinstance(pattern, (Unstructured, NOfM)):
        raise ValueError(
            check.message(
                "`pattern` to be Unstructured or NOfM",
                f"pattern={pattern!r}",
                "For other patterns, use tfprune.pruners.one_shot.",
            )
        )
    return pattern


def _check_distribution(distribution, sparsity, pattern):
    if not isinstance(distribution, Owl):
        raise TypeError(
            check.message(
                "`distribution` to be a tfprune.pruners.Owl",
                f"distribution={distribution!r:.80}",
                "Give a list of sparsities, one for each block, for any other.",
            )
        )
    if isinstance(pattern, NOfM) or isinstance(sparsity, (list, tuple)):
        raise ValueError(
            check.message(
                "one sparsity to divide, without a pattern that fixes it",
                f"sparsity={sparsity!r:.80}, {pattern=}",
                "Leave out `distribution`.",
            )
        )


def _identity(method, model, planned, pattern, data, batches):
    """Plain data by which a folder recognizes the run that it belongs to."""
    places = {id(variable): place for place, variable in enumerate(model.weights)}
    return {
        "method": repr(method),
        "pattern": repr(pattern),
        # Places and shapes, as Keras numbers the names that it makes itself.
        "blocks": [
            [
                block.sparsity,
                [[places[id(w.product.variable)], *w.product.shape] for w in block.weights],
            ]
            for block in planned.blocks
        ],
        "samples": None if data is None else [data.num_samples, data.batch_size],
        "model": _keras.fingerprint(model.weights),
        "data": _keras.fingerprint(batches),
    }

"""How masks stand in a Keras file, and how a damaged file is told from a whole one.

A file holds the masks of a wrapper as packed bits, its step and the states of random generators.
Checksums follow them: one of these entries together, and one of each array of weights inside
the wrapper. Keras writes and reads those arrays itself, after the wrapper's own entries, so they
are looked for in the file by their checksum.
"""

import warnings
from collections import Counter

import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.damage import checksum, checksum_of_entries, damaged

# Numbers in the states of all random generators of a model; a generator has two.
_MOST_SEEDS = 2**20
# Kinds and shapes of further numbers.
_NUMBERS = {"seed_states": ("iu", 2), "steps_per_epoch": ("f", 0), "epoch": ("f", 1)}
_BY_POSITION = ("mask_", "initial_", "inexact_", "consensus_")
_TABLES = ("masked_checksums", "weights_checksums", "other_checksums")
_NOWHERE = np.zeros((0, 0, 0))
_ANOTHER = (
    "The file is damaged or belongs to another model; layers read before {name} have its weights "
    "already, so load another file. Weights of a plain model are read by "
    "tfprune.load_plain_weights(model, path)."
)


def save(mask_set, layers, others, store):
    """Writes masks (one bit a weight), step and random states into a Keras store.

    Args:
        mask_set: The `MaskSet`.
        layers: The layers inside the wrapper, whose weights Keras writes.
        others: Layers other than the wrappers, and an optimizer, to be written down too.
        store: The store.
    """
    state = mask_set.state()
    entries = {"pruning_step": np.array(state["step"], dtype="int64")}
    if state["seeds"]:
        entries["seed_states"] = np.array(state["seeds"], dtype="int64")
    if state.get("steps_per_epoch") is not None:
        entries["steps_per_epoch"] = np.array(state["steps_per_epoch"], dtype="float64")
    if state.get("epoch") is not None:
        entries["epoch"] = np.array(state["epoch"], dtype="float64")
    for position, weight in enumerate(mask_set.weights):
        entries[f"mask_{position}"] = np.packbits(_keras.host_array(weight.mask).reshape(-1))
        if weight.initial is not None:
            # HDF5 knows no bfloat16.
            values = np.asarray(_keras.host_array(weight.initial), dtype="float32")
            entries[f"initial_{position}"] = values
        if weight.consensus is not None:
            weight.consensus.save(entries, position)
    entries.update(_checksums_of_weights(mask_set, layers))
    arrays = [array for other in others for array in _keras.recorded(other)]
    if arrays:
        table = [(checksum(array), array.size) for array in arrays]
        entries["other_checksums"] = np.array(table, dtype="int64")
    for key, array in entries.items():
        store[key] = array
    store["checksum"] = np.array(checksum_of_entries(entries), dtype="int64")


def read(mask_set, layers, store, name):
    """Reads what `save` wrote, and changes nothing; raises if it does not fit.

    Args:
        mask_set: The `MaskSet`.
        layers: The layers inside the wrapper.
        store: The store.
        name: What messages call the wrapper.

    Returns:
        Masks, `(variable, values)` of initial values, and the state as `MaskSet` takes it.
    """
    weights, entries, consensus = mask_set.weights, {}, []
    for position, weight in enumerate(weights):
        if weight.initial is not None:
            entries[f"initial_{position}"] = _initial(store, position, weight, name)
        if weight.consensus is not None:
            pairs = weight.consensus.read(store, position, f"{name}/{weight.path}")
            parts = ("aim", "dual", "rho")
            for part, (_, values) in zip(parts, pairs, strict=True):
                entries[f"consensus_{part}_{position}"] = values
            consensus += pairs
        entries[f"mask_{position}"] = _bits(store, position, weight, name)
    entries["pruning_step"] = _step(store, name)
    for key in _NUMBERS:
        if key in store:
            entries[key] = _numbers(store, key, name)
    _check_checksum(store, entries, name)
    masks = []
    for position, weight in enumerate(weights):
        flat = np.unpackbits(entries[f"mask_{position}"], count=weight.size).astype(bool)
        masks.append(flat.reshape(tuple(weight.variable.shape)))
        if weight.size and not flat.any():
            raise damaged(
                f"a mask of {name}/{weight.path} in the file that keeps a weight",
                "one that prunes them all",
                "The file is damaged or was made by something else: load another one.",
            )
    _check_weights(mask_set, layers, store, name, masks)
    _check_others(store)
    initials = [
        (weight.initial, entries[f"initial_{position}"])
        for position, weight in enumerate(weights)
        if weight.initial is not None
    ] + consensus
    seeds, length, epoch = (entries.get(key) for key in _NUMBERS)
    state = {
        "step": int(entries["pruning_step"]),
        "seeds": None if seeds is None else seeds.tolist(),
        "steps_per_epoch": None if length is None else float(length),
        "epoch": None if epoch is None else tuple(epoch.tolist()),
    }
    return masks, initials, state


def is_own(key):
    """Whether an entry in a layer's part of a file is one that `save` writes."""
    known = ("pruning_step", "checksum", *_NUMBERS, *_TABLES)
    return key in known or key.startswith(_BY_POSITION)


# -- Entries ---------------------------------------------------------------------------------------


def _bits(store, position, weight, name):
    found = _keras.entry(store, f"mask_{position}")
    if found is None or found.dtype != np.uint8 or found.shape != (-(-weight.size // 8),):
        said = "no mask" if found is None else f"{found.dtype} data of shape {found.shape}"
        raise damaged(
            f"the mask of {name}/{weight.path}, {weight.size} bits, in the file",
            said,
            _ANOTHER.format(name=name),
        )
    return np.asarray(found)


def _initial(store, position, weight, name):
    found = _keras.entry(store, f"initial_{position}")
    wrong = found is None or found.shape != tuple(weight.variable.shape) or found.dtype.kind != "f"
    if wrong:
        raise damaged(
            f"the initial values of {name}/{weight.path} in the file, for "
            f"{weight.method.criterion!r}",
            "none" if found is None else f"{found.dtype} data of shape {found.shape}",
            "The file is damaged or belongs to a model with another criterion.",
        )
    return np.asarray(found)


def _step(store, name):
    found = _keras.entry(store, "pruning_step")
    if found is None or found.shape != () or found.dtype.kind not in "iu":
        said = "none" if found is None else f"{found.dtype} data of shape {found.shape}"
        raise damaged(f"the pruning step of '{name}' in the file", said, _ANOTHER.format(name=name))
    return np.array(checked_step(int(np.asarray(found)), name), dtype="int64")


def checked_step(step, name):
    """Returns a pruning step that was read from a file, or raises if no training reaches it."""
    if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= check.MOST_STEPS:
        raise damaged(
            f"a pruning step of '{name}' from 0 to {check.MOST_STEPS} in the file",
            f"{step!r:.80}",
            "The file is damaged or was made by something else: load another one.",
        )
    return step


def _numbers(store, key, name):
    found = _keras.entry(store, key)
    kinds, axes = _NUMBERS[key]
    count = np.prod(found.shape, dtype="float64")
    if len(found.shape) != axes or found.dtype.kind not in kinds or count > _MOST_SEEDS:
        raise damaged(
            f"the numbers {key} next to '{name}' in the file, with {axes} axes",
            f"{found.dtype} data of shape {found.shape}",
            _ANOTHER.format(name=name),
        )
    array = np.asarray(found).astype("float64" if kinds == "f" else "int64")
    if kinds == "f" and not (np.isfinite(array).all() and (array >= 0).all()):
        raise damaged(
            f"the numbers {key} next to '{name}' in the file, from 0 up",
            f"{array.tolist()!r:.80}",
            _ANOTHER.format(name=name),
        )
    return array


# -- Checksums -------------------------------------------------------------------------------------


def _checksums_of_weights(mask_set, layers):
    """Checksums of all arrays that Keras writes for the layers, those of pruned weights first."""
    arrays = {id(layer): _keras.recorded(layer) for layer in layers}
    masked, inexact = [], []
    for weight in mask_set.weights:
        found = _array_of(weight, arrays.get(id(weight.layer), ()))
        masked.append(0 if found is None else checksum(found))
        if found is not None:
            pruned = found[~np.asarray(_keras.host_array(weight.mask))]
            inexact.append(bool(np.count_nonzero(pruned)))
        else:
            inexact.append(False)
    everything = [checksum(array) for several in arrays.values() for array in several]
    entries = {
        "masked_checksums": np.array(masked, dtype="int64"),
        "weights_checksums": np.array(everything, dtype="int64"),
    }
    for position, is_inexact in enumerate(inexact):
        if is_inexact:
            entries[f"inexact_{position}"] = np.array(1, dtype="int64")
    return entries


def _array_of(weight, arrays):
    """Returns the array in a file that holds a weight, which LoRA changes when it is saved."""
    shaped = [array for array in arrays if array.shape == tuple(weight.variable.shape)]
    own = np.asarray(_keras.host_array(weight.variable))
    same = [a for a in shaped if a.dtype == own.dtype and np.array_equal(a, own, equal_nan=True)]
    return next(iter(same or shaped), None)


def _check_checksum(store, entries, name):
    found = _keras.entry(store, "checksum")
    if found is None:
        if any(key in store for key in _TABLES):
            raise _unlike(name, "masks, the step or the random states")
        warnings.warn(
            check.message(
                "a file with checksums, which reveal damage",
                "one that tfprune wrote before version 0.2, without any",
                "It was loaded without a check; save the model again to add them.",
            ),
            stacklevel=2,
        )
        return
    more = [f"inexact_{position}" for position in range(len(entries))]
    for key in (*_TABLES, *more):
        table = _keras.entry(store, key)
        if table is None:
            continue
        if table.dtype != np.int64 or np.prod(table.shape, dtype="float64") > _MOST_SEEDS:
            raise _unlike(name, "the checksums")
        entries[key] = np.asarray(table)
    if found.shape != () or found.dtype != np.int64:
        raise _unlike(name, "the checksum")
    if int(np.asarray(found)) != checksum_of_entries(entries):
        raise _unlike(name, "masks, the step or the random states")


def _unlike(name, what):
    return damaged(
        f"the file to hold of '{name}' what was written into it",
        f"a damaged file, in which {what} changed",
        f"Load another file: layers read before {name} have the weights of this one already.",
    )


def _check_weights(mask_set, layers, store, name, masks):
    """Raises unless the file has the weights that were written, and they are zero where pruned."""
    wanted = _keras.entry(store, "weights_checksums")
    below = _keras.entries_below(store)
    if wanted is None or below is None:
        return
    largest = max((int(np.prod(v.shape)) for layer in layers for v in layer.weights), default=0)
    found: dict = {}
    for item in below:
        if np.prod(item.shape, dtype="float64") > max(largest, _MOST_SEEDS):
            raise damaged(
                f"weights of '{name}' in the file with at most {largest} numbers each",
                f"an array of shape {item.shape}",
                _ANOTHER.format(name=name),
            )
        array = np.asarray(item)
        found[checksum(array)] = array
    if not set(np.asarray(wanted).tolist()) <= set(found):
        # A layer that several places share is written at the first of them.
        sizes = {int(np.prod(v.shape)) for layer in layers for v in layer.weights}
        for item in _keras.entries_of_file(store):
            if int(np.prod(item.shape, dtype="float64")) in sizes:
                array = np.asarray(item)
                found.setdefault(checksum(array), array)
    if not set(np.asarray(wanted).tolist()) <= set(found):
        raise _unlike(name, "the weights")
    sums = np.asarray(_keras.entry(store, "masked_checksums")).tolist()
    for position, (weight, mask, own_sum) in enumerate(
        zip(mask_set.weights, masks, sums, strict=True)
    ):
        array = found.get(own_sum, _NOWHERE)
        if array.shape != mask.shape:
            continue
        where = f"{name}/{weight.path}"
        if not np.isfinite(np.asarray(array, dtype="float32")).all():
            warnings.warn(
                check.message(
                    f"finite weights of {where} in the file",
                    "NaN or infinite ones",
                    "Training went wrong before the file was written: load an earlier one.",
                ),
                stacklevel=2,
            )
        if not np.count_nonzero(array[~mask]):
            continue
        said = f"{np.count_nonzero(array[~mask])} others"
        if f"inexact_{position}" not in store:
            raise damaged(
                f"pruned weights of {where} in the file to be zero",
                said,
                "The file is damaged or was made by something else: load another one.",
            )
        warnings.warn(
            check.message(
                f"pruned weights of {where} in the file to be zero",
                f"{said}, as they were when the model was saved",
                "UpdatePruningStep and strip_pruning set them to zero.",
            ),
            stacklevel=2,
        )


def _check_others(store):
    """Warns if values outside the wrappers differ between the model and the file as written.

    Only a warning: a file of another model, with the same wrappers in it, may be as large.
    """
    table = _keras.entry(store, "other_checksums")
    if table is None or len(table.shape) != 2:
        return
    table = np.asarray(table)
    sizes = set(table[:, 1].tolist())
    found: set = set()
    counts: Counter = Counter()
    for item in _keras.entries_of_file(store):
        if is_own(item.name.rpartition("/")[2]):
            continue
        size = int(np.prod(item.shape, dtype="float64"))
        counts[size] += 1
        if size in sizes:
            found.add(checksum(np.asarray(item)))
    same_kind = not Counter(table[:, 1].tolist()) - counts
    if same_kind and not set(table[:, 0].tolist()) <= found:
        warnings.warn(
            check.message(
                "the values of the optimizer, and of layers without masks, that were written",
                "other values",
                "The file is damaged, unless another program wrote these values: load another one.",
            ),
            stacklevel=2,
        )

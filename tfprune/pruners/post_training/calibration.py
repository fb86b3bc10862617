"""Calibration data: the samples on which layers are watched."""

from dataclasses import dataclass
from itertools import chain
from typing import Any

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check

_MEND = "Give for instance num_samples=128."


@dataclass(frozen=True)
class Calibration:
    """The data for pruning without training.

    Its arguments are those of `GPTQConfig` in Keras. Texts and tokens are joined to one long
    sequence, and `num_samples` windows are cut out of it at equal distances.

    Args:
        dataset: List of texts; list of token arrays, or one integer array; or what `model.fit`
            takes: arrays, a dictionary of arrays, a tuple `(x, y)`, a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`. Labels are ignored.
        tokenizer: For texts: a KerasHub tokenizer or preprocessor, or a function from a text to
            whole numbers. By default, the one of the model's `preprocessor`.
        num_samples: Number of samples, at least 1.
        sequence_length: For texts and tokens: tokens in a sample, at least 1.
        batch_size: Samples that run through the model at once.

    Raises:
        ValueError, TypeError: For numbers out of range.

    Example:

    >>> tokens = np.arange(4096) % 32
    >>> data = tfprune.pruners.Calibration(tokens, num_samples=16, sequence_length=64)
    """

    dataset: Any
    tokenizer: Any = None
    num_samples: int = 128
    sequence_length: int = 512
    batch_size: int = 8

    def __post_init__(self):
        for name in ("num_samples", "sequence_length", "batch_size"):
            object.__setattr__(self, name, check.integer(name, getattr(self, name), 1, _MEND))

    def batches(self, model):
        """Returns the samples as a list of batches: NumPy arrays in the structure of the inputs.

        Raises:
            ValueError: If there are fewer than `num_samples` samples, a tokenizer is missing, or
                the model has inputs that tokens alone do not fill.
            TypeError: If the data set is of an unknown kind.
        """
        kind, data = _read(self.dataset)
        if kind == "texts":
            tokenize = _tokenizer(self.tokenizer, model)
            kind, data = "tokens", [tokenize(text) for text in data]
        if kind == "tokens":
            windows = self._windows(np.concatenate(data))
            pieces = np.split(windows, range(self.batch_size, len(windows), self.batch_size))
            return [_as_inputs(piece, model) for piece in pieces]
        return self._samples(data)

    def _windows(self, tokens):
        number = len(tokens) // self.sequence_length
        self._check_number(
            number,
            f"{len(tokens)} tokens, which are {number} sequences of {self.sequence_length}",
        )
        last = len(tokens) - self.sequence_length
        starts = np.linspace(0, last, self.num_samples).astype("int64")
        return np.stack([tokens[s : s + self.sequence_length] for s in starts]).astype("int32")

    def _samples(self, data):
        found: list = []
        number = 0
        for batch in _keras.numpy_batches(data, self.batch_size):
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            rows = len(keras.tree.flatten(x)[0])
            left = min(rows, self.num_samples - number)
            found.append(keras.tree.map_structure(lambda a, left=left: np.asarray(a)[:left], x))
            number += left
            if number == self.num_samples:
                break
        self._check_number(number, f"{number} samples")
        return found

    def _check_number(self, number, received):
        if number < self.num_samples:
            raise ValueError(
                check.message(
                    f"`dataset` with at least num_samples={self.num_samples} samples",
                    received,
                    f"Give more data, or num_samples={number}."
                    if number
                    else "Give more data, or lower sequence_length.",
                )
            )


def get(data):
    """Returns a `Calibration`: the given one, or one of a data set."""
    return data if isinstance(data, Calibration) else Calibration(data)


def _read(dataset):
    """Returns `(kind, data)`: "texts", "tokens" with a list of integer arrays, or "samples"."""
    if dataset is None or isinstance(dataset, (str, bytes, int, float)):
        raise TypeError(
            check.message(
                "`dataset` to be a list of texts, tokens, or what fit takes",
                f"dataset={dataset!r:.80}",
                "Put a single text into a list.",
            )
        )
    if hasattr(dataset, "__next__"):
        first = next(dataset, None)
        if not isinstance(first, str):
            return "samples", dataset if first is None else chain([first], dataset)
        dataset = [first, *dataset]
    if isinstance(dataset, list) and dataset and all(isinstance(item, str) for item in dataset):
        return "texts", dataset
    if isinstance(dataset, np.ndarray) and dataset.dtype.kind in "iu" and dataset.ndim <= 2:
        return "tokens", [dataset.reshape(-1)]
    if isinstance(dataset, list):
        rows = [np.asarray(row) for row in dataset]
        if not rows or not all(row.dtype.kind in "iu" and row.ndim <= 1 for row in rows):
            raise TypeError(
                check.message(
                    "`dataset` to hold texts, or arrays of tokens",
                    "an empty list" if not rows else f"a list with {dataset[0]!r:.60}",
                    "Give samples of another kind as one array, or as a data set.",
                )
            )
        return "tokens", [row.reshape(-1) for row in rows]
    return "samples", dataset


def _tokenizer(tokenizer, model):
    """Returns a function from a text to an array of tokens."""
    if tokenizer is None:
        tokenizer = getattr(model, "preprocessor", None)
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    run = getattr(tokenizer, "tokenize", tokenizer)
    if not callable(run):
        raise ValueError(
            check.message(
                "a tokenizer for texts",
                f"{tokenizer=!r:.80}, and a model without a preprocessor",
                "Use Calibration(texts, tokenizer=...), or give tokens.",
            )
        )

    def tokenize(text):
        tokens = run(text)
        tokens = keras.ops.convert_to_numpy(tokens) if keras.ops.is_tensor(tokens) else tokens
        tokens = np.asarray(tokens).reshape(-1)
        if len(tokens) and tokens.dtype.kind not in "iu":
            raise TypeError(
                check.message(
                    "a tokenizer that returns whole numbers",
                    f"{tokens[0]!r:.60}",
                    "Give a function from a text to numbers, for instance tokenizer.encode.",
                )
            )
        return tokens.astype("int64")

    return tokenize


def _as_inputs(tokens, model):
    """Puts tokens into the structure of a model's inputs."""
    inputs = _keras.symbolic_inputs(model) if _keras.is_graph(model) else None
    if not isinstance(inputs, dict):
        return tokens
    made = {}
    for name in inputs:
        if name == "token_ids":
            made[name] = tokens
        elif name == "padding_mask":
            made[name] = np.ones_like(tokens)
        elif name == "segment_ids":
            made[name] = np.zeros_like(tokens)
        else:
            raise ValueError(
                check.message(
                    "a model whose inputs are token_ids, padding_mask and segment_ids, for "
                    "texts and tokens",
                    f"'{model.name}', which has an input {name!r}",
                    f"Give a dictionary of arrays: {', '.join(inputs)}.",
                )
            )
    return made

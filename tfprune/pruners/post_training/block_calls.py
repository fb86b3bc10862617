"""The calls of each block as the whole model makes them, one block at a time."""

import functools
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check


@dataclass
class Call:
    """One call of a block, with its tensors on the host.

    Attributes:
        structure: `(args, kwargs)`, with `HeldTensor`s in place of tensors.
        batch: Number of the batch that it belongs to.
    """

    structure: Any
    batch: int

    def run(self, block):
        """Runs the block on it, and returns the tensors among the outputs."""
        args, kwargs = keras.tree.map_structure(
            lambda leaf: leaf.tensor() if isinstance(leaf, _keras.HeldTensor) else leaf,
            self.structure,
        )
        with _keras.without_gradients():
            return _tensors(block(*args, **kwargs))


@dataclass
class _Seen:
    """The calls of a block that the first run recorded."""

    calls: list = field(default_factory=list)
    outputs: list = field(default_factory=list)


class BlockCalls:
    """The inputs of a model's blocks, one block after the other.

    A block whose inputs are the outputs of the block before it gets them from there. Any other is
    reached by running the model itself up to it. So the inputs are those of the whole model, with
    its masks and scales, and they are on the host for one block at a time.

    Args:
        model: A built model.
        blocks: Layers inside of it.
        batches: List of inputs of the model.

    Attributes:
        blocks: The blocks in the order in which they run.

    Raises:
        ValueError: If a block does not run, or the data does not fit the model.
    """

    def __init__(self, model, blocks, batches):
        self._model = model
        self._batches = batches
        seen = self._first_run(blocks)
        self.blocks = sorted(blocks, key=lambda block: list(seen).index(id(block)))
        self._times = [len(seen[id(block)].calls) for block in self.blocks]
        self._links = self._find_links([seen[id(block)] for block in self.blocks])
        self._anchors: list = []
        self._outputs: list = []

    def _first_run(self, blocks):
        """Runs one sample, and returns `{id(block): _Seen}` in running order."""
        seen: dict = {}

        def handle(layer, call, args, kwargs):
            known = seen.setdefault(id(layer), _Seen())
            known.calls.append((args, kwargs))
            outputs = call(*args, **kwargs)
            known.outputs += _tensors(outputs)
            return outputs

        one = keras.tree.map_structure(lambda array: array[:1], self._batches[0])
        with _keras.intercepted_calls(blocks, handle):
            self._run(one)
        for block in blocks:
            if id(block) not in seen:
                raise ValueError(
                    check.message(
                        "every block to run when the model does",
                        f"'{block.name}', which did not",
                        "Name the blocks that run, with `blocks`.",
                    )
                )
        return seen

    def _find_links(self, seen):
        """For each block its structure with a link for each tensor, or `None` to run the model.

        A link is `("before", n)`, the n-th output of the block before; or `("anchor", n)`, the
        n-th tensor that the latest block with `None` was called with.
        """
        links: list = []
        anchor: dict = {}
        before: dict = {}
        for one in seen:
            places = {**anchor, **before}
            (structure, *more) = one.calls
            found = None
            if not more and all(id(tensor) in places for tensor in _tensors(structure)):
                found = _replaced(structure, lambda tensor, at=places: _Link(*at[id(tensor)]))
            else:
                anchor = {} if more else _numbered("anchor", _tensors(structure))
            links.append(found)
            before = {} if more else _numbered("before", one.outputs)
        return links

    def calls(self, number):
        """Returns the `Call`s of a block, as the model makes them now."""
        if self._links[number] is None:
            calls = self._run_up_to(number)
            self._anchors = [_held(call.structure) for call in calls]
            return calls
        self._drop_unused(number)
        made = []
        for batch in range(len(self._batches)):
            sources = {"before": self._outputs[batch], "anchor": self._anchors[batch]}
            structure = keras.tree.map_structure(
                lambda leaf, at=sources: (
                    at[leaf.source][leaf.place] if isinstance(leaf, _Link) else leaf
                ),
                self._links[number],
            )
            made.append(Call(structure, batch))
        return made

    def passed(self, outputs):
        """Takes the outputs of the calls of the block that was last, with its final weights.

        Args:
            outputs: For each call, a list of `HeldTensor`s.
        """
        self._outputs = outputs

    def _drop_unused(self, number):
        """Lets go of tensors that no later block with the same anchor is called with."""
        used: set = set()
        for links in self._links[number:]:
            if links is None:
                break
            used |= {leaf.place for leaf in _links(links) if leaf.source == "anchor"}
        for held in self._anchors:
            for place in range(len(held)):
                if place not in used:
                    held[place] = None

    def _run_up_to(self, number):
        found: list = []

        def handle(layer, call, args, kwargs, batch):
            held = _replaced((args, kwargs), _keras.HeldTensor)
            found.append(Call(held, batch))
            if self._times[number] == 1:
                raise _keras.RunStopped
            return call(*args, **kwargs)

        for batch, inputs in enumerate(self._batches):
            own = functools.partial(handle, batch=batch)
            with _keras.intercepted_calls([self.blocks[number]], own):
                self._run(inputs)
        return found

    def _run(self, inputs):
        """Runs the model until it ends or is stopped."""
        unknown: list = []

        def look_up(layer, call, args, kwargs):
            unknown.extend(_unknown_tokens(layer, args, kwargs))
            if unknown:
                raise _keras.RunStopped
            return call(*args, **kwargs)

        inner = _keras.flatten(self._model)
        embeddings = [layer for layer in inner if isinstance(layer, keras.layers.Embedding)]
        try:
            with _keras.without_gradients(), _keras.intercepted_calls(embeddings, look_up):
                self._model(keras.tree.map_structure(_as_tensor, inputs), training=False)
        except _keras.RunStopped:
            pass
        except Exception as error:
            shapes = keras.tree.map_structure(lambda array: array.shape, inputs)
            raise ValueError(
                check.message(
                    f"data that '{self._model.name}' can run on",
                    f"inputs of shapes {shapes}, which fail with: {check.first_line(error)}"[:400],
                    "Give the inputs that the model takes; lower sequence_length where the model "
                    "has fewer positions.",
                )
            ) from error
        if unknown:
            raise ValueError(unknown[0])


@dataclass(frozen=True)
class _Link:
    source: str
    place: int


def _numbered(source, tensors):
    return {id(tensor): (source, place) for place, tensor in enumerate(tensors)}


def _unknown_tokens(layer, args, kwargs):
    """The message about a token that an embedding has no entry for; a backend may take another."""
    tokens = args[0] if args else kwargs.get("inputs")
    reverse = args[1] if len(args) > 1 else kwargs.get("reverse", False)
    if tokens is None or reverse:
        return []
    values = np.asarray(keras.ops.convert_to_numpy(tokens))
    wrong = values[(values < 0) | (values >= layer.input_dim)]
    if not wrong.size:
        return []
    message = check.message(
        f"tokens from 0 to {layer.input_dim - 1}, the vocabulary of '{layer.name}'",
        f"token {int(wrong[0])}",
        "Use the tokenizer that the model was trained with.",
    )
    return [message]


def _as_tensor(array):
    return keras.ops.convert_to_tensor(array)


def _tensors(structure):
    return [leaf for leaf in keras.tree.flatten(structure) if keras.ops.is_tensor(leaf)]


def _held(structure):
    leaves = keras.tree.flatten(structure)
    return [leaf for leaf in leaves if isinstance(leaf, _keras.HeldTensor)]


def _links(structure):
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, _Link)]


def _replaced(structure, make):
    return keras.tree.map_structure(
        lambda leaf: make(leaf) if keras.ops.is_tensor(leaf) else leaf, structure
    )

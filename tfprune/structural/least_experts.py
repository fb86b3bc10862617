"""Finds the experts whose absence changes the outputs of their block least."""

import contextlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune import _keras


@dataclass(frozen=True)
class ExpertBlock:
    """A layer that sends tokens to experts.

    Attributes:
        layer: The layer.
        bank: The layer inside that computes all experts.
        routers: The layers inside whose outputs are the logits of the experts.
    """

    layer: Any
    bank: Any
    routers: list

    def without(self, gone, held):
        """Returns a context in which no token is sent to some experts.

        Args:
            gone: Bool array with one item for each expert.
            held: List with the outputs of the bank, empty at first. They do not depend on the
                routers, unless the bank is called with what these give.
        """

        def route(layer, call, args, kwargs):
            logits = call(*args, **kwargs)
            return ops.where(gone, ops.cast(-np.inf, logits.dtype), logits)

        def compute(layer, call, args, kwargs):
            if len(args) + len(kwargs) > 1:
                return call(*args, **kwargs)
            if not held:
                held.append(call(*args, **kwargs))
            return held[0]

        stack = contextlib.ExitStack()
        stack.enter_context(_keras.intercepted_calls(self.routers, route))
        stack.enter_context(_keras.intercepted_calls([self.bank], compute))
        return stack


class LeastExperts:
    """Chooses the experts that go while a model runs, block by block.

    Args:
        blocks: List of `ExpertBlock`s.
        number: The number of experts of each.
        n: How many go.

    Attributes:
        gone: `{id of a block's layer: bool array of the experts that go}`.
    """

    def __init__(self, blocks, number, n):
        self.gone: dict = {}
        self._blocks = {id(block.layer): block for block in blocks}
        self._number, self._n = number, n

    def run(self, model, data):
        """Runs a model, chooses in each block, and returns its outputs without these experts."""
        layers = [block.layer for block in self._blocks.values()]
        with _keras.intercepted_calls(layers, self._choose):
            return model(data, training=False)

    def _choose(self, layer, call, args, kwargs):
        block = self._blocks[id(layer)]
        held: list = []

        def run(gone):
            with block.without(gone, held):
                return call(*args, **kwargs)

        if id(layer) not in self.gone:
            gone = np.zeros(self._number, bool)
            dense = _first(run(gone))

            def change(expert):
                other = _first(run(gone | (np.arange(self._number) == expert)))
                return float(_keras.on_host(ops.sum(ops.square(other - dense))))

            for _ in range(self._n):
                gone[min(np.flatnonzero(~gone), key=change)] = True
            self.gone[id(layer)] = gone
        return run(self.gone[id(layer)])


def most_chosen(model, layers, data):
    """Returns the number of experts that some layers send each token to, by running a model."""
    found = [0]

    def seen(name, arguments, outputs):
        found.append(int(outputs[1].shape[-1]))

    def handle(layer, call, args, kwargs):
        with _keras.watched_operations(("top_k",), seen):
            return call(*args, **kwargs)

    with _keras.intercepted_calls(layers, handle):
        model(data, training=False)
    return max(found)


def _first(outputs):
    """The first output as float32; further ones are logits of the experts."""
    return ops.cast(keras.tree.flatten(outputs)[0], "float32")

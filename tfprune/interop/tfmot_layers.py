"""Moves the weights, masks and method of a tfmot layer into a Keras 3 layer."""

from typing import Any

import numpy as np

from tfprune import _keras, schedules
from tfprune._base import validation as check
from tfprune._wrapping.methods import Method
from tfprune._wrapping.prunable import find_prunable
from tfprune._wrapping.tfmot_arguments import pattern_of
from tfprune._wrapping.wrapper import PruneLowMagnitude
from tfprune.patterns.single_weights import NOfM


class MigratedLayer:
    """One layer of tf_keras, and the Keras 3 layer that replaces it.

    Args:
        description: The entry of the layer among the "leaves" of the description of the model.
        position: The number of that entry.
        arrays: `{name: array}` of all weights and masks.
        layers: `{path: layer}` of a `ConvertedModel`.

    Attributes:
        position: As given.
        path: The path of the layer in the tf_keras model.
        layer: The Keras 3 layer.
        masks: List of `(index of the weight, mask)`.
        method: The `Method` by which tfmot pruned the layer, after `choose_method`.
        wrapper: The wrapper of the layer's clone, after `wrap`.
    """

    def __init__(self, description, position, arrays, layers):
        self.position = position
        self.path = "/".join(description["path"])
        self.layer = layers[tuple(description["path"])]
        self.method: Any = None
        self.wrapper: Any = None
        self._names = description["weights"]
        self._weights = [arrays[f"{position}/weight_{i}"] for i in range(len(self._names))]
        self._pruning = description.get("pruning") or {"masks": []}
        # The position of each weight in the Keras 3 layer.
        self._places: list = []
        self.masks = [
            (index, arrays[f"{position}/mask_{number}"])
            for number, index in enumerate(self._pruning["masks"])
        ]

    def take_weights(self):
        """Copies the weights of the tf_keras layer to the Keras 3 layer."""
        targets = list(self.layer.weights)
        self._places = self._match(targets)
        for place, value in zip(self._places, self._weights, strict=True):
            if place is not None:
                targets[place].assign(value)
        _keras.refresh_constants(self.layer)

    def _match(self, targets):
        """Matches weights by order if names and shapes agree, or else by unique names."""
        theirs = [name.split("/") for name in self._names]
        ours = [variable.path.split("/") for variable in targets]
        shapes = [tuple(value.shape) for value in self._weights]
        our_shapes = [tuple(variable.shape) for variable in targets]
        if shapes == our_shapes and [n[-1] for n in theirs] == [n[-1] for n in ours]:
            return list(range(len(targets)))
        for length in (1, 2, 3):
            tails = [tuple(name[-length:]) for name in ours]
            wanted = [tuple(name[-length:]) for name in theirs]
            # Only tf_keras has a sample counter in Normalization.
            extra = [tail for tail in wanted if tail not in tails and tail[-1] != "count"]
            if len(set(tails)) == len(tails) and set(tails) <= set(wanted) and not extra:
                places = [tails.index(tail) if tail in tails else None for tail in wanted]
                if all(
                    place is None or shape == our_shapes[place]
                    for place, shape in zip(places, shapes, strict=True)
                ):
                    return places
        if shapes == our_shapes:
            # Some weights have another name in Keras 3.
            return list(range(len(targets)))
        raise ValueError(
            check.message(
                f"the weights of '{self.path}' to be those of a Keras 3 "
                f"{type(self.layer).__name__}, shapes {our_shapes}",
                f"{self._names} of shapes {shapes}",
                "Pass a class with the same weights in the same order in `custom_objects`.",
            )
        )

    def choose_method(self, schedule, objects, sparsity_m_by_n):
        """Sets the method by which tfmot pruned the layer."""
        pruning = self._pruning
        m_by_n = pruning["sparsity_m_by_n"] or sparsity_m_by_n
        size = (1, 1) if m_by_n else tuple(pruning["block_size"])
        pattern = pattern_of(size, pruning["block_pooling_type"], m_by_n, None)
        schedule = _schedule(schedule, pruning["schedule"], objects, self.path)
        if isinstance(pattern, NOfM) and type(schedule) in schedules.built_in().values():
            schedule = schedules.ConstantSparsity(
                pattern.zeros / pattern.group,
                schedule.begin_step,
                schedule.end_step,
                schedule.frequency,
            )
        self.method = Method.of(schedule, pattern)

    def wrap(self, clone):
        """Wraps the clone of the Keras 3 layer."""
        # tfmot leaves the depthwise kernel of a SeparableConv dense, and so does the wrapper.
        places = {self._places[index] for index, _ in self.masks}
        masked = {id(v) for place, v in enumerate(self.layer.weights) if place in places}
        found = find_prunable(self.layer, self.method, {})
        keys = [item.key for item in found if id(item.variable) in masked]
        self.wrapper = PruneLowMagnitude(
            clone, self.method.schedule, pattern=self.method.pattern, weights=keys or None
        )
        return self.wrapper

    def take_masks(self):
        """Copies the masks and the step to the wrapper; zeroes the pruned weights."""
        wrapper = self.wrapper
        pruned = {id(weight.variable): weight for weight in wrapper.pruned_weights}
        variables = list(wrapper.inner.weights)
        for index, mask in self.masks:
            name = f"{self.path}/{self._names[index].rpartition('/')[2]}"
            weight = pruned.pop(id(variables[self._places[index]]), None)
            if weight is None:
                raise ValueError(
                    check.message(
                        f"'{name}' to be a weight that can be pruned, as in tfmot",
                        f"a {type(self.layer).__name__} that does not declare it",
                        "Make the class inherit from tfprune.PrunableLayer, or call "
                        f"tfprune.register_prunable({type(self.layer).__name__}, [...]) first.",
                    )
                )
            if not np.isin(mask, (0, 1)).all():
                raise ValueError(
                    check.message(
                        f"a mask of zeros and ones for '{name}'",
                        "other numbers",
                        "The model is damaged; save it again with tfmot.",
                    )
                )
            weight.set_mask(mask.astype(bool))
        wrapper.mask_set.advance(max(0, self._pruning["step"]))


def _schedule(live, config, objects, path):
    """Returns tfprune's counterpart of a layer's schedule."""
    name = config["class_name"]
    built_in = {
        cls.__name__: cls for cls in (schedules.ConstantSparsity, schedules.PolynomialDecay)
    }
    cls = objects.get(name, built_in.get(name) if live is None else None)
    if cls is not None:
        return schedules.get(cls.from_config(config["config"]))
    if live is not None:
        return schedules.get(live)
    raise ValueError(
        check.message(
            "schedules of tfprune or in `custom_objects`",
            f"{name}, the schedule of '{path}'",
            f"Write it as a tfprune.PruningSchedule and pass custom_objects={{{name!r}: {name}}}.",
        )
    )

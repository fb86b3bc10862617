"""Evidence for criteria: gradients, activations, scales and initial weights."""

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from tfprune import _keras, criteria
from tfprune._base import validation as check
from tfprune._base.progress import progress
from tfprune._updates import passes
from tfprune._updates.gradient_sums import GradientSums, are_finite
from tfprune.criteria.base import at_each_weight


class Evidence:
    """Collects the evidence for the criteria of a model's weights, over batches of data.

    The model runs in inference mode. Its weights, moving statistics, metrics and random states
    stay unchanged.

    Args:
        model: The model that holds the weights.
        data: A `tf.data.Dataset`, `keras.utils.PyDataset`, PyTorch `DataLoader`, or arrays as a
            tuple `(x, y)` or `(x, y, sample_weight)`. Each collection continues after the batches
            of the previous one, and starts over at the end of the data.
        batches: Number of batches for each collection, at least 1.
        batch_size: Size of the batches that arrays are cut into.
        loss: A Keras loss or the name of one; by default the loss that the model, or `compiled`,
            was compiled with.
        compiled: Another model, whose compiled loss is used.
        verbose: 1 shows a progress bar.

    Raises:
        ValueError, TypeError: For numbers out of range.
    """

    def __init__(
        self, model, data=None, batches=1, batch_size=32, loss=None, compiled=None, verbose=0
    ):
        mend = "Give a whole number from 1."
        self._model = model
        self._data = data
        self._batches = check.integer("batches", batches, 1, mend)
        self._batch_size = check.integer("batch_size", batch_size, 1, mend)
        self._loss = None if loss is None else keras.losses.get(loss)
        self._compiled = model if compiled is None else compiled
        self._verbose = verbose
        self._iterator = None
        self._scales: dict = {}
        self._gradients: dict = {}
        self._activations: dict = {}

    def check(self, weights, criterion=None):
        """Raises if a criterion needs evidence that cannot be collected; called before training."""
        for weight in weights:
            name, needs = weight.name, _needs(weight, criterion)
            for need in needs & set(criteria.FROM_DATA):
                if self._data is None:
                    asking = criterion or weight.method.criterion
                    raise ValueError(criteria.no_evidence(asking, need, name))
            if needs & set(criteria.FROM_GRADIENTS):
                self._check_loss(weight)
            if needs & {"scale", *criteria.FROM_ACTIVATIONS}:
                _check_output(weight)
        self._find_scales([w for w in weights if "scale" in _needs(w, criterion)])

    def __call__(self, weights, criterion=None, as_tensors=()):
        """Collects the evidence for some weights.

        Args:
            weights: List of `PrunedWeight`.
            criterion: The criterion to collect for, instead of the weights' own.
            as_tensors: Ids of weights whose evidence stays where it is computed.

        Returns:
            `{id(weight): {need: array of the weight's shape}}`, with tensors for weights that
            `as_tensors` names, if their evidence is computed on a device.

        Raises:
            ValueError: If the data is missing, empty or does not fit the model, or a gradient is
                zero everywhere or not finite; the message names the layer.
        """
        found: dict = {id(weight): {} for weight in weights}
        needing = {
            need: [weight for weight in weights if need in _needs(weight, criterion)]
            for need in criteria.EVIDENCE
        }
        for weight in needing["initial"]:
            asking = criterion or weight.method.criterion
            found[id(weight)]["initial"] = _initial(weight, asking, id(weight) in as_tensors)
        for weight in needing["dual"]:
            found[id(weight)]["dual"] = _keras.host_array(weight.consensus.dual)
        self._find_scales(needing["scale"])
        for weight in needing["scale"]:
            scale = _keras.host_array(self._scales[id(weight)].gamma)
            found[id(weight)]["scale"] = _spread(weight, scale)
        gradients = _joined(needing, criteria.FROM_GRADIENTS)
        activations = _joined(needing, criteria.FROM_ACTIVATIONS)
        if gradients or activations:
            self.check([*gradients, *activations], criterion)
            sums = GradientSums({id(w): (w, _needs(w, criterion)) for w in gradients})
            self._pass_over_data(sums, gradients, activations, found, as_tensors)
        return found

    def loss_meter(self):
        """Returns a function without arguments: the mean loss now, over the same batches each time.

        Raises:
            ValueError: If there is no data, or no loss.
        """
        if self._data is None:
            raise ValueError(
                check.message(
                    "`data` to measure the loss on",
                    "data=None",
                    "Give data=(x, y), or a data set: of training or validation data.",
                )
            )
        if self._loss is None and not getattr(self._compiled, "compiled", False):
            raise ValueError(
                check.message(
                    "a loss to measure",
                    f"model '{self._compiled.name}', which is not compiled",
                    "Compile the model with a loss, or give loss=...",
                )
            )
        batches = list(self._next_batches(self._batches))
        run = passes.loss_function(self._model, self._loss_of)
        return lambda: float(np.mean([run(batch) for batch in batches]))

    def seek(self, collections):
        """Moves to the batches that follow this many collections, if the data's length is known."""
        if self._data is None:
            return
        total = _keras.number_of_batches(self._data, self._batch_size)
        if total:
            self._iterator = self._begin()
            for _ in range(collections * self._batches % total):
                next(self._iterator)

    # -- Data ----------------------------------------------------------------------------------

    def _next_batches(self, number):
        for _ in range(number):
            batch = None if self._iterator is None else next(self._iterator, None)
            if batch is None:
                self._iterator = self._begin()
                batch = next(self._iterator, None)
            if batch is None:
                raise ValueError(
                    check.message(
                        "`data` with at least one batch",
                        "data without batches",
                        "An exhausted generator yields no more batches: use a data set or arrays.",
                    )
                )
            yield keras.utils.unpack_x_y_sample_weight(batch)

    def _begin(self):
        try:
            return _keras.numpy_batches(self._data, self._batch_size)
        except (ValueError, TypeError) as error:
            raise ValueError(
                check.message(
                    "`data` to be a data set, or a tuple of arrays (x, y)",
                    f"data={self._data!r}"[:200],
                    f"Give the same data as to model.fit. Keras says: {error}",
                )
            ) from error

    def _pass_over_data(self, sums, gradients, activations, found, as_tensors):
        counts: dict = {id(weight): np.zeros((3, 1)) for weight in activations}
        with progress(self._batches, "batches", self._verbose) as done:
            for batch in self._next_batches(self._batches):
                if gradients:
                    new = self._gradients_on(batch, gradients)
                    there = [id(weight) in as_tensors for weight in gradients]
                    pairs = zip(new, there, strict=True)
                    sums.add(gradients, [g if stays else _keras.on_host(g) for g, stays in pairs])
                if activations:
                    new = self._activations_on(batch[0], activations)
                    for weight, item in zip(activations, new, strict=True):
                        counts[id(weight)] = counts[id(weight)] + item
                done()
        for weight in gradients:
            found[id(weight)].update(sums.of(weight))
        for weight in activations:
            zeros, total, number = counts[id(weight)]
            found[id(weight)]["activation_zeros"] = _spread(weight, zeros / number)
            found[id(weight)]["activation_mean"] = _spread(weight, total / number)

    # -- Gradients -----------------------------------------------------------------------------

    def _check_loss(self, weight):
        if self._loss is None and not getattr(self._compiled, "compiled", False):
            raise ValueError(
                check.message(
                    f"a loss for the gradients of {weight.name}",
                    f"model '{self._compiled.name}', which is not compiled",
                    "Compile the model with a loss, or give loss=...",
                )
            )

    def _loss_of(self, x, y, sample_weight, training=False):
        y_pred = self._model(x, training=training)
        if self._loss is not None:
            return (
                ops.mean(self._loss(y, y_pred))
                if sample_weight is None
                else ops.mean(self._loss(y, y_pred, sample_weight))
            )
        return self._compiled.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)

    def _gradients_on(self, batch, weights):
        key = tuple(id(weight) for weight in weights)
        if key not in self._gradients:
            variables = [weight.variable for weight in weights]
            # Keeping the weights in the cache prevents other objects from getting their ids.
            function = passes.gradient_function(self._model, variables, self._loss_of)
            self._gradients[key] = (weights, function)
        optimizer: Any = getattr(self._compiled, "optimizer", None)
        scale = 1.0
        if hasattr(optimizer, "initial_scale"):
            # Half precision would lose small gradients, but too large a scale overflows.
            scale = float(ops.convert_to_numpy(optimizer.scale_loss(1.0)))
        while True:
            try:
                values = self._gradients[key][1](batch, scale)
            except (ValueError, TypeError, RuntimeError) as error:
                raise self._does_not_fit(batch, error) from error
            except Exception as error:
                if type(error).__module__.startswith("tensorflow"):
                    raise self._does_not_fit(batch, error) from error
                raise
            finite = are_finite(values)
            if scale <= 1 or all(finite):
                break
            scale = max(1.0, scale / 16)
        for weight, is_finite in zip(weights, finite, strict=True):
            if not is_finite:
                raise ValueError(
                    check.message(
                        f"finite gradients for {weight.name}",
                        "NaN or infinity",
                        "The masks were not changed. Look for NaN in the data, or lower the "
                        "learning rate.",
                    )
                )
        return values

    def _does_not_fit(self, batch, error):
        shapes = tree.map_structure(lambda array: tuple(np.shape(array)), batch)
        return ValueError(
            check.message(
                f"data that fits model '{self._model.name}' and its loss",
                f"batches (x, y, sample_weight) of shapes {shapes}, which fail with: "
                f"{check.first_line(error)}",
                "Give your training data: a data set, or a tuple of arrays (x, y).",
            )
        )

    # -- Activations ---------------------------------------------------------------------------

    def _activations_on(self, x, weights):
        key = tuple(id(weight) for weight in weights)
        if key not in self._activations:
            self._activations[key] = (weights, passes.activation_function(self._model, weights))
        try:
            return self._activations[key][1](x)
        except (ValueError, TypeError, RuntimeError) as error:
            raise self._does_not_fit((x, None, None), error) from error

    # -- Scales --------------------------------------------------------------------------------

    def _find_scales(self, weights):
        missing = [weight for weight in weights if id(weight) not in self._scales]
        if not missing:
            return
        found = self.batch_norms()
        for weight in missing:
            _check_output(weight)
            norm = found.get(id(weight.layer))
            if norm is None or norm.gamma is None:
                received = "none" if norm is None else f"'{norm.name}' with scale=False"
                raise ValueError(
                    check.message(
                        f"a BatchNormalization with a scale right after layer "
                        f"'{weight.layer.name}', for {weight.method.criterion!r}",
                        received,
                        f"Exempt the layer with tfprune.Rule({weight.layer.name!r}, "
                        "prune=False), or use another criterion.",
                    )
                )
            self._scales[id(weight)] = norm

    def batch_norms(self):
        """Returns `{id(layer): BatchNormalization that follows it}`."""
        return passes.following_batch_norms(self._model, self._symbolic_inputs())

    def _symbolic_inputs(self):
        if _keras.is_graph(self._model):
            return _keras.symbolic_inputs(self._model)
        if self._data is not None:
            x, _, _ = next(self._next_batches(1))
        else:
            shape = _keras.input_shape(self._model)
            if shape is None:
                raise ValueError(
                    check.message(
                        f"the inputs of model '{self._model.name}', to find out which "
                        "BatchNormalization follows which layer",
                        "a subclassed model without data",
                        "Give data=...",
                    )
                )
            return tree.map_shape_structure(lambda s: keras.KerasTensor(s), shape)
        return tree.map_structure(lambda a: keras.KerasTensor(np.shape(a), str(a.dtype)), x)


def _initial(weight, criterion, as_tensor):
    if as_tensor:
        initial = ops.convert_to_tensor(weight.initial)
    else:
        initial = _keras.host_array(weight.initial)
    if criterion.needs_movement and _is_equal(initial, weight.variable):
        raise ValueError(
            check.message(
                f"{weight.name} to have moved since it was wrapped, for {criterion!r}",
                "unchanged weights, which all have equal scores",
                "Wrap the model before you train it and prune later (begin_step), exempt "
                f"the layer with tfprune.Rule({weight.layer.name!r}, prune=False), or use "
                "another criterion.",
            )
        )
    return initial


def _is_equal(values, variable):
    if isinstance(values, np.ndarray):
        return np.array_equal(values, _keras.host_array(variable))
    return bool(_keras.on_host(ops.all(ops.equal(values, variable))))


def _spread(weight, vector):
    shape = tuple(weight.variable.shape)
    outputs = weight.axes.resolve(len(shape)).outputs
    return at_each_weight(np.asarray(vector, dtype="float32"), shape, outputs)


def _check_output(weight):
    if not weight.makes_output:
        raise ValueError(
            check.message(
                f"a weight whose output channels are its layer's, for {weight.method.criterion!r}",
                f"{weight.name}",
                f"Exempt the layer with tfprune.Rule({weight.layer.name!r}, prune=False), or "
                "give it another criterion.",
            )
        )


def _joined(needing, needs):
    joined = {id(weight): weight for need in needs for weight in needing[need]}
    return list(joined.values())


def _needs(weight, criterion=None):
    return set((criterion or weight.method.criterion).needs)

"""One weight with its mask, and the constraint that enforces it."""

from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._base import validation as check
from tfprune.masks import (
    Competitor,
    DeviceRequest,
    MaskRequest,
    PooledRequest,
    is_masked,
    write_masked,
)


def refusal(call, name):
    """Returns a function that raises, for calls that are impossible while weights are masked."""

    def refused(*args, **kwargs):
        raise ValueError(
            check.message(
                "a layer without masks",
                f"{call} on '{name}', whose weights are masked",
                f"Call tfprune.strip_pruning(model) first, then {call}.",
            )
        )

    return refused


class MaskConstraint(keras.constraints.Constraint):
    """Zeroes the masked values of a weight after each optimizer update, in the compiled step.

    Args:
        mask: bool Keras variable, True = keep.
        user: The weight's existing constraint, or `None`.
    """

    def __init__(self, mask, user=None):
        self.mask = mask
        self.user = user
        self.average = None

    def __call__(self, weight):
        value = weight if self.user is None else self.user(weight)
        if _keras.is_tracing_without_state() and _keras.backend() == "jax":
            # The mask is an argument of the train step, so its value is unknown here.
            # UpdatePruningStep makes the train step itself project the weights.
            return ops.convert_to_tensor(value)
        if self.average is not None:
            self.average.assign(masked(self.average, self.mask))
        return masked(value, self.mask)

    def get_config(self):
        return {} if self.user is None else {"user": self.user}


def masked(value, mask):
    """Returns `value` where `mask` is True, and +0 elsewhere, even in place of NaN."""
    value = ops.convert_to_tensor(value)
    return ops.where(ops.convert_to_tensor(mask), value, ops.zeros((), dtype=value.dtype))


class PrunedWeight(Competitor):
    """One weight with its mask.

    Attributes:
        path: Layer path inside the wrapper and name of the weight: "lstm_cell/kernel".
        name: The same with the wrapper's name: "lstm/lstm_cell/kernel".
        layer: The layer that owns the weight.
        axes: `KernelAxes` of the weight.
        method: The `Method` by which it is pruned.
        variable: The weight.
        mask: The mask, a bool variable of the same shape.
        threshold: Highest score that the latest mask update removed, or `None`.
        initial: Variable with the values at the time of wrapping; `None` unless the criterion
            needs them.
        makes_output: Whether its output channels are those of the layer's output.
        follows: Whether its mask follows from other masks, as that of a bias from its filters.
        coupled: Whether its filters are pruned together with filters of other layers.
        key: Place of the layer inside the wrapper and name of the weight, as configs list them.
        consensus: What ADMM keeps of it, a `Consensus`; `None` unless the criterion needs "dual".
    """

    def __init__(
        self,
        owner,
        path,
        layer,
        entry,
        axes,
        method,
        mask,
        *,
        key="",
        initial=None,
        consensus=None,
        follows=False,
    ):
        self.path = path
        self.name = self._own_name = owner.name_of(path)
        self.layer = layer
        self.axes = axes
        self.method = self._method = method
        self.variable = entry.get(layer)
        self.mask = mask
        self.threshold = None
        self.initial = initial
        self.makes_output = entry.makes_output
        self.follows = follows
        self.coupled = owner.coupled and getattr(method.pattern, "coupled", False) and not follows
        self.key = key
        self.consensus: Any = consensus
        self._entry = entry
        self._zeros = None
        self.attach()
        self.remember_initial()

    def name_below(self, around):
        """Adds the path of the enclosing model to the name: "encoder" to "dense/kernel"."""
        self.name = f"{around}/{self._own_name}" if around else self._own_name

    @property
    def scored(self):
        return [self]

    def request(self, found, position=0, criterion=None):
        return MaskRequest(
            self.array,
            self.method.pattern,
            self.method.criterion if criterion is None else criterion,
            self.axes.resolve(len(self.variable.shape)),
            _keras.host_array(self.mask) if self.zeros else None,
            self.name,
            found.get(id(self)) or {},
            position,
        )

    def device_request(self, found=None, criterion=None):
        """Returns its `DeviceRequest`; nothing is copied to the host. Arguments as of `request`."""
        return self._on_device(DeviceRequest, found, criterion)

    def pooled_request(self, found=None):
        """Returns its `PooledRequest`: scores are pooled where the weight is."""
        return self._on_device(PooledRequest, found)

    def _on_device(self, kind, found, criterion=None):
        criterion = self.method.criterion if criterion is None else criterion
        evidence = (found or {}).get(id(self)) or {}
        return kind(
            ops.convert_to_tensor(self.variable),
            self.method.pattern,
            criterion,
            self.axes.resolve(len(self.variable.shape)),
            ops.convert_to_tensor(self.mask),
            self.zeros,
            self.name,
            tuple(evidence[need] for need in criterion.needs if need in evidence),
        )

    @property
    def is_plain_tensor(self):
        """Whether the weight can be read as one tensor, and is no sum with LoRA weights."""
        added = _keras.with_lora(self.layer, self._entry.name)
        return added is None and _keras.is_one_tensor(self.variable)

    def resolve(self, steps_per_epoch):
        """Converts an epoch-based schedule to steps."""
        self.method = self._method.resolved(steps_per_epoch)

    @property
    def awaits_epochs(self):
        """Whether its schedule still needs the length of an epoch."""
        return self.method.counts_in_epochs

    def attach(self):
        """Sets the mask's constraint on the weight, around any existing constraint."""
        self.constraint = MaskConstraint(self.mask, self.variable.constraint)
        self.variable.constraint = self.constraint
        if not self.follows:
            _keras.mask_lora(self.layer, self._entry.name, self._masked)
            _keras.replace_method(self.layer, "quantize", refusal("quantize()", self.layer.name))

    def detach(self):
        """Restores the weight's own constraint.

        LoRA weights are merged into the weight under the mask, so that it stays sparse.
        """
        if not self.follows:
            _keras.merge_lora(self.layer, self._entry.name, self.variable)
            _keras.restore_method(self.layer, "quantize")
        self.variable.constraint = self.constraint.user
        if self.consensus is not None:
            self.consensus.detach()

    def _masked(self, value):
        return masked(value, self.mask)

    @property
    def array(self):
        """The weight's values as a read-only NumPy array, including LoRA weights."""
        added = _keras.with_lora(self.layer, self._entry.name)
        return _keras.host_array(self.variable) if added is None else _keras.on_host(added)

    @property
    def own_variables(self):
        """The variables that pruning added: the mask, and what else is kept of the weight."""
        initial = [] if self.initial is None else [self.initial]
        return [self.mask, *initial, *(self.consensus.variables if self.consensus else [])]

    def remember_initial(self):
        """Stores the weight's values as initial values if the criterion needs them."""
        if self.initial is not None:
            self.initial.assign(_keras.host_array(self.variable))

    def check_in_place(self):
        """Raises ValueError if the layer no longer computes with the masked weight."""
        if self._entry.get(self.layer) is not self.variable:
            raise ValueError(
                check.message(
                    f"layer '{self.layer.name}' to compute with the weight that its mask was "
                    "made for",
                    "a layer that was quantized, or whose weight was replaced, while wrapped",
                    "Call tfprune.strip_pruning(model) first, then quantize().",
                )
            )

    @property
    def zeros(self):
        """Number of pruned weights."""
        if self._zeros is None:
            away = _keras.on_accelerator(self.mask) or _keras.spans_processes(self.mask.value)
            if away and _keras.is_one_tensor(self.mask):
                self._zeros = self.size - _keras.count_kept(self.mask)
            else:
                mask = _keras.host_array(self.mask)
                self._zeros = int(mask.size - np.count_nonzero(mask))
        return self._zeros

    @property
    def size(self):
        """Number of weights."""
        return int(np.prod(self.variable.shape))

    def set_mask(self, mask, zeros=None):
        """Assigns a mask and zeroes the masked values of the weight.

        Args:
            mask: The mask, a bool array or a tensor.
            zeros: How many weights it prunes, if that is known.
        """
        if zeros is None and isinstance(mask, np.ndarray):
            zeros = int(mask.size - np.count_nonzero(mask))
        self._zeros = zeros
        self.mask.assign(mask)
        for variable in self._projected:
            self._project(variable)

    def forget_count(self):
        """Drops the cached count after another object wrote the mask variable."""
        self._zeros = None

    def project_average(self, average):
        """Makes the constraint also project the weight's moving average; `None` for none."""
        self.constraint.average = average

    def project(self):
        """Zeroes the masked values of the weight and of its moving average."""
        for variable in self._projected:
            # To read is faster than to write, and mostly there is nothing to do.
            if not _keras.rewritable(variable) or not is_masked(
                _keras.host_array(variable), _keras.host_array(self.mask)
            ):
                self._project(variable)

    @property
    def _projected(self):
        average = self.constraint.average
        return [self.variable] if average is None else [self.variable, average]

    def _project(self, variable):
        def write(old, new):
            write_masked(old, _keras.host_array(self.mask), new)

        if not _keras.rewrite(variable, write):
            variable.assign(masked(variable, self.mask))


def check_unmasked(variable, path):
    if isinstance(variable.constraint, MaskConstraint):
        raise ValueError(
            check.message(
                f"one pruning wrapper around {path}",
                "a layer whose weight has the mask of another wrapper",
                "Use the existing wrapper, or wrap a copy of the layer, made with "
                "tfprune.strip_pruning(wrapper).",
            )
        )

"""Finds chains of layers that XNNPACK can run with its sparse kernels."""

from dataclasses import dataclass, field

import keras

from tfprune import _keras
from tfprune._layers import facts

# Activations that the converter writes as one elementwise operation or as a product.
_ACTIVATIONS = (
    "elu",
    "gelu",
    "hard_silu",
    "leaky_relu",
    "linear",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "tanh",
)
_AROUND = {3: ((1, 1), (1, 1)), 5: ((2, 2), (2, 2))}


@dataclass(eq=False)
class Step:
    """One call of a layer, or of an operation that is not a layer.

    Attributes:
        layer: The layer.
        inputs: The steps whose outputs it reads; `None` for the model's inputs.
        shapes: The shapes of its inputs.
        readers: The steps that read its output.
        is_output: Whether the model returns its output.
    """

    layer: object
    inputs: list
    shapes: list
    readers: list = field(default_factory=list)
    is_output: bool = False


def is_pointwise(layer):
    """Whether a layer is a 1x1 convolution of stride 1 with one group."""
    return _is_convolution(layer) and layer.kernel_size == (1, 1) and not _pointwise_problems(layer)


def steps(model):
    """Lists the steps of a model and of its nested models, in the order of execution."""
    found: list = []

    def visit(call, given):
        if _is(call.layer, "transparent"):
            return given[:1]
        step = Step(call.layer, given, call.shapes)
        found.append(step)
        return [step] * len(call.outputs)

    for step in _keras.follow_calls(model, [None] * len(model.inputs), visit):
        if step is not None:
            step.is_output = True
    for step in found:
        for producer in step.inputs:
            if producer is not None:
                producer.readers.append(step)
    return found


def problems(model):
    """Lists the obstacles to running a model sparse, one sentence per layer; empty if none.

    Args:
        model: A built Sequential or Functional model.
    """
    found = steps(model)
    points = [step for step in found if is_pointwise(step.layer)]
    said = [] if points else ["there is no 1x1 Conv2D of stride 1 without groups"]
    exits = [step for step in found if _is_average(step)]
    closing = [step for step in exits if _pointwise_before(step)]
    if points and not closing:
        said.append("there is no GlobalAveragePooling2D after 1x1 convolutions to end the chain")
    members, wrong = _chain(_last(closing or points or exits))
    if closing:
        wrong |= {step: told for step in members if (told := _leak(step, members, wrong))}
        wrong |= {step: told for step in found if (told := _convolution_on_average(step, members))}
    return said + [wrong[step] for step in found if step in wrong]


def _last(ends):
    """Returns the ends that no other end depends on."""
    inside = set().union(*(_before(step) for step in ends)) if ends else set()
    return [step for step in ends if step not in inside]


def _before(step):
    """Returns the steps that a step depends on."""
    seen: set = set()
    waiting = [step]
    while waiting:
        new = {producer for producer in waiting.pop().inputs if producer is not None} - seen
        seen |= new
        waiting += new
    return seen


def _pointwise_before(step):
    return any(is_pointwise(other.layer) for other in _before(step))


def _chain(ends):
    """Returns the steps between entries and ends, and `{step: obstacle}`."""
    members, wrong, waiting = set(), {}, list(ends)
    while waiting:
        step = waiting.pop()
        if step in members or step in wrong:
            continue
        if _is_entry(step):
            problem, further = _entry_problem(step), []
        else:
            problem, further = _inside_problem(step), step.inputs
            if not problem and None in further:
                problem = (
                    f"{_name(step)} reads the model's input (ZeroPadding2D(1) and a Conv2D 3x3 of "
                    "stride 2 on 3 channels before it would fit)"
                )
        if problem:
            wrong[step] = problem
        else:
            members.add(step)
        waiting += [producer for producer in further if producer is not None]
    return members, wrong


def _leak(step, members, wrong):
    """Describes a step in the chain whose output is read outside the chain; `None` if none."""
    if not any(reader in members for reader in step.readers):
        return None
    if step.is_output:
        return f"{_name(step)} is an output of the model (an output after the chain would fit)"
    known = members | wrong.keys()
    outside = [_name(reader) for reader in step.readers if reader not in known]
    if not outside:
        return None
    return (
        f"{_name(step)} is also read by {', '.join(outside)}, outside of the chain (a reader "
        "after the chain would fit)"
    )


def _convolution_on_average(step, members):
    """Describes a 1x1 convolution on the final average: LiteRT cannot open such a file."""
    on_average = any(_is_average(other) for other in step.inputs if other in members)
    if step in members or not on_average or not _is_convolution(step.layer):
        return None
    return f"{_name(step)} is a convolution on the average (a Dense layer would fit)"


# -- Single layers ---------------------------------------------------------------------------------


def _name(step):
    return f"'{step.layer.name}'"


def _is(layer, kind):
    return facts.fact(layer, "xnnpack") == kind


def _is_convolution(layer):
    return _is(layer, "convolution")


def _is_average(step):
    """Whether a step is a GlobalAveragePooling2D, or a keras.ops.mean over height and width."""
    layer = step.layer
    if _is(layer, "average"):
        return True
    axes = getattr(layer, "axis", None)
    named = type(layer).__name__ == "Mean" and not isinstance(layer, keras.layers.Layer)
    return named and isinstance(axes, (list, tuple)) and {axis % 4 for axis in axes} == {1, 2}


def _is_entry(step):
    """Whether a step is a convolution larger than 1x1 without a 1x1 convolution before it."""
    layer = step.layer
    return _is_convolution(layer) and layer.kernel_size != (1, 1) and not _pointwise_before(step)


def _joined(step, misfits):
    """`'name' has a=1 (2 would fit), b=3 (4 would fit)`, or `None` without misfits."""
    told = [f"{setting} ({mend} would fit)" for setting, mend in misfits]
    return f"{_name(step)} has {', '.join(told)}" if told else None


def _settings(layer, wanted):
    """Lists `(setting, fitting value)` for each attribute of a layer that does not fit."""
    return [
        (f"{name}={getattr(layer, name)!r}", str(fitting[-1]))
        for name, fitting in wanted.items()
        if getattr(layer, name) not in fitting[:-1]
    ]


def _layout(layer):
    return _settings(layer, {"data_format": ("channels_last", "'channels_last'")})


def _pointwise_problems(layer):
    return _settings(layer, {"strides": ((1, 1), 1), "groups": (1, 1)}) + _layout(layer)


def _function(layer):
    """Returns the name of a layer's activation as Keras serializes it."""
    name = keras.activations.serialize(layer.activation)
    return name if isinstance(name, str) else getattr(layer.activation, "__name__", str(name))


def _activation_problems(layer):
    name = _function(layer)
    return [] if name in _ACTIVATIONS else [(f"activation={name!r}", "'relu'")]


def _padded(step):
    """Returns the padding of a ZeroPadding2D that only this convolution reads, or `None`."""
    (producer,) = step.inputs
    if producer is None or not _is(producer.layer, "zeros"):
        return None
    return producer.layer.padding if producer.readers == [step] else None


def _entry_problem(step):
    layer = step.layer
    wanted = {"kernel_size": ((3, 3), 3), "strides": ((2, 2), 2), "groups": (1, 1)}
    misfits = _settings(layer, {**wanted, "dilation_rate": ((1, 1), 1)}) + _layout(layer)
    if step.shapes[0][-1] != 3:
        misfits.append((f"{step.shapes[0][-1]} input channels", "3"))
    return _joined(step, misfits + _padding_problems(step, 3) + _activation_problems(layer))


def _padding_problems(step, size):
    """Lists misfits of the padding, which must be the same on all sides."""
    layer, padded, around = step.layer, _padded(step), _AROUND[size]
    if layer.padding == "same" and layer.strides == (1, 1) and padded is None:
        return []
    if layer.padding == "valid" and padded == around:
        return []
    before = "no zeros around its input" if padded is None else f"padding {padded} before it"
    setting = f"padding={layer.padding!r} and {before}"
    return [(setting, f"ZeroPadding2D({size // 2}) for it alone and padding='valid'")]


def _inside_problem(step):
    layer = step.layer
    if _is(layer, "depthwise"):
        return _joined(step, _depthwise_problems(step))
    if _is_convolution(layer):
        if layer.kernel_size == (1, 1):
            return _joined(step, _pointwise_problems(layer) + _activation_problems(layer))
        size = f"kernel_size={layer.kernel_size}"
        return _joined(step, [(size, "a depthwise convolution and a 1x1")])
    if _is(layer, "zeros"):
        return _zeros_problem(step)
    if _is_average(step):
        return _joined(step, _layout(layer) if isinstance(layer, keras.layers.Layer) else [])
    kind = facts.fact(layer, "xnnpack")
    if isinstance(layer, (_keras.AddOperation, _keras.MultiplyOperation)):
        # `x + r` and `Add()([x, r])` come to the same.
        kind = "merge"
    if kind in _INSIDE:
        return _joined(step, _INSIDE[kind](step))
    return (
        f"{_name(step)} is a {type(layer).__name__}, which has no kernel in this layout (a chain "
        "without it would fit)"
    )


def _depthwise_problems(step):
    layer = step.layer
    wanted = {
        "kernel_size": ((3, 3), (5, 5), "3 or 5"),
        "strides": ((1, 1), (2, 2), "1 or 2"),
        "depth_multiplier": (1, 1),
        "dilation_rate": ((1, 1), 1),
    }
    misfits = _settings(layer, wanted) + _layout(layer)
    if layer.kernel_size in ((3, 3), (5, 5)):
        misfits += _padding_problems(step, layer.kernel_size[0])
    return misfits + _activation_problems(layer)


def _zeros_problem(step):
    """Accepts padding that a following convolution absorbs."""
    fits = all(_is(reader.layer, "depthwise") or _is_entry(reader) for reader in step.readers)
    return None if fits else _joined(step, [("no depthwise convolution after it", "one")])


def _merge_problems(step):
    number = len(step.inputs)
    if number != 2:
        return [(f"{number} inputs", "2")]
    flat = [shape for shape in step.shapes if len(shape) != 4]
    return [(f"an input of shape {shape}", "four axes") for shape in flat]


def _relu_problems(step):
    return _settings(step.layer, {"threshold": (0, 0)})


def _normalization_problems(step):
    """Accepts a normalization that the convolution directly before it absorbs."""
    (producer,) = step.inputs
    layer = getattr(producer, "layer", None)
    folds = (
        (_is(layer, "depthwise") or _is_convolution(layer))
        and _function(layer) == "linear"
        and producer.readers == [step]
    )
    return [] if folds else [("no convolution without activation just before it", "one")]


def _upsampling_problems(step):
    wanted = {"interpolation": ("bilinear", "'bilinear'")}
    return _settings(step.layer, wanted) + _layout(step.layer)


# By the kind in the table of layer facts.
_INSIDE = {
    "activation": lambda step: _activation_problems(step.layer),
    "alone": lambda step: [],
    "merge": _merge_problems,
    "normalization": _normalization_problems,
    "relu": _relu_problems,
    "upsampling": _upsampling_problems,
}

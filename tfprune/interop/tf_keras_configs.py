"""Converts configs of tf_keras (Keras 2) to Keras 3 layers and models."""

import inspect

import keras

from tfprune._base import validation as check

# Entries unknown to Keras 3, and their values that have no effect.
_ANY = object()
_WITHOUT_MEANING: dict = {
    "batch_input_shape": _ANY,
    "fused": _ANY,
    "implementation": _ANY,
    "input_length": _ANY,
    "sparse": _ANY,
    "query_shape": _ANY,
    "key_shape": _ANY,
    "value_shape": _ANY,
    "groups": (1,),
    "noise_shape": (None,),
    "trainable": (True, False),
    "time_major": (False,),
    "softmax_robust_masking": (False,),
    "ragged": (False,),
    "optional": (False,),
}
# Entries that a class of tf_keras has but does not use.
_KERNEL = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
_UNUSED = {"SeparableConv1D": _KERNEL, "SeparableConv2D": _KERNEL}
_RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}}
_OTHER_CLASS = {"SyncBatchNormalization": ("BatchNormalization", {"synchronized": True})}
_ACTIVATIONS = ("activation", "recurrent_activation")


class ConvertedModel:
    """A Keras 3 model made from the config of a tf_keras model, with its layers by path.

    Attributes:
        model: The model, with fresh weights.
        layers: `{path: layer}`. A path is a tuple of the names of the enclosing models and of the
            layer, as in tf_keras, including those of pruning wrappers.
    """

    def __init__(self, class_name, config, custom_objects):
        self._objects = dict(custom_objects)
        self.layers: dict = {}
        with keras.saving.custom_object_scope(self._objects):
            self.model = self._graph(class_name, config, ())

    # -- Models --------------------------------------------------------------------------------

    def _graph(self, class_name, config, path):
        if "input_layers" in config:
            return self._functional(class_name, config, path)
        return self._sequential(config, path)

    def _sequential(self, config, path):
        layers, inputs = [], []
        taken = _plain_names(config)
        for entry in config["layers"]:
            if entry["class_name"] == "InputLayer":
                inputs = [_input(entry["config"])]
            else:
                layers.append(self._part(entry, path, taken))
        shape = config.get("build_input_shape")
        if not inputs and shape:
            inputs = [keras.Input(batch_shape=tuple(shape))]
        return keras.Sequential([*inputs, *layers], name=config["name"])

    def _functional(self, class_name, config, path):
        made: dict = {}
        # Output tensors of calls, by the name of the layer and the number of the call.
        tensors: dict = {}
        waiting = []
        taken = _plain_names(config)
        for entry in config["layers"]:
            name = entry["config"].get("name", entry.get("name"))
            if entry["class_name"] == "InputLayer":
                tensors[name, 0] = [_input(entry["config"])]
                continue
            made[name] = self._part(entry, path, taken)
            first = 1 if _begins_with_input(entry) else 0
            for number, node in enumerate(entry["inbound_nodes"]):
                waiting.append((name, first + number, node))
        while waiting:
            left = [call for call in waiting if not self._called(call, made, tensors)]
            if len(left) == len(waiting):
                raise ValueError(
                    check.message(
                        "a graph in which each layer gets its inputs",
                        f"model '{config['name']}', where {left[0][0]!r} gets none",
                        "Save the model again with the tf_keras that made it.",
                    )
                )
            waiting = left
        inputs, outputs = (
            _resolved(_unpacked(config[key]), tensors) for key in ("input_layers", "output_layers")
        )
        cls = self._objects.get(class_name, keras.Model)
        return cls(inputs=inputs, outputs=outputs, name=config["name"])

    @staticmethod
    def _called(call, made, tensors):
        """Calls a layer if its inputs are available; returns whether it did."""
        name, number, node = call
        references = list(_references(node))
        if any(reference[:2] not in tensors for reference in references):
            return False
        leaves = node if not isinstance(node, dict) else list(node.values())
        kwargs = leaves[0][3] if leaves and len(leaves[0]) > 3 else {}
        kwargs = {
            key: _resolved(value, tensors) for key, value in kwargs.items() if value is not None
        }
        inputs = _resolved(_unpacked(node), tensors)
        if isinstance(made[name], (keras.layers.RNN, keras.layers.Bidirectional)):
            # tf_keras appends state tensors to the sequence.
            sequence, *states = inputs if isinstance(inputs, list) else [inputs]
            inputs, kwargs = sequence, {**kwargs, **({"initial_state": states} if states else {})}
        output = made[name](inputs, **kwargs)
        tensors[name, number] = keras.tree.flatten(output)
        return True

    def _part(self, entry, path, taken):
        """Returns the layer or model described by an entry of a model's list of layers."""
        name = entry["config"]["name"]
        if entry["class_name"] == "PruneLowMagnitude":
            entry = entry["config"]["layer"]
            inner = entry["config"]["name"]
            # Drop the wrapper's prefix, unless another layer has the plain name.
            kept = name if inner in taken else inner
            taken.add(kept)
            entry = {**entry, "config": {**entry["config"], "name": kept}}
        if "layers" in entry["config"]:
            return self._graph(entry["class_name"], entry["config"], (*path, name))
        layer = self._layer(entry)
        self.layers[(*path, name)] = layer
        return layer

    # -- Layers --------------------------------------------------------------------------------

    def _layer(self, entry):
        name, class_name = entry["config"].get("name"), entry["class_name"]
        cls, config = self._class(entry), dict(entry["config"])
        if cls.__module__.split(".")[0] == "keras":
            config.update(_OTHER_CLASS.get(class_name, (None, {}))[1])
            for unused in _UNUSED.get(class_name, ()):
                config.pop(unused, None)
            for old, new in _RENAMED.get(class_name, {}).items():
                config[new] = config.pop(old)
            config = _known(cls, config, name)
        config.pop("batch_input_shape", None)
        config = {key: self._value(key, value, name) for key, value in config.items()}
        try:
            return cls.from_config(config)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                check.message(
                    f"layer {name!r} to have a config that {cls.__name__} of Keras 3 accepts",
                    f"{type(error).__name__}: {error}",
                    "Pass a class of that name that accepts it in `custom_objects`.",
                )
            ) from error

    def _class(self, entry):
        class_name = entry["class_name"]
        for known in (entry.get("registered_name"), class_name):
            found = known and keras.saving.get_registered_object(known, self._objects)
            if found:
                return found
        native = _OTHER_CLASS.get(class_name, (class_name, None))[0]
        cls = getattr(keras.layers, native, None)
        if cls is None or class_name == "Lambda" or not _of_keras(entry):
            mend = f"Pass custom_objects={{{class_name!r}: a Keras 3 layer of that config}}."
            if class_name in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "Lambda"):
                mend = (
                    "Before saving the model, write the operation as a layer, for instance Add or "
                    "Reshape, or as a custom layer class."
                )
            raise ValueError(
                check.message(
                    "layers with a counterpart in Keras 3",
                    f"{entry['config'].get('name')!r}, a {class_name}",
                    mend,
                )
            )
        return cls

    def _value(self, key, value, name):
        if isinstance(value, list):
            return [self._value(key, item, name) for item in value]
        if isinstance(value, str) and key in _ACTIVATIONS:
            return self._activation(value, name)
        if not isinstance(value, dict):
            return value
        if set(value) < {"class_name", "config"} or "class_name" not in value:
            return {k: self._value(k, v, name) for k, v in value.items()}
        if value["class_name"] == "function":
            return self._activation(value["config"], name)
        if "Policy" in value["class_name"]:
            return value["config"]["name"]
        if isinstance(value["config"], dict) and self._is_layer(value):
            layer = (
                self._graph(value["class_name"], value["config"], ("", name))
                if "layers" in value["config"]
                else self._layer(value)
            )
            return keras.saving.serialize_keras_object(layer)
        return {k: value[k] for k in ("class_name", "config")}

    def _is_layer(self, value):
        known = (
            keras.saving.get_registered_object(key, self._objects)
            for key in (value.get("registered_name"), value["class_name"])
            if key
        )
        found = next(filter(None, known), None)
        if found is not None:
            return isinstance(found, type) and issubclass(found, keras.layers.Layer)
        if value.get("module") in ("keras.layers", "keras", "keras.models"):
            return True
        return "name" in value["config"] and hasattr(keras.layers, value["class_name"])

    def _activation(self, value, name):
        found = keras.saving.get_registered_object(value, self._objects)
        if found is not None:
            return found
        if value == "hard_sigmoid":
            raise ValueError(
                check.message(
                    "activations that compute the same in Keras 3 as in tf_keras",
                    f"'hard_sigmoid' in layer {name!r}, which is clip(0.2 * x + 0.5, 0, 1) in "
                    "tf_keras, but clip(x / 6 + 0.5, 0, 1) in Keras 3",
                    "Pass custom_objects={'hard_sigmoid': f}, where f computes the first formula, "
                    "has another name, and is registered with "
                    "keras.saving.register_keras_serializable().",
                )
            )
        return value


def _plain_names(config):
    """Returns the names of the unwrapped layers of a model."""
    return {
        entry["config"].get("name")
        for entry in config["layers"]
        if entry["class_name"] != "PruneLowMagnitude"
    }


def _of_keras(entry):
    """Whether a class belongs to tf_keras; older files do not record the module."""
    module = entry.get("module") or "keras"
    return module.split(".")[0] in ("keras", "tf_keras")


def _known(cls, config, name):
    """Returns the entries that a Keras 3 class accepts; raises if another one has an effect."""
    taken: set = set()
    for base in cls.__mro__:
        arguments = inspect.signature(base.__init__).parameters
        taken |= set(arguments)
        if all(argument.kind is not argument.VAR_KEYWORD for argument in arguments.values()):
            break
    else:
        taken |= {"name", "trainable", "dtype", "activity_regularizer"}
    kept = {}
    for key, value in config.items():
        if key == "axis" and cls is keras.layers.BatchNormalization and isinstance(value, list):
            (value,) = value
        if key in taken:
            kept[key] = value
        elif _WITHOUT_MEANING.get(key) is not _ANY and value not in _WITHOUT_MEANING.get(key, ()):
            raise ValueError(
                check.message(
                    f"a config that {cls.__name__} of Keras 3 supports",
                    f"{key}={value!r} in layer {name!r}",
                    "Build the layer without it, or pass a custom class in `custom_objects`.",
                )
            )
    return kept


def _input(config):
    if config.get("ragged"):
        raise ValueError(
            check.message(
                "inputs that Keras 3 supports",
                f"{config['name']!r}, which is ragged",
                "Pad its rows to the same length.",
            )
        )
    shape = config.get("batch_input_shape", config.get("batch_shape"))
    return keras.Input(
        batch_shape=tuple(shape),
        dtype=config["dtype"],
        sparse=config.get("sparse", False),
        name=config["name"],
    )


def _begins_with_input(entry):
    """Whether tf_keras counts the calls of a nested model from 1; call 0 is on its own input."""
    layers = entry["config"].get("layers")
    if not layers:
        return False
    return "input_layers" in entry["config"] or layers[0]["class_name"] == "InputLayer"


# -- References to tensors: [layer, number of the call, number of the tensor, (arguments)] ---------


def _is_reference(value):
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and value[0] != "_CONSTANT_VALUE"
    )


def _references(value):
    """Yields all references in a structure, including its arguments."""
    if _is_reference(value):
        yield tuple(value[:3])
        value = value[3] if len(value) == 4 else {}
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _references(part)


def _resolved(value, tensors):
    """Returns the structure with references replaced by tensors."""
    if _is_reference(value):
        return tensors[tuple(value[:2])][value[2]]
    if isinstance(value, list) and value[:1] == ["_CONSTANT_VALUE"]:
        return keras.ops.convert_to_tensor(value[2])
    if isinstance(value, dict):
        return {key: _resolved(part, tensors) for key, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part, tensors) for part in value]
    return value


def _unpacked(structure):
    """Unpacks the one-element list in which tf_keras stores a single tensor."""
    if isinstance(structure, list) and len(structure) == 1 and isinstance(structure[0], list):
        return structure[0]
    return structure

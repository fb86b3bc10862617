"""Error messages for layers and models that cannot be pruned."""

import keras

from tfprune import _keras
from tfprune._base import validation as check


def nothing_to_prune(layer):
    """The message for a layer without any prunable weight."""
    return check.message(
        f"'{layer.name}' to have a prunable weight",
        f"a {type(layer).__name__}",
        "Leave this layer unwrapped, or name its weights with "
        f"tfprune.register_prunable({type(layer).__name__}, [...]).",
    )


def nothing_left(layer):
    """The message for a layer or model in which rules or a policy exempt every weight."""
    return check.message(
        f"at least one prunable weight in '{layer.name}'",
        "rules or a policy that exempt every one",
        "Remove the rule with prune=False, or the policy; or do not wrap it.",
    )


def check_built(model):
    """Raises unless a model is built."""
    if not model.built:
        raise ValueError(
            check.message(
                "a built model",
                f"'{model.name}', which has no weights yet",
                "Give it a keras.Input, call model.build(input_shape), or call it on data once.",
            )
        )


def check_model(model):
    """Raises unless `model` is a built Keras 3 model."""
    if not isinstance(model, keras.Model):
        raise TypeError(not_keras(model, "model"))
    check_built(model)


def check_followable(model, name="model"):
    """Raises unless `model` is a built Sequential or Functional model."""
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(not_keras(model, name))
    if not isinstance(model, keras.Model):
        raise TypeError(
            check.message(
                "a model",
                f"the layer '{model.name}'",
                "Put it into a keras.Sequential with an Input.",
            )
        )
    check_built(model)
    if not _keras.runs_as_graph(model):
        raise ValueError(
            check.message(
                "a Sequential or Functional model, whose layers form a graph",
                f"'{model.name}' of class {type(model).__name__}, whose call() is code",
                "Connect the same layers with keras.Model(inputs, outputs).",
            )
        )


def not_keras(thing, name):
    """The message for an object that is not a Keras 3 layer or model."""
    modules = [base.__module__ for base in type(thing).__mro__]
    if any(module.split(".")[0] == "tf_keras" for module in modules) or any(
        module.startswith(("tensorflow.python.keras", "keras.legacy")) for module in modules
    ):
        received = f"a tf_keras object, {type(thing).__module__}.{type(thing).__name__}"
        mend = (
            "Build the model with `import keras` (Keras 3) instead of tf_keras; if "
            "TF_USE_LEGACY_KERAS is set, `tf.keras` is tf_keras too."
        )
    else:
        received = f"{name}={type(thing).__name__}"
        mend = "Pass a keras.Model, a keras.layers.Layer, or a list of layers."
    return check.message("a Keras 3 layer or model", received, mend)

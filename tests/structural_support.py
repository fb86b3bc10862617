"""Models with numbers that matter, channels silenced by hand, and how far two models differ."""

import keras
import numpy as np
from keras import layers

from tfprune import _keras


def randomize(model, seed=0):
    """Gives every weight of a model numbers that make a difference."""
    random = np.random.default_rng(seed)
    for layer in _keras.flatten(model):
        for weight in layer.weights if not _keras.children(layer) else []:
            if "seed_generator" in weight.path or not weight.dtype.startswith("float"):
                continue
            value = random.normal(size=weight.shape)
            if weight.name == "embeddings":
                value = value * 1.5
            elif weight.name in ("gamma", "moving_variance"):
                value = random.uniform(0.5, 1.5, weight.shape)
            elif weight.name not in ("kernel", "depthwise_kernel", "pointwise_kernel"):
                value = random.normal(0, 0.3, weight.shape)
            else:
                value = value / np.sqrt(max(np.prod(weight.shape[:-1]), 1)) * 1.5
            weight.assign(value)
    return model


def copy(model):
    """The same model with the same weights, by Keras alone."""
    new = keras.models.clone_model(model)
    new.set_weights(model.get_weights())
    return new


def layer_at(model, path):
    """The layer at a path, inside models and inside layers."""
    return dict(chain[-1] for chain in _keras.walk(model))[path]


def zeroed(model, group, units, reads):
    """Zeroes what the weights of a group hold of some of its channels."""
    for member in group.members:
        if member.reads != reads:
            continue
        layer = layer_at(model, member.layer)
        (weight,) = [w for w in layer.weights if w.name == member.weight]
        value = np.moveaxis(weight.numpy().copy(), member.axis, 0)
        value[np.isin(member.units, units)] = 1.0 if member.weight == "moving_variance" else 0.0
        weight.assign(np.moveaxis(value, 0, member.axis))


def unread(model, group, units):
    """Lets no layer see some channels of a group: they are zero wherever they are read."""
    zeroed(model, group, units, reads=True)
    if any(member.weight == "scale" for member in group.members):
        # An RMSNormalization reads them without weights.
        zeroed(model, group, units, reads=False)


def choice(groups, share, seed=0):
    """A share of the removable channels of each group, `[(group, units)]`; one always stays."""
    random = np.random.default_rng(seed)
    chosen = []
    for group in groups:
        free = np.setdiff1d(np.arange(group.size), list(group.fixed))
        number = min(int(np.ceil(len(free) * share)), group.removable)
        if number > 0:
            units = np.sort(random.permutation(free)[:number])
            # No layer may lose its last channel; each coupled one can have some of them only.
            for path_units in group.makers.values():
                if np.isin(path_units, units).all():
                    units = np.setdiff1d(units, path_units[:1])
            chosen.append((group, units))
    return chosen


def as_channels(chosen):
    """What `remove_channels` takes."""
    found = {}
    for group, units in chosen:
        for path, path_units in group.makers.items():
            found[path] = np.flatnonzero(np.isin(path_units, units)).tolist()
    return found


def data(model, batch=6, seed=1):
    random = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (batch, *[size or 5 for size in tensor.shape[1:]])
        if "int" in tensor.dtype:
            arrays.append(random.integers(0, 7, shape))
        else:
            arrays.append(random.normal(size=shape).astype("float32"))
    return arrays if len(arrays) > 1 else arrays[0]


def outputs(model, x):
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def spread(arrays):
    """How much the outputs differ from input to input, in parts of their size, at least."""
    return min(float(np.std(y, axis=0).max() / np.abs(y).max()) for y in arrays)


def distance(model, other, x):
    """The largest difference of two models' outputs, in parts of the outputs' spread."""
    ours, theirs = outputs(model, x), outputs(other, x)
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(a - b).max() / np.std(a, axis=0).max()) for a, b in pairs)


def residual(bias=True, scale=True):
    """A small network with a connection around two convolutions."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=bias, name="stem")(inputs)
    x = layers.BatchNormalization(name="norm", scale=scale)(x)
    x = layers.ReLU()(x)
    y = layers.Conv2D(16, 3, padding="same", activation="relu", name="wide")(x)
    y = layers.Conv2D(8, 3, padding="same", use_bias=bias, name="back")(y)
    y = layers.BatchNormalization(name="norm_2", scale=scale)(y)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(3, name="out")(x))


def examples(number=32):
    """Random images and targets for `residual`."""
    random = np.random.default_rng(0)
    x = random.normal(size=(number, 6, 6, 3)).astype("float32")
    return x, random.normal(size=(number, 3)).astype("float32")

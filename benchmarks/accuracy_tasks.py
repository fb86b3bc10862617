"""Data and models of the accuracy benchmark."""

import pathlib

import keras
import numpy as np
from keras import layers


def data_set(name, folder):
    """Returns `(x_train, y_train), (x_test, y_test)`: from `folder/name.npz`, or from Keras."""
    if folder is None:
        train, test = getattr(keras.datasets, name).load_data()
    else:
        with np.load(pathlib.Path(folder) / f"{name}.npz") as found:
            train = found["x_train"], found["y_train"]
            test = found["x_test"], found["y_test"]
    return tuple((_scaled(x), np.asarray(y).reshape(-1).astype("int32")) for x, y in (train, test))


def _scaled(images):
    images = images.astype("float32") / 255
    return images[..., None] if images.ndim == 3 else (images - 0.473) / 0.251


def mnist_cnn(library=keras):
    """Conv 32, Conv 64, Dense 128, Dense 10."""
    kinds = library.layers
    return library.Sequential(
        [
            kinds.InputLayer((28, 28, 1)),
            kinds.Conv2D(32, 3, activation="relu"),
            kinds.MaxPooling2D(),
            kinds.Conv2D(64, 3, activation="relu"),
            kinds.MaxPooling2D(),
            kinds.Flatten(),
            kinds.Dense(128, activation="relu"),
            kinds.Dense(10),
        ]
    )


def lenet():
    """LeNet-300-100."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
            layers.Dense(10),
        ]
    )


def small_resnet():
    """ResNet-20 for CIFAR-10: three stages of three blocks, 0.27 M parameters."""

    def convolution(x, filters, stride, size=3):
        x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(convolution(inputs, 16, 1))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            y = layers.ReLU()(convolution(x, filters, stride))
            y = convolution(y, filters, 1)
            x = x if y.shape[1:] == x.shape[1:] else convolution(x, filters, stride, 1)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def compiled(model, optimizer, library=keras):
    """Compiles a classifier."""
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model

"""What the tutorials share: the data, the model, their options and how they end."""

import argparse
import sys
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np

BATCH_SIZE = 64


def argument_parser(description):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.error = fail  # One line instead of the whole usage.
    parser.add_argument("--data", default="digits", help="digits, a keras.datasets name, a folder")
    parser.add_argument("--name", help="which .npz file of the folder, if there are several")
    parser.add_argument("--output", type=Path, help="folder for what is saved; a temporary one")
    return parser


def check_epochs(epochs):
    if epochs is not None and epochs < 1:
        fail(f"--epochs has to be at least 1, not {epochs}")


def output_folder(given):
    name = Path(sys.argv[0]).stem.replace("_", "-")
    try:
        folder = given or Path(tempfile.mkdtemp(prefix=f"tfprune-{name}-"))
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(error)
    return folder


def load_data(source, name):
    """Returns x_train, y_train, x_test, y_test: images from 0 to 1 with channels, class numbers."""
    if source == "digits":
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        x_train, x_test, y_train, y_test = train_test_split(
            images.reshape(-1, 8, 8), labels, test_size=0.2, stratify=labels, random_state=0
        )
    elif source in ("mnist", "fashion_mnist", "cifar10"):
        try:
            (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, source).load_data()
        except Exception as error:
            fail(f"cannot download {source}: {error}")
    else:
        x_train, y_train, x_test, y_test = load_npz(Path(source), name)
    scale = np.float32(x_train.max())
    if x_train.ndim == 3:
        x_train, x_test = x_train[..., None], x_test[..., None]
    return x_train / scale, y_train.reshape(-1), x_test / scale, y_test.reshape(-1)


def load_npz(folder, name):
    if not folder.is_dir():
        fail(f"--data {folder}: neither digits, mnist, fashion_mnist, cifar10 nor a folder")
    found = {path.stem: path for path in sorted(folder.glob("*.npz"))}
    name = next(iter(found)) if name is None and len(found) == 1 else name
    if name not in found:
        fail(f"--data {folder}: choose one with --name: {', '.join(found) or 'no .npz file there'}")
    try:
        with np.load(found[name]) as arrays:
            data = [arrays[key] for key in ("x_train", "y_train", "x_test", "y_test")]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        fail(f"{found[name]} cannot be used: {error}")
    if data[0].ndim not in (3, 4) or len(data[0]) != len(data[1]) or not data[0].max() > 0:
        fail(f"{found[name]} cannot be used: x_train has to be images, with one y_train each")
    return data


def build_cnn(shape, classes):
    layers = keras.layers
    strides = 2 if shape[0] > 16 else 1
    # With names, layers are called the same in every copy of the model. Random masks go by them.
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(32, 3, strides, "same", activation="relu", name="conv_1"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu", name="hidden"),
            layers.Dropout(0.3),
            layers.Dense(classes, activation="softmax", name="output"),
        ]
    )


def fail(message):
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")

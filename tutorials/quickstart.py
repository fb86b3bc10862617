"""Train a small CNN, prune it, strip it, save it, and see what it costs and saves.

python tutorials/quickstart.py                    handwritten digits, no download
python tutorials/quickstart.py --data mnist       downloads MNIST; also fashion_mnist, cifar10
python tutorials/quickstart.py --data FOLDER      an .npz file with x_train, y_train, x_test, y_test
"""

import argparse
import gzip
import os
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfprune

BATCH_SIZE = 64
EPOCHS = {"digits": 30, "cifar10": 10}  # The others: 3.


def main():
    args = parse_arguments()
    x_train, y_train, x_test, y_test = load_data(args.data, args.name)
    epochs = args.epochs or EPOCHS.get(args.data, 3)
    try:
        output = args.output or Path(tempfile.mkdtemp(prefix="tfprune-quickstart-"))
        output.mkdir(parents=True, exist_ok=True)
        schedule = tfprune.PolynomialDecay.from_epochs(
            0.0,
            args.sparsity,
            steps_per_epoch=-(-len(x_train) // BATCH_SIZE),
            end_epoch=epochs * 2 / 3,
        )
    except (OSError, ValueError) as error:
        fail(error)
    keras.utils.set_random_seed(0)

    def train(model, callbacks=None):
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(x_train, y_train, batch_size=BATCH_SIZE, epochs=epochs, callbacks=callbacks)
        return model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]

    print(f"\n1. Train the dense model on {len(x_train):,} images")
    dense = build_cnn(x_train.shape[1:], classes=int(y_train.max()) + 1)
    dense_accuracy = train(dense)

    print(f"\n2. Prune it to {args.sparsity:.0%} while it trains on")
    pruned = tfprune.prune_low_magnitude(dense, schedule)
    pruned_accuracy = train(pruned, callbacks=[tfprune.UpdatePruningStep()])
    print(f"\n{tfprune.sparsity_report(pruned)}")

    print(f"3. Strip it to a plain Keras model, and save both in {output}")
    stripped = tfprune.strip_pruning(pruned)
    files = {"dense": output / "dense.keras", "pruned": output / "pruned.keras"}
    tfprune.strip_pruning(dense).save(files["dense"])  # A copy without the optimizer's state.
    stripped.save(files["pruned"])
    stripped.export(output / "saved_model", verbose=False)

    print("4. Load the pruned model again, and compare the predictions")
    check_saved_models(stripped, files["pruned"], output / "saved_model", x_test[:1000])

    print(f"\n{'':10}{'accuracy':>10}{'.keras bytes':>16}{'gzipped':>12}")
    for name, accuracy in (("dense", dense_accuracy), ("pruned", pruned_accuracy)):
        raw = files[name].read_bytes()
        print(f"{name:10}{accuracy:10.2%}{len(raw):16,}{len(gzip.compress(raw)):12,}")
    print("\nZeros make the compressed file small. They make dense kernels no faster.")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.error = fail  # One line instead of the whole usage.
    parser.add_argument("--data", default="digits", help="digits, a keras.datasets name, a folder")
    parser.add_argument("--name", help="which .npz file of the folder, if there are several")
    parser.add_argument("--epochs", type=int, help="of each of the two trainings")
    parser.add_argument("--sparsity", type=float, default=0.9, help="fraction of zeros")
    parser.add_argument("--output", type=Path, help="folder for the models; a temporary one")
    args = parser.parse_args()
    if args.epochs is not None and args.epochs < 1:
        fail(f"--epochs has to be at least 1, not {args.epochs}")
    return args


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
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(32, 3, strides=strides, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def check_saved_models(model, keras_file, saved_model, images):
    expected = model.predict(images, verbose=0)
    from_keras = keras.saving.load_model(keras_file).predict(images, verbose=0)
    loaded = tf.saved_model.load(str(saved_model))
    from_saved_model = loaded.serve(images).numpy()
    if not np.array_equal(from_keras, expected):
        fail(".keras: the loaded model predicts something else")
    if not np.allclose(from_saved_model, expected, rtol=0, atol=1e-5):
        fail("SavedModel: the loaded model predicts something else")
    difference = np.abs(from_saved_model - expected).max()
    print(f"   .keras: equal. SavedModel: equal within {difference:.1g}.")


def fail(message):
    sys.exit(f"quickstart.py: {message}")


if __name__ == "__main__":
    main()

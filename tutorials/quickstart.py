"""Train a small CNN, prune it, strip it, save it, and see what it costs and saves.

python tutorials/quickstart.py                    handwritten digits, no download
python tutorials/quickstart.py --data mnist       downloads MNIST; also fashion_mnist, cifar10
python tutorials/quickstart.py --data FOLDER      an .npz file with x_train, y_train, x_test, y_test
"""

import gzip
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from data_and_model import (
    BATCH_SIZE,
    argument_parser,
    build_cnn,
    check_epochs,
    fail,
    load_data,
    output_folder,
)

import tfprune

EPOCHS = {"digits": 30, "cifar10": 10}  # The others: 3.


def main():
    args = parse_arguments()
    x_train, y_train, x_test, y_test = load_data(args.data, args.name)
    epochs = args.epochs or EPOCHS.get(args.data, 3)
    output = output_folder(args.output)
    try:
        schedule = tfprune.PolynomialDecay.from_epochs(
            0.0,
            args.sparsity,
            steps_per_epoch=-(-len(x_train) // BATCH_SIZE),
            end_epoch=epochs * 2 / 3,
        )
    except ValueError as error:
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
    parser = argument_parser(__doc__)
    parser.add_argument("--epochs", type=int, help="of each of the two trainings")
    parser.add_argument("--sparsity", type=float, default=0.9, help="fraction of zeros")
    args = parser.parse_args()
    check_epochs(args.epochs)
    return args


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


if __name__ == "__main__":
    main()

"""SavedModels: folders that TensorFlow runs without Keras."""

import keras

from tfprune._base import validation as check
from tfprune._formats.base import FileFormat, Session, TensorSpec, as_arrays
from tfprune._formats.processors import kept_to


class _SavedModelSession(Session):
    """The function `serve` of a SavedModel.

    Threads are limited by the processors that the process may use, because TensorFlow fixes
    their number at the start.
    """

    runtime = "tf.saved_model"

    def __init__(self, path, threads):
        import tensorflow as tf

        self.name, self.threads = path.name, threads
        self._loaded = tf.saved_model.load(str(path))
        if not hasattr(self._loaded, "serve"):
            raise ValueError(
                check.message(
                    "a SavedModel with a function `serve`",
                    f"{str(path)!r}",
                    "Write it with tfprune.export or Keras's model.export.",
                )
            )
        function = self._loaded.serve.concrete_functions[0]
        positional, _ = function.structured_input_signature
        self._structure = positional[0] if len(positional) == 1 else list(positional)
        self.inputs = [
            TensorSpec(spec.name, tuple(spec.shape), spec.dtype.name)
            for spec in keras.tree.flatten(self._structure)
        ]

    def run(self, inputs):
        inputs = [_for_tensorflow(array) for array in keras.tree.flatten(inputs)]
        given = keras.tree.pack_sequence_as(self._structure, inputs)
        return as_arrays(self._loaded.serve(given))

    def confined(self):
        return kept_to(self.threads)


def _for_tensorflow(array):
    import tensorflow as tf

    return tf.constant(array, tf.string) if array.dtype == object else array


class SavedModel(FileFormat):
    """The folder of a SavedModel."""

    name = "saved_model"
    suffix = ""
    runtime = "tf.saved_model"
    packages = ("tensorflow",)
    extra = "tensorflow"

    def write(self, model, path, options, examples):
        model.export(str(path), format="tf_saved_model", verbose=False)

    def open(self, path, threads=None):
        return _SavedModelSession(path, threads)

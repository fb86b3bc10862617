"""`.keras` files, and live models: run by Keras on its backend."""

import keras
import numpy as np

from tfprune import _keras
from tfprune._formats.base import FileFormat, Session, TensorSpec
from tfprune._formats.processors import limited_to


class KerasSession(Session):
    """A model run by Keras: `predict_on_batch`, the function that it compiles for its backend.

    Threads are limited by the processors that the process may use, because TensorFlow and JAX fix
    their number at the start.

    Args:
        model: A built model. `close` restores its compiled functions.
        threads: Number of threads, or `None`.
    """

    runtime = "Keras"

    def __init__(self, model, threads=None):
        self.name = model.name
        self.threads = threads
        self._model = model
        self._function = model.predict_function
        self._structure = _keras.symbolic_inputs(model) if _keras.is_graph(model) else None
        self.inputs = _built_for(model) if self._structure is None else _specs(self._structure)

    def run(self, inputs):
        return keras.tree.flatten(self._model.predict_on_batch(self.packed(inputs)))

    def packed(self, inputs):
        """Returns inputs in the structure that the model takes."""
        if self._structure is None:
            alone = isinstance(inputs, list) and len(inputs) == 1
            return inputs[0] if alone else inputs
        return keras.tree.pack_sequence_as(self._structure, keras.tree.flatten(inputs))

    def confined(self):
        return limited_to(self.threads)

    def close(self):
        self._model.predict_function = self._function


class KerasFile(FileFormat):
    """A `.keras` file."""

    name = "keras"
    suffix = ".keras"
    runtime = "Keras"

    def write(self, model, path, options, examples):
        model.save(path)

    def open(self, path, threads=None):
        return KerasSession(keras.saving.load_model(path, compile=False), threads)

    def outputs(self, path, examples):
        # The file was written a moment ago: its Lambda layers are the model's own.
        return outputs(keras.saving.load_model(path, safe_mode=False), examples)


def outputs(model, examples):
    """Returns the outputs of a model as a list of arrays, without compiling it."""
    found = model(_as_tensors(examples), training=False)
    return [np.asarray(_keras.on_host(array)) for array in keras.tree.flatten(found)]


def _as_tensors(examples):
    """Texts have to be tensors before a model that reads them is called."""

    def tensor(array):
        if getattr(getattr(array, "dtype", None), "kind", "") != "O":
            return array
        return keras.ops.convert_to_tensor(array.tolist(), dtype="string")

    return keras.tree.map_structure(tensor, examples)


def _built_for(model):
    """Returns the one input that a model whose call() is code was built for; `None` if unknown."""
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (list, tuple)) or not all(
        size is None or isinstance(size, int) for size in shape
    ):
        return None
    return [TensorSpec("inputs", (None, *shape[1:]), "float32")]


def _specs(structure):
    return [
        TensorSpec(tensor.name, tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
        for tensor in keras.tree.flatten(structure)
    ]

"""The base class of file formats."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """One input of a model or file.

    Attributes:
        name: Its name.
        shape: Its shape with the batch; `None` for an open length.
        dtype: Name of its dtype, "float32" for instance, or "string".
    """

    name: str
    shape: tuple
    dtype: str


@dataclass(frozen=True)
class WriteOptions:
    """How a file is written; a format rejects options that it does not support before writing.

    Attributes:
        quantize: "dynamic", "float16" or "int8", or `None`.
        sparse: Whether weights are stored without their zeros.
        opset: Version of ONNX's operator set, or `None`.
        io_dtype: "int8" for inputs and outputs in 8 bits, or `None` for the model's own.
        ranges: For "int8": yields examples to find the ranges of activations with, each as a list
            of arrays with a batch of one. It can be read again.
    """

    quantize: str | None = None
    sparse: bool = False
    opset: int | None = None
    io_dtype: str | None = None
    ranges: Iterable = ()


class Session(ABC):
    """A file, or a live model, opened in its runtime and ready to run.

    Attributes:
        name: Name of the model or file, for messages.
        runtime: Name of the runtime.
        inputs: List of `TensorSpec` in the model's order; `None` if the shapes are not known.
        threads: Number of threads, or `None` for as many as the runtime takes.
    """

    name: str
    runtime: str
    inputs: list | None
    threads: int | None

    @abstractmethod
    def run(self, inputs):
        """Returns the outputs for a batch of any size, as a list of arrays in the model's order.

        Args:
            inputs: Arrays, in the model's structure or as a list in its order.
        """

    def confined(self):
        """Returns a context in which `run` keeps to the session's threads."""
        return nullcontext()

    def close(self):
        """Restores what opening has changed; the session is not used again."""
        return None


class FileFormat(ABC):
    """One kind of file.

    Attributes:
        name: Its name, as in `tfprune.export(format=)`.
        suffix: What its files end with; "" for a folder.
        runtime: Name of the runtime.
        packages: Modules that write and open it.
        extra: The extra of tfprune that installs them, or `None`.
        quantized: Values of `quantize` that it takes.
        options: Names of the further `WriteOptions` that it takes.
        runs_code: Whether opening a file can run Python code that is in it.
    """

    name: str
    suffix: str
    runtime: str
    packages: tuple = ()
    extra: str | None = None
    quantized: tuple = ()
    options: tuple = ()
    runs_code: bool = False

    @abstractmethod
    def write(self, model, path, options, examples):
        """Writes a file.

        Args:
            model: A plain model.
            path: Where to write, with the suffix of the format.
            options: `WriteOptions`.
            examples: Arrays in the structure of the model's inputs.
        """

    @abstractmethod
    def open(self, path, threads=None):
        """Opens a file in its runtime.

        Args:
            path: The file or folder.
            threads: Number of threads; by default, the runtime decides.

        Returns:
            A `Session`.
        """

    def outputs(self, path, examples):
        """Runs a file that was just written; returns its outputs as a list of arrays."""
        session = self.open(path)
        try:
            return session.run(examples)
        finally:
            session.close()


def as_arrays(tensors):
    """Returns a structure of tensors as a flat list of NumPy arrays."""
    return [np.asarray(tensor) for tensor in keras.tree.flatten(tensors)]

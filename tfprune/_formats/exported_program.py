"""`.pt2` files: the computation as one program, run by PyTorch without Keras."""

import warnings
from contextlib import contextmanager

import keras
import numpy as np

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._formats.base import FileFormat, Session, TensorSpec, as_arrays
from tfprune._formats.processors import torch_threads

# Sizes of 0 and 1 would become part of the program.
_EXAMPLES = 3


class _ProgramSession(Session):
    """A program loaded by PyTorch."""

    runtime = "PyTorch"

    def __init__(self, path, threads):
        import torch

        self.name, self.threads = path.name, threads
        self._torch = torch
        program = torch.export.load(str(path))
        given = list(_placeholders(program))
        self.inputs = [_spec(name, value) for name, value in given]
        # The weights of a program are constants on the device where it was written.
        self._devices = [value.device for _, value in given]
        self._module = program.module()

    def run(self, inputs):
        tensors = [
            self._torch.as_tensor(_writable(array)).to(device)
            for array, device in zip(keras.tree.flatten(inputs), self._devices, strict=True)
        ]
        with self._torch.no_grad():
            return as_arrays([output.cpu() for output in self._module(*tensors)])

    def confined(self):
        return torch_threads(self.threads)


def _placeholders(program):
    """Yields the name and the placeholder tensor of each input of a program."""
    names = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            yield node.name, node.meta["val"]


def _writable(array):
    """Returns an array, copied if PyTorch would warn of it or refuse it."""
    return np.require(array, requirements=("C", "W"))


def _spec(name, value):
    sizes = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(name, sizes, str(value.dtype).removeprefix("torch."))


class ExportedProgram(FileFormat):
    """A program of PyTorch, without Keras."""

    name = "torch"
    suffix = ".pt2"
    runtime = "PyTorch"
    packages = ("torch",)
    extra = "torch"
    # PyTorch unpickles some of the tensors.
    runs_code = True

    def write(self, model, path, options, examples):
        import torch

        _check_backend()
        structure = _keras.symbolic_inputs(model) if _keras.is_graph(model) else None
        arrays = [_some(array) for array in keras.tree.flatten(examples)]
        specs = [None] * len(arrays) if structure is None else keras.tree.flatten(structure)
        module = _flat(model, examples)
        device = next((v.value.device for v in model.variables), "cpu")
        tensors = tuple(torch.as_tensor(array).to(device) for array in arrays)
        with torch.no_grad(), warnings.catch_warnings(), _failing_layer_named(model):
            # The weights are not registered, and so become constants, stored once.
            warnings.simplefilter("ignore")
            program = torch.export.export(
                module,
                tensors,
                dynamic_shapes=(
                    tuple(_open_sizes(spec, t) for spec, t in zip(specs, tensors, strict=True)),
                ),
                strict=False,
            )
        torch.export.save(program, str(path))

    def open(self, path, threads=None):
        return _ProgramSession(path, threads)


def _check_backend():
    if _keras.backend() != "torch":
        raise ValueError(
            check.message(
                "the PyTorch backend for a .pt2 file",
                f"KERAS_BACKEND={_keras.backend()}",
                "Save the model as a .keras file, and export that in a process with "
                "KERAS_BACKEND=torch. Nothing was written.",
            )
        )


@contextmanager
def _failing_layer_named(model):
    """Turns an error of torch.export, with all of its graph, into one line that names the layer."""
    paths = {id(chain[-1][1]): chain[-1][0] for chain in _keras.walk(model)}
    failed: list = []

    def noting(layer, call, args, kwargs):
        try:
            return call(*args, **kwargs)
        except Exception as error:
            # Before torch.export puts lines of its own in front.
            failed.append((layer, check.first_line(error)))
            raise

    try:
        with _keras.intercepted_calls(_keras.flatten(model), noting):
            yield
    except Exception as error:
        # PyTorch raises errors of many kinds.
        layer, first = failed[0] if failed else (model, check.first_line(error))
        path = paths.get(id(layer), layer.name)
        raise ValueError(
            check.message(
                f"a model that torch.export can follow, '{model.name}'",
                f"'{path}', a {type(layer).__name__}, which fails with: {first}"[:400].rstrip("."),
                "torch.export runs the calls without values: leave out what decides by values or "
                "converts them to NumPy arrays. Or export to another format, under "
                "KERAS_BACKEND=tensorflow. Nothing was written.",
            )
        ) from error


def _flat(model, examples):
    """Returns a module that takes a model's inputs, and returns its outputs, one by one."""
    import torch

    class Flat(torch.nn.Module):
        def forward(self, *inputs):
            found = model(keras.tree.pack_sequence_as(examples, inputs), training=False)
            return tuple(keras.tree.flatten(found))

    return Flat()


def _some(array):
    """Returns a few examples of an array, at least two."""
    rows = [row % len(array) for row in range(_EXAMPLES)]
    return array[rows]


def _open_sizes(spec, tensor):
    """Returns the axes of an input whose sizes stay open: the batch, and open axes of the model."""
    from torch.export import Dim

    shape = [None, *tensor.shape[1:]] if spec is None else spec.shape
    return {axis: Dim.AUTO for axis, size in enumerate(shape) if size is None}

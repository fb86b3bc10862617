"""Finds the nodes of a LiteRT file that an error of LiteRT is about."""

import re
from dataclasses import dataclass
from pathlib import Path

_NODE = re.compile(r"\b([A-Z][A-Z0-9_]*) node #(\d+)")


@dataclass(frozen=True)
class Node:
    """One operation of a file.

    Attributes:
        kind: Its name, "FULLY_CONNECTED" for instance.
        names: Names of the tensors that it makes. The converter takes them from the model: the
            names of the model, of the layers and of an operation, after each other.
        shapes: Shapes of the tensors that it reads.
    """

    kind: str
    names: tuple
    shapes: tuple


def nodes_of(path, error):
    """Lists the nodes that an error of LiteRT numbers; none if it numbers none.

    Args:
        path: The file.
        error: The error, or its text.
    """
    found = {int(number): kind for kind, number in _NODE.findall(str(error))}
    if not found:
        return []
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(Path(path).read_bytes(), 0).Subgraphs(0)
    return [
        _node(kind, graph, graph.Operators(number))
        for number, kind in found.items()
        if number < graph.OperatorsLength()
    ]


def _node(kind, graph, operator):
    made = [graph.Tensors(operator.Outputs(n)) for n in range(operator.OutputsLength())]
    indices = [operator.Inputs(n) for n in range(operator.InputsLength())]
    # -1 stands for an input that is left out.
    read = [graph.Tensors(index) for index in indices if index >= 0]
    names = [part for tensor in made for part in tensor.Name().decode().split(";") if part]
    shapes = [tuple(tensor.Shape(n) for n in range(tensor.ShapeLength())) for tensor in read]
    return Node(kind, tuple(names), tuple(shapes))

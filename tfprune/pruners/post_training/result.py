"""The result of pruning without training: the model, and a table of its blocks."""

from dataclasses import dataclass

from rich.table import Table

from tfprune._base.text import as_text
from tfprune._wrapping.strip import strip_pruning


@dataclass(frozen=True)
class BlockResult:
    """One block.

    Attributes:
        name: Its path in the model.
        weights: Number of weights that could be pruned.
        zeros: Number of these that are zero.
        error_of_masks: Relative error of the block's outputs with the masks, before the kept
            weights were changed: L2 norm of the difference to the block before pruning, divided by
            the norm of its outputs, on the same inputs. `None` without data.
        error: The same with the final weights.
        seconds: Time that the block took.
    """

    name: str
    weights: int
    zeros: int
    error_of_masks: float | None
    error: float | None
    seconds: float

    @property
    def sparsity(self):
        """Share of zeros."""
        return self.zeros / self.weights


class PostTrainingResult:
    """A model that was pruned without training. `str(result)` is a table.

    Attributes:
        method: "wanda", "sparse_gpt" or "magnitude".
        model: The wrapped model: fine-tune it with `UpdatePruningStep`, which keeps the masks.
        blocks: List of `BlockResult`, in the order in which they run.
        notes: `{weight: text}` about weights that were pruned in another way, and why.
        left_dense: `{weight: text}` about weights inside the blocks that were not pruned, and why.
    """

    def __init__(self, method, model, blocks, notes, left_dense):
        self.method = method
        self.model = model
        self.blocks = list(blocks)
        self.notes = dict(notes)
        self.left_dense = dict(left_dense)

    @property
    def sparsity(self):
        """Share of zeros over all blocks."""
        return sum(b.zeros for b in self.blocks) / sum(b.weights for b in self.blocks)

    def stripped(self):
        """Returns the plain model, in which pruned weights are exactly zero."""
        return strip_pruning(self.model)

    def table(self):
        """Returns the blocks as a `rich.table.Table`."""
        table = Table(title=f"Pruned without training: {self.method}")
        table.add_column("Block")
        names = ("Weights", "Sparsity", "Error, masks alone", "Error", "Seconds")
        for name in names:
            table.add_column(name, justify="right")
        for one in self.blocks:
            table.add_row(
                one.name,
                f"{one.weights:,}",
                f"{one.sparsity:.2%}",
                _percent(one.error_of_masks),
                _percent(one.error),
                f"{one.seconds:.2f}",
            )
        return table

    def __str__(self):
        lines = [f"{name}: {text}" for name, text in {**self.notes, **self.left_dense}.items()]
        return as_text(self.table(), *lines)


def _percent(error):
    return "" if error is None else f"{error:.2%}"

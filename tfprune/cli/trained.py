"""A model that a command trained, and its metrics before and after."""

from dataclasses import dataclass
from typing import Any

from tfprune.cli.loading import load_data, load_model
from tfprune.cli.training import check_labels, compile_as, measured, set_seed, train


@dataclass(frozen=True)
class Trained:
    """A wrapped model after its training.

    Attributes:
        model: The wrapped model.
        before: `{name: number}`: the loss and the metrics of the model that was loaded, on the
            test data.
        after: The same of `model`.
    """

    model: Any
    before: dict
    after: dict

    @property
    def metrics(self):
        """`{name: [before, after]}` of the metrics that were measured twice."""
        return {
            name: [old, self.after[name]] for name, old in self.before.items() if name in self.after
        }

    def lines(self):
        """Returns the metrics, each as a line of text."""
        return [
            f"{name}: {old:.4f} before, {new:.4f} after"
            for name, (old, new) in self.metrics.items()
        ]


def load_and_train(args, wrap, output):
    """Loads a model and data, wraps the model, trains it, and measures before and after.

    Args:
        args: Arguments of a command that trains, checked by `check_training`.
        wrap: Function of the loaded model and the data. It returns the wrapped model and the
            callback that keeps its masks.
        output: The command's `Output`.

    Returns:
        A `Trained`.
    """
    set_seed(args.seed)
    model = load_model(args.model, args, compile=True)
    data = load_data(args, model)
    check_labels(model, data.train[1])
    compile_as(model, model, data, args)
    before = measured(model, data, args)
    wrapped, callback = wrap(model, data)
    compile_as(wrapped, model, data, args)
    train(wrapped, callback, data, args, output)
    return Trained(wrapped, before, measured(wrapped, data, args))

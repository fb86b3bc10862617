"""Models pruned in place that are planned when they are built."""

from tfprune._base import validation as check
from tfprune._wrapping.in_place import InPlaceMasks, attach, without_masks


class DeferredInPlaceMasks(InPlaceMasks):
    """The masks of a model whose methods are chosen once it has weights.

    Args:
        model: The unbuilt model.
        method: The default `Method`.
        plan: Function of the built model without masks. It returns the arguments of
            `prune_in_place` after the model, and the reasons why weights are not pruned.
    """

    def __init__(self, model, method, plan):
        super().__init__(model, method, {})
        self._plan = plan

    def make_masks(self):
        if self._plan is not None:
            with without_masks(self._model):
                arguments, reasons = self._plan(self._model)
            self._init_masks(*arguments)
            self.remember_reasons(reasons)
        super().make_masks()
        self._plan = None

    def pruning_config(self):
        if self._plan is not None:
            raise ValueError(
                check.message(
                    f"'{self.name}' to be built before it is saved or copied",
                    "a model that is planned when it is built",
                    "Call it on data once.",
                )
            )
        return super().pruning_config()


def prune_in_place_when_built(model, method, plan):
    """Adds masks to an unbuilt model once it is built; see `DeferredInPlaceMasks`."""
    return attach(model, DeferredInPlaceMasks(model, method, plan))

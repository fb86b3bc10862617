"""NNI's one-shot pruners, as named combinations of criterion, pattern and scope.

As in NNI, the filter pruners prune only convolutions. `rules` apply after this restriction and can
add other layers: `Rule(keras.layers.Dense)`.
"""

from dataclasses import dataclass

import keras

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._keras.checks import check_model
from tfprune._planning.choices import Choices
from tfprune._updates.evidence import Evidence
from tfprune._wrapping.methods import Rule
from tfprune.patterns.slices import Filter
from tfprune.pruners.at_once import one_shot
from tfprune.scopes import Global

# The scores of these criteria are comparable across layers without normalization.
_AS_THEY_ARE = Global(normalize=None)
_CONVOLUTIONS = [keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D]


@dataclass(frozen=True)
class Recipe:
    """A criterion with its pattern, scope and layers.

    Args:
        criterion: Name of the criterion.
        pattern: A pattern, or `None` for single weights.
        scope: A scope or its name.
        layers: "all", "convolutions", or "normalized" for layers before a BatchNormalization.
    """

    criterion: str
    pattern: object = None
    scope: object = "local"
    layers: str = "convolutions"

    def parts(self, model, rules=None, data=None):
        """Returns the arguments of `prune_low_magnitude` that make this recipe."""
        check_model(model)
        given = Choices(None, rules).rules
        # The user's rules come last, so they override these.
        own: list = []
        if self.layers == "convolutions":
            own = [Rule(keras.layers.Layer, prune=False), Rule(_CONVOLUTIONS)]
        elif self.layers == "normalized":
            own = [Rule(keras.layers.Layer, prune=False), Rule(_normalized(model, data))]
        return {
            "criterion": self.criterion,
            "pattern": self.pattern,
            "scope": self.scope,
            "rules": own + given,
        }


def _normalized(model, data):
    """Returns the paths of the layers that feed a BatchNormalization with a scale."""
    norms = Evidence(model, data).batch_norms()
    paths = [
        chain[-1][0]
        for chain in _keras.walk(model)
        if id(chain[-1][1]) in norms and norms[id(chain[-1][1])].gamma is not None
    ]
    if not paths:
        raise ValueError(
            check.message(
                "a layer followed directly by a BatchNormalization, whose scale Slim uses",
                f"model '{model.name}' without any",
                "Use l1_filter or fpgm, or train the model with BatchNormalization.",
            )
        )
    return paths


# Summing over a filter preserves the order given by the criterion's own formula.
RECIPES = {
    "level": Recipe("magnitude", layers="all"),
    "slim": Recipe("batch_norm_scale", Filter(coupled=False), _AS_THEY_ARE, "normalized"),
    "fpgm": Recipe("fpgm", Filter(coupled=False)),
    "l1_filter": Recipe("l1_filter", Filter(coupled=False)),
    "l2_filter": Recipe("l2_filter", Filter(coupled=False)),
    "activation_apoz_rank": Recipe("apoz", Filter(coupled=False)),
    "activation_mean_rank": Recipe("mean_activation", Filter(coupled=False)),
    "taylor_fo_weight": Recipe("taylor", Filter("SUM", coupled=False), _AS_THEY_ARE),
}


def get(recipe):
    """Returns a recipe.

    Args:
        recipe: A `Recipe` or its name.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(recipe, Recipe):
        return recipe
    return RECIPES[check.choice("recipe", recipe, tuple(RECIPES))]


_DOC = """{summary}

    Args:
        model: A built model. It is copied and not changed.
        sparsity: Fraction of pruned {units}, in [0, 1).
        pattern: A pattern or its name, instead of the recipe's own; likewise the next two.
        criterion: A criterion or its name.
        scope: A scope, a distribution, or its name.
        rules: List of `Rule`s for exceptions.
        data: As in `tfprune.pruners.one_shot`; likewise the next four.{needed}
        batches: Number of batches of `data` to use.
        batch_size: Batch size for arrays.
        loss: A Keras loss; by default, the loss with which `model` is compiled.
        verbose: 1 shows progress over the batches, 0 does not.

    Returns:
        The pruned model, wrapped and uncompiled.

    Raises:
        ValueError, TypeError: As in `tfprune.pruners.one_shot`.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3), keras.layers.BatchNormalization(),
    ...     keras.layers.Flatten(), keras.layers.Dense(2)])
    >>> x, y = np.random.normal(size=(4, 8, 8, 3)), np.ones((4, 2))
    >>> model.compile("sgd", "mse")
    >>> pruned = tfprune.pruners.{name}(model, 0.5{given})
    """


def _pruner(name, summary, units="filters", needs_data=False):
    """Makes the function of a recipe."""

    def prune(
        model,
        sparsity,
        *,
        pattern=None,
        criterion=None,
        scope=None,
        rules=None,
        data=None,
        batches=8,
        batch_size=32,
        loss=None,
        verbose=1,
    ):
        parts = RECIPES[name].parts(model, rules, data)
        own = {"pattern": pattern, "criterion": criterion, "scope": scope}
        parts |= {part: value for part, value in own.items() if value is not None}
        return one_shot(
            model,
            sparsity,
            **parts,
            data=data,
            batches=batches,
            batch_size=batch_size,
            loss=loss,
            verbose=verbose,
        )

    prune.__name__ = prune.__qualname__ = name
    prune.__doc__ = _DOC.format(
        summary=summary,
        name=name,
        units=units,
        needed=" It is required." if needs_data else "",
        given=", data=(x, y), verbose=0" if needs_data else "",
    )
    return prune


level = _pruner("level", "Prunes the smallest weights of each layer: NNI's Level.", "weights")
slim = _pruner(
    "slim",
    "Prunes the filters with the smallest BatchNormalization scales, globally: NNI's Slim.",
)
fpgm = _pruner(
    "fpgm", "Prunes the filters nearest to the geometric median of their layer: NNI's FPGM."
)
l1_filter = _pruner(
    "l1_filter",
    "Prunes the filters with the smallest L1 norms in each convolution: NNI's L1Filter.",
)
l2_filter = _pruner(
    "l2_filter",
    "Prunes the filters with the smallest L2 norms in each convolution: NNI's L2Filter.",
)
activation_apoz_rank = _pruner(
    "activation_apoz_rank",
    "Prunes the filters whose relu(output) is zero most often: NNI's ActivationAPoZRank.",
    needs_data=True,
)
activation_mean_rank = _pruner(
    "activation_mean_rank",
    "Prunes the filters whose mean relu(output) is smallest: NNI's ActivationMeanRank.",
    needs_data=True,
)
taylor_fo_weight = _pruner(
    "taylor_fo_weight",
    "Prunes the filters that affect the loss least, globally: NNI's TaylorFOWeight.",
    needs_data=True,
)

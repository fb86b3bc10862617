"""The distribution with a sparsity for each layer."""

from dataclasses import dataclass
from fractions import Fraction

from tfprune._base import globs
from tfprune._base import validation as check
from tfprune.distributions.apportioning import apportion
from tfprune.distributions.base import DISTRIBUTIONS, Distribution


@DISTRIBUTIONS.part()
@dataclass(frozen=True)
class PerLayer(Distribution):
    """Gives each layer a sparsity that you choose.

    The schedule sets the overall sparsity. If these sparsities add up to another one, they are
    scaled in proportion. A layer that would lose its last unit keeps it, and the other layers make
    up for it.

    Args:
        sparsities: `{match: sparsity}`: names or paths of layers, with patterns as in file names
            ("conv_*", "encoder/*"), as in `tfprune.Rule`; and fractions in [0, 1). Where several
            match a layer, the last one counts. Layers at 0 are not pruned. By default all layers
            get the same.

    Raises:
        ValueError, TypeError: For sparsities out of range; at a mask update, for a layer that no
            pattern matches or a pattern that matches no layer.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((10,)), keras.layers.Dense(10, name="a"), keras.layers.Dense(10, name="b")])
    >>> pruned = tfprune.prune_low_magnitude(
    ...     model, tfprune.ConstantSparsity(0.6, 0), scope=tfprune.PerLayer({"a": 0.2, "b": 0.4}))
    >>> _ = tfprune.UpdatePruningStep(pruned)
    >>> [row.zeros for row in tfprune.sparsity_report(pruned).rows]
    [40, 80]
    """

    reads_weights = False

    sparsities: tuple = (("*", 0.5),)

    def __init__(self, sparsities=(("*", 0.5),)):
        mend = 'Use for instance PerLayer({"conv_*": 0.5, "dense": 0.9}).'
        try:
            pairs = dict(sparsities)
        except (TypeError, ValueError):
            pairs = None
        if pairs is None or not all(isinstance(key, str) for key in pairs):
            raise TypeError(
                check.message(
                    "`sparsities` to be a dictionary from name patterns to fractions",
                    f"{sparsities=}",
                    mend,
                )
            )
        if not pairs:
            raise ValueError(check.message("at least one sparsity", f"{sparsities=}", mend))
        pairs = {key: check.sparsity(f"sparsities[{key!r}]", s) for key, s in pairs.items()}
        object.__setattr__(self, "sparsities", tuple(pairs.items()))

    def get_config(self):
        return {"sparsities": dict(self.sparsities)}

    def limits(self, requests):
        return [
            request.most_zeros if sparsity else 0
            for request, sparsity in zip(requests, self._found(requests), strict=True)
        ]

    def share(self, requests, low, high, total):
        asked = [s * r.units for s, r in zip(self._found(requests), requests, strict=True)]
        return apportion(asked, low, high, total)

    def _found(self, requests):
        """Returns the requested sparsity of each request."""
        unused = {key for key, _ in self.sparsities}
        found = []
        for request in requests:
            matching = [
                (key, sparsity)
                for key, sparsity in self.sparsities
                if globs.matches_weight(key, request.name)
            ]
            if not matching:
                raise ValueError(
                    check.message(
                        "PerLayer to give each layer a sparsity",
                        f"none for {request.name}",
                        'Add it, or a "*" entry in front for all others; 0 keeps a layer dense.',
                    )
                )
            unused -= {key for key, _ in matching}
            found.append(Fraction(str(matching[-1][1])))
        if unused:
            named = ", ".join(request.name for request in requests[:20])
            raise ValueError(
                check.message(
                    "each name in PerLayer to match a layer that is pruned on this schedule",
                    f"{sorted(unused)[0]!r}, which matches none",
                    f"The pruned layers are: {named}.",
                )
            )
        return found

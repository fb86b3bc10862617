"""Pruning methods (schedule, pattern, criterion and scope), and rules that vary them by layer."""

from dataclasses import dataclass, replace
from typing import Any

import keras

from tfprune import criteria, patterns, schedules, scopes
from tfprune._base import globs
from tfprune._base import validation as check


@dataclass(frozen=True)
class Method:
    """The method by which a weight is pruned.

    Args:
        schedule: A `PruningSchedule`.
        pattern: A `Pattern`.
        criterion: A `Criterion`.
        scope: A `Scope`.
    """

    schedule: schedules.PruningSchedule
    pattern: patterns.Pattern
    criterion: criteria.Criterion
    scope: scopes.Scope

    @classmethod
    def of(cls, schedule, pattern=None, criterion=None, scope=None):
        """Makes a method from objects, names or serialized forms."""
        return cls(
            schedules.get(schedule),
            patterns.get(pattern),
            criteria.get(criterion),
            scopes.get(scope),
        )

    def get_config(self):
        """Returns the parts in serialized form."""
        serialize = keras.saving.serialize_keras_object
        return {
            "schedule": schedules.serialize(self.schedule),
            "pattern": serialize(self.pattern),
            "criterion": serialize(self.criterion),
            "scope": serialize(self.scope),
        }

    def resolved(self, steps_per_epoch):
        """Returns the method with an epoch-based schedule converted to steps."""
        schedule = self.schedule
        if isinstance(schedule, schedules.EpochSchedule):
            return replace(self, schedule=schedule.resolve(steps_per_epoch))
        return self

    @property
    def counts_in_epochs(self):
        """Whether the schedule counts in epochs."""
        return isinstance(self.schedule, schedules.EpochSchedule)

    def same_competition(self, other):
        """Whether weights with these two methods may compete under one threshold."""
        same_schedule = self.schedule is other.schedule or (
            type(self.schedule) is type(other.schedule)
            and schedules.serialize(self.schedule) == schedules.serialize(other.schedule)
        )
        return self.scope == other.scope and same_schedule


@dataclass(frozen=True)
class Rule:
    """Gives some layers their own schedule, pattern, criterion or scope, or exempts them.

    If several rules match a layer, later rules override earlier ones, part by part.

    Args:
        match: The layers to match: a glob for a name, a path, or the end of a path ("conv_*",
            "encoder/*"); a layer class; or a list of these. A rule for a layer also applies to
            the layers inside it.
        schedule: A schedule, or `None` to keep the schedule; likewise the next three arguments.
        pattern: A pattern or its name.
        criterion: A criterion or its name.
        scope: A scope or its name.
        prune: `False` exempts the layers. With `True`, a rule that names a layer includes weights
            that are exempt by default.

    Raises:
        ValueError, TypeError: If an argument is invalid.

    Example:

    >>> rules = [
    ...     tfprune.Rule(keras.layers.DepthwiseConv2D, prune=False),
    ...     tfprune.Rule("classifier*", schedule=tfprune.ConstantSparsity(0.5, 0)),
    ... ]
    """

    match: object
    schedule: object = None
    pattern: object = None
    criterion: object = None
    scope: object = None
    prune: bool = True

    def __post_init__(self):
        matches = self.match if isinstance(self.match, (list, tuple)) else [self.match]
        for item in matches:
            if not isinstance(item, str) and not (
                isinstance(item, type) and issubclass(item, keras.layers.Layer)
            ):
                raise TypeError(
                    check.message(
                        "`match` to be a name pattern or a layer class",
                        f"match={item!r}",
                        'Use for instance Rule("conv_*", ...) or Rule(keras.layers.Dense, ...).',
                    )
                )
        if not isinstance(self.prune, bool):
            raise TypeError(
                check.message(
                    "`prune` to be True or False",
                    f"prune={self.prune!r:.80}",
                    "False exempts the layers.",
                )
            )
        parts = {"schedule": schedules, "pattern": patterns, "criterion": criteria}
        for name, module in {**parts, "scope": scopes}.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, module.get(getattr(self, name)))

    def matches(self, path, layer):
        """Whether the rule matches a layer at this path."""
        for item in self.match if isinstance(self.match, (list, tuple)) else [self.match]:
            if isinstance(item, type):
                if isinstance(layer, _meant(item)):
                    return True
            elif globs.matches(item, path) or globs.matches(item, layer.name):
                return True
        return False

    def names(self, path, layer):
        """Whether the rule matches this layer specifically, not every layer or an enclosing one."""
        matches: Any = self.match if isinstance(self.match, (list, tuple)) else [self.match]
        named = [item for item in matches if isinstance(item, type) or item.strip("*/?")]
        return self.prune and bool(named) and replace(self, match=named).matches(path, layer)

    def applied_to(self, method):
        """Returns the method with this rule's parts, or `None` if the rule exempts."""
        if not self.prune:
            return None
        own = {
            name: getattr(self, name)
            for name in ("schedule", "pattern", "criterion", "scope")
            if getattr(self, name) is not None
        }
        return replace(method, **own)


def _meant(cls):
    """Returns the base class that a class re-exports under the same name, as in KerasHub."""
    while len(cls.__bases__) == 1 and cls.__bases__[0].__name__ == cls.__name__:
        cls = cls.__bases__[0]
    return cls


def resolve(rules, chain, default):
    """Returns the method of a layer under a list of rules.

    Args:
        rules: List of `Rule`; later ones override earlier ones.
        chain: `(path, layer)` of the layer and all enclosing layers, outermost first.
        default: The `Method` without any rule.

    Returns:
        A `Method`, or `None` if the layer is exempt.
    """
    method = default
    for rule in rules:
        if any(rule.matches(path, layer) for path, layer in chain):
            method = rule.applied_to(method if method is not None else default)
    return method

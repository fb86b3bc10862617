"""The same widths in all blocks, as the constructor of a model's class takes them."""

import copy

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._channels.graph import channel_groups, follow
from tfprune._wrapping.methods import Rule
from tfprune.structural.configs import edit_counts, parts
from tfprune.structural.same_outputs import difference, is_rounding

_WIDTHS = (
    "intermediate_dim",
    "mlp_dim",
    "moe_intermediate_dim",
    "shared_expert_intermediate_dim",
    "feedforward_dim",
)
_HEADS = ("num_key_value_heads", "num_heads")
_HEAD_SIZES = ("head_dim", "key_value_dim")
_NOT_COUNTED = "no argument of the class counts them"


class UniformWidths:
    """The channels of a model that arguments of its class can count.

    Args:
        model: The plain model.
        ledger: Its `Ledger`.

    Raises:
        ValueError: If the model's class has no arguments for its sizes.
    """

    def __init__(self, model, ledger):
        if not _keras.keeps_class(model) or getattr(model, "is_resized", False):
            raise ValueError(
                check.message(
                    "a model whose class is made from its own arguments, for uniform=True",
                    f"'{model.name}' of class {type(model).__name__}",
                    "Leave uniform out, or shrink only the backbone.",
                )
            )
        self._model = model
        self._config = model.get_config()
        self._blocks = tuple(f"{ledger.path(layer)}/" for layer in ledger.composites.values())

    def key(self, group):
        """Returns the kind and number of a group's channels; `None` if no argument counts them."""
        if not all(path.startswith(self._blocks) for path in group.layers):
            return None
        heads = all(path.endswith(":heads") for path in group.layers)
        key = ("heads" if heads else "width", group.size)
        return key if _edit(copy.deepcopy(self._config), *key, group.size) else None

    def level(self, groups, reasons):
        """Keeps channels so that all groups of one kind and size lose the same number.

        Args:
            groups: List of `ChannelGroup`s.
            reasons: For each, `{channel: reason}` of the channels that stay. Reasons are added.

        Returns:
            `{(kind, number): number that stays}`.
        """
        most: dict = {}
        for group, why in zip(groups, reasons, strict=True):
            key = self.key(group)
            if key is not None and group.removable:
                most[key] = max(most.get(key, 0), len(why))
        for group, why in zip(groups, reasons, strict=True):
            key = self.key(group)
            # Where channels stay for other reasons alone, another argument counts them.
            wanted = most.get(key, group.size) if group.removable else len(why)
            reason = (
                "as many stay in other blocks" if key else "no argument of the class counts them"
            )
            for channel in range(group.size):
                if len(why) < wanted and channel not in why:
                    why[channel] = reason
        return most

    def exemptions(self, groups):
        """Returns a list of `Rule`s that exempt layers whose channels no argument counts.

        An attention layer whose heads are counted is not exempt for the channels that it makes:
        these stay if those of another layer stay that are tied to them.
        """
        keyed = [self.key(group) is not None for group in groups]
        names = [[path.partition(":")[0] for path in group.layers] for group in groups]
        counted = {name for some, known in zip(names, keyed, strict=True) if known for name in some}
        paths: list = []
        for group, some, known in zip(groups, names, keyed, strict=True):
            if group.removable and not known:
                paths += [name for name in some if name not in counted] or some
        return [Rule(paths, prune=False)] if paths else []

    def rebuilt(self, smaller, left):
        """Makes the smaller model from the arguments of its class.

        Args:
            smaller: The smaller model, in another form.
            left: What `level` returned.

        Returns:
            A new model of the class of the original.

        Raises:
            ValueError: If arguments do not give these sizes, or another computation.
        """
        config = copy.deepcopy(self._config)
        for (kind, old), new in left.items():
            _edit(config, kind, old, new)
        made = type(self._model).from_config(config)
        shapes = [[tuple(v.shape) for v in model.weights] for model in (smaller, made)]
        if shapes[0] == shapes[1]:
            _keras.copy_weights(smaller, made)
        if shapes[0] != shapes[1] or not is_rounding(made, difference(smaller, made)):
            raise ValueError(
                check.message(
                    "sizes that the constructor of the model's class can give",
                    f"{type(self._model).__name__} with "
                    + ", ".join(f"{new} of {old} ({kind})" for (kind, old), new in left.items()),
                    "Leave uniform out.",
                )
            )
        return made


def exempting_rules(model, rules):
    """Returns rules that also exempt what `uniform=True` cannot remove.

    Args:
        model: The plain model.
        rules: A `Rule`, a list of them, or `None`.
    """
    given = [] if rules is None else [rules] if isinstance(rules, Rule) else list(rules)
    ledger = follow(model)
    return [*given, *UniformWidths(model, ledger).exemptions(channel_groups(ledger)[0])]


def _edit(config, kind, old, new):
    """Edits the arguments that count channels; returns how many."""
    if kind == "heads":
        return sum(_edit_heads(part, old, new) for part in parts(config))
    # Gemma counts both matrices of a gated unit.
    return edit_counts(config, _WIDTHS, old, new) or edit_counts(config, _WIDTHS, 2 * old, 2 * new)


def _edit_heads(config, old, new):
    sizes = [name for name in _HEAD_SIZES if name in config]
    names = [name for name in _HEADS if config.get(name) == old]
    if not sizes or not names:
        return 0
    queries = config.get("num_query_heads", old)
    if config[sizes[0]] is None:
        config[sizes[0]] = config["hidden_dim"] // queries
    config[names[0]] = new
    if "num_query_heads" in config:
        config["num_query_heads"] = queries // old * new
    return 1

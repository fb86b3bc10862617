"""Lottery tickets: rounds of pruning, rewinding the weights and training again."""

import math

import keras
import numpy as np
from keras import ops

from tfprune import _keras
from tfprune._base import validation as check
from tfprune._base.renamed import renamed
from tfprune._updates.mask_update import MaskUpdate
from tfprune._wrapping.methods import Rule
from tfprune._wrapping.strip import strip_pruning
from tfprune._wrapping.wrapper import pruned_weights
from tfprune.patterns.single_weights import NOfM
from tfprune.prune import prune_low_magnitude
from tfprune.pruners.lottery_ticket.round_step import RoundStep, plain_values
from tfprune.pruners.lottery_ticket.tickets import Tickets, record_name
from tfprune.pruners.records import RecordStore
from tfprune.schedules.constant import ConstantSparsity

CONTROLS = ("random_masks", "random_reinit")


class LotteryTicket:
    """Iterative magnitude pruning with rewinding, which finds small trainable networks.

    Round 0 trains the dense model. After each round, weights are pruned by their trained values,
    and the remaining weights are rewound to their values before training or early in round 0.
    After round `i` of `rounds`, the sparsity is `1 - (1 - sparsity) ** (i / rounds)`, so each
    round removes the same fraction of the remaining weights.

    Args:
        model: A built, plain `keras.Model`. It is copied and never changed.
        sparsity: Fraction of zeros after the last round, in (0, 1).
        rounds: Number of pruning rounds after round 0, at least 1.
        pattern: A pattern or its name, as in `prune_low_magnitude`, but not `NOfM`, which allows
            only one sparsity.
        criterion: A criterion or its name. Criteria on initial weights use the weights at the
            start of the round.
        scope: A scope, a distribution, or its name.
        rules: List of `Rule`s that exempt layers or give them another pattern, scope or criterion.
        rewind_to: Step or epoch of round 0 to which weights are rewound; 0 for initial weights.
        rewind_unit: "step" (an optimizer update) or "epoch".
        seed: Seed for `keras.utils.set_random_seed(seed + round)`, called before each round so
            that an interrupted run resumes with identical results; `None` to leave random states
            unchanged.

    Raises:
        ValueError: If an argument is out of range, or the model cannot be pruned in this way.
        TypeError: If an argument is of the wrong kind.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    >>> x = np.ones((32, 8))
    >>> def train(model, callback):
    ...     model.compile("sgd", "mse")
    ...     model.fit(x, x[:, :1], verbose=0, callbacks=[callback])
    ...     return model.evaluate(x, x[:, :1], verbose=0, return_dict=True)
    >>> tickets = tfprune.LotteryTicket(model, 0.75, rounds=2, scope="global").run(train)
    >>> [(one.zeros, one.parameters) for one in tickets.rounds]
    [(0, 72), (36, 72), (54, 72)]
    >>> small = tickets.stripped()   # trained, as plain model

    Reference:

    - [Frankle & Carbin, 2019: The Lottery Ticket Hypothesis](https://arxiv.org/abs/1803.03635)
    - [Frankle et al., 2020: Linear Mode Connectivity and the Lottery Ticket
      Hypothesis](https://arxiv.org/abs/1912.05671)
    """

    def __init__(
        self,
        model,
        sparsity,
        rounds,
        *,
        pattern=None,
        criterion=None,
        scope=None,
        rules=None,
        rewind_to=0,
        rewind_unit="step",
        seed=0,
    ):
        self.sparsity = check.sparsity("sparsity", sparsity)
        if self.sparsity == 0:
            mend = "Pass the fraction of zeros after the last round, for instance 0.95."
            raise ValueError(check.message("`sparsity` above 0", f"{sparsity=}", mend))
        self.rounds = check.integer("rounds", rounds, 1, "Pass a whole number, for instance 10.")
        mend = "Pass a number of steps or epochs in round 0; 0 is before training."
        self.rewind_to = check.integer("rewind_to", rewind_to, 0, mend)
        self.rewind_unit = check.choice("rewind_unit", rewind_unit, ("step", "epoch"))
        mend = "Pass a whole number, or None to leave random states unchanged."
        self.seed = None if seed is None else check.integer("seed", seed, 0, mend)
        # NumPy takes seeds below 2**32, and each round takes the next one.
        if self.seed is not None and self.seed >= 2**31:
            raise ValueError(check.message("`seed` to be below 2**31", f"seed={seed}", mend))
        _check_rules(rules)
        self._parts = {"pattern": pattern, "scope": scope, "criterion": criterion, "rules": rules}
        if isinstance(model, keras.layers.Layer) and not isinstance(model, keras.Model):
            raise TypeError(
                check.message(
                    "a whole model",
                    f"model='{model.name}', a {type(model).__name__}",
                    "Pass the keras.Model that the layer is part of.",
                )
            )
        weights = pruned_weights(self._wrapped(model, self.sparsity))
        for weight in weights:
            if isinstance(weight.method.pattern, NOfM):
                raise ValueError(
                    check.message(
                        "a pattern that can have any sparsity",
                        f"{weight.method.pattern} for {weight.name}",
                        "Prune to N:M with prune_low_magnitude, or choose another pattern.",
                    )
                )
        # The copy keeps the rounds independent of later changes to the user's model.
        self._plain = strip_pruning(model)
        self._initial = {"weights": plain_values(self._plain), "seeds": self._seeds()}
        self._shapes = [tuple(weight.variable.shape) for weight in weights]
        self._config = {
            "sparsity": self.sparsity,
            "rounds": self.rounds,
            "rewind_to": self.rewind_to,
            "rewind_unit": self.rewind_unit,
            "seed": self.seed,
            "weights": [[list(v.shape), str(v.dtype)] for v in self._plain.weights],
            "pruned": [[list(w.variable.shape), _without_schedule(w.method)] for w in weights],
        }
        self._memory: RecordStore | None = None

    def sparsity_of(self, round):
        """Returns the sparsity of the masks of a round.

        Args:
            round: Number of the round, from 0 (dense) to `rounds`.
        """
        if round == self.rounds:
            return self.sparsity
        return 1 - (1 - self.sparsity) ** (round / self.rounds)

    @renamed(folder="path")
    def run(
        self, train, path=None, control=None, *, data=None, batches=1, batch_size=32, loss=None
    ):
        """Trains all rounds that are not yet complete.

        Rounds stored in the folder at `path`, or in this object without one, are not trained
        again.

        Args:
            train: Function of `(model, callback)` that trains the model from the start of a
                round, with a new optimizer. Pass `callback` to `fit`. In a custom loop, call
                `callback.step()` after each optimizer step (see `UpdatePruningStep`), and
                `callback.on_epoch_end(epoch)` if `rewind_unit` is "epoch". The function returns
                the metrics of the round: a dictionary of numbers, as from
                `model.evaluate(..., return_dict=True)`, or the `History` of `fit`, whose last
                epoch counts. Afterwards, the model is pruned for the next round; get trained
                models from `Tickets`.
            path: Folder in which to save each complete round. An interrupted run resumes from it,
                with the initial weights stored there. `None` keeps rounds in memory only.
            control: `None` for the lottery tickets. "random_masks" prunes as many weights of each
                layer, chosen at random, and starts from the same initial weights. "random_reinit"
                applies the tickets' masks to freshly initialized weights. Controls need the
                tickets, which are trained first if they are missing.
            data: For criteria that need more than weights, as in `UpdatePruningStep`; likewise
                the next three arguments.
            batches: Batches of `data` for each mask update between rounds.
            batch_size: Batch size for arrays.
            loss: A Keras loss, for criteria on gradients if the model is not compiled.

        Returns:
            `Tickets`.

        Raises:
            ValueError: If the folder has other contents, `train` does not use the callback or
                reuses an optimizer, training ends before the step to rewind to, or a weight
                becomes NaN or infinite.
            TypeError: If `train` is not a function or its return value has the wrong type.
        """
        if not callable(train):
            mend = "Pass a function of (model, callback) that trains the model."
            raise TypeError(check.message("`train` to be a function", f"{train=}", mend))
        if control is not None:
            check.choice("control", control, CONTROLS)
        if path is None:
            self._memory = self._memory or RecordStore(None, self._config, "tickets")
            store = self._memory
        else:
            store = RecordStore(path, self._config, "tickets")
        if "start" not in store:
            store.save("start", self._initial)
        update = {"data": data, "batches": batches, "batch_size": batch_size, "loss": loss}
        for kind in (None, control) if control else (None,):
            for round in range(self.rounds + 1):
                if record_name(round, kind) not in store:
                    self._run_round(round, kind, store, train, update)
        return Tickets(self, store, control)

    def _run_round(self, round, control, store, train, update):
        if control and round == 0:
            # Controls differ from the tickets only in pruned rounds; copy the dense one.
            name = record_name(0)
            store.save(record_name(0, control), store.arrays(name), store.data(name))
            return
        masks = self._masks(round, control, store)
        start = self.start_of(round, control, store)
        model = self.model_of(round, store, start, masks)
        rewinds = round == 0 and self.rewind_to
        if self.seed is not None:
            keras.utils.set_random_seed(self.seed + round)
        callback = RoundStep(model, (self.rewind_unit, self.rewind_to) if rewinds else None, update)
        metrics = _numbers(train(model, callback))
        callback.rewinding.check_used()
        arrays = {"masks": [np.packbits(mask) for mask in masks], "trained": plain_values(model)}
        if control == "random_reinit":
            arrays["start"] = start
        if control is None and round < self.rounds:
            callback.prune(self.sparsity_of(round + 1))
            arrays["next"] = [np.packbits(mask) for mask in _masks_of(model)]
        if rewinds:
            store.save("rewind", {"weights": callback.rewinding.taken})
        sizes = [mask.size for mask in masks]
        data = {
            "zeros": sum(sizes) - sum(map(np.count_nonzero, masks)),
            "parameters": sum(sizes),
            "metrics": metrics,
        }
        store.save(record_name(round, control), arrays, {**data, "zeros": int(data["zeros"])})

    def unpack(self, masks):
        """Restores masks from packed bits to their shapes."""
        return [
            np.unpackbits(bits, count=math.prod(shape)).astype(bool).reshape(shape)
            for bits, shape in zip(masks, self._shapes, strict=True)
        ]

    def _masks(self, round, control, store):
        """Returns the masks at the start of a round."""
        if round == 0:
            return [np.ones(shape, dtype=bool) for shape in self._shapes]
        name = record_name(round - 1)
        with store.reading(name):
            masks = self.unpack(store.arrays(name)["next"])
        if control == "random_masks":
            random = np.random.default_rng(None if self.seed is None else [self.seed, round])
            model = self._wrapped(self._plain, self.sparsity_of(round))
            update = MaskUpdate(model)
            for weight, mask in zip(update.weights, masks, strict=True):
                alone = update.is_alone(weight)
                weight.set_mask(_shuffled(mask, weight, random) if alone else mask)
            for group in update.groups:
                group.set_mask(group.shuffled(random))
            masks = _masks_of(model)
        return masks

    def start_of(self, round, control, store):
        """Returns the weights at the start of a round, before masking."""
        with store.reading("start"):
            start = store.arrays("start")["weights"]
        if control == "random_reinit" and round:
            name = record_name(round, control)
            return store.arrays(name)["start"] if name in store else self._fresh(round, start)
        if round and self.rewind_to:
            with store.reading("rewind"):
                return store.arrays("rewind")["weights"]
        return start

    def _fresh(self, round, start):
        """Returns freshly initialized trainable weights, and the others as at the start."""
        if self.seed is not None:
            # Avoid the numbers that the user's own seed would give.
            keras.utils.set_random_seed((self.seed + 7919 * (round + 1)) % 2**32)
        pairs = zip(self._plain.weights, _initialized(self._plain), start, strict=True)
        return [new if variable.trainable else old for variable, new, old in pairs]

    def model_of(self, round, store, weights, masks):
        """Returns the wrapped model of a round with these weights and masks."""
        with store.reading("start"):
            self._plain.set_weights(weights)
            seeds = store.arrays("start")["seeds"]
            for generator, state in zip(_keras.seed_generators(self._plain), seeds, strict=True):
                generator.state.assign(state)
        _keras.refresh_constants(self._plain)
        model = self._wrapped(self._plain, self.sparsity_of(round))
        for weight, mask in zip(pruned_weights(model), masks, strict=True):
            weight.set_mask(mask)
        return model

    def _wrapped(self, model, sparsity):
        return prune_low_magnitude(model, ConstantSparsity.one_shot(sparsity), **self._parts)

    def _seeds(self):
        generators = _keras.seed_generators(self._plain)
        return [np.array(ops.convert_to_numpy(generator.state)) for generator in generators]


def _masks_of(model):
    return [np.array(_keras.host_array(weight.mask)) for weight in pruned_weights(model)]


def _without_schedule(method):
    return {name: part for name, part in method.get_config().items() if name != "schedule"}


def _shuffled(mask, weight, random):
    """Returns a mask with the same number of units, chosen at random."""
    axes = weight.axes.resolve(mask.ndim)
    units = weight.method.pattern.collapse(mask, axes).reshape(-1)
    return weight.method.pattern.expand(random.permutation(units), mask.shape, axes)


def _initialized(model):
    """Returns freshly initialized weights of a model."""
    make = keras.models.clone_model if _keras.is_graph(model) else _keras.bare_clone
    fresh = make(model)
    if not fresh.built:
        _keras.build_from_config(fresh, model.get_build_config())
    return [np.array(value) for value in fresh.get_weights()]


def _numbers(result):
    """Converts the return value of `train` to a dictionary of plain numbers."""
    if isinstance(result, keras.callbacks.History):
        result = {name: values[-1] for name, values in result.history.items()}
    try:
        found = {name: ops.convert_to_numpy(value).item() for name, value in (result or {}).items()}
        return {str(name): float(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise TypeError(
            check.message(
                "`train` to return a dictionary of numbers, a History or None",
                f"{result!r:.200}",
                "Return for instance model.evaluate(x, y, return_dict=True).",
            )
        ) from error


def _check_rules(rules):
    for rule in rules if isinstance(rules, (list, tuple)) else [rules]:
        if isinstance(rule, Rule) and rule.schedule is not None:
            raise ValueError(
                check.message(
                    "rules without a schedule, because the rounds set the sparsity",
                    f"Rule(match={rule.match!r}, schedule={rule.schedule!r})",
                    "Distribute the sparsity with scope=tfprune.PerLayer(...) instead.",
                )
            )

"""Dynamic sparse training: the sparsity stays, the connections move."""

import numbers
from dataclasses import replace

import numpy as np
from keras import ops

from tfprune import _keras, criteria, distributions, drop_fractions, patterns
from tfprune._base import validation as check
from tfprune._updates.mask_update import exchange
from tfprune.callbacks.update_pruning_step import UpdatePruningStep
from tfprune.prune import prune_low_magnitude
from tfprune.schedules.constant import ConstantSparsity
from tfprune.scopes import Local


class DynamicSparseTraining(UpdatePruningStep):
    """Trains a sparse model from the start, and moves its connections while it trains.

    `prune` wraps the model and shares the zeros out; the first connections are random. Then, every
    `update_every` optimizer steps, each layer drops some connections and grows as many others, so
    that its number of connections never changes. A connection that was not there before starts at
    zero, and what the optimizer remembers of it is forgotten. The callback takes the place of
    `UpdatePruningStep`; `fit` and loops of one's own use it in the same way.

    `RigL`, `SET` and `SNFS` are this with their own defaults. With `drop_fraction=0` the first
    connections stay: static sparse training, the control.

    Args:
        sparsity: Fraction of zeros over all pruned weights together, in [0, 1).
        distribution: How it is shared out over layers: a `Distribution` or the name of one.
        drop: Criterion, or the name of one: connections with the lowest scores go.
        grow: Criterion, or the name of one: missing connections with the highest scores come.
            "gradient" and others on gradients take dense gradients, on `data`, at updates only.
        drop_fraction: Share of a layer's connections that an update drops: a `DropFraction`, or a
            number that falls to 0 along a cosine.
        update_every: Optimizer steps between updates.
        stop: No updates after this share of the training, in (0, 1], or after this optimizer step,
            as a whole number above 1.
        total_steps: Optimizer steps of the whole training. `fit` knows them unless the length of
            its data is unknown; a loop of your own has to say.
        seed: For random criteria and the first connections.
        **arguments: `model`, `data`, `batches`, `batch_size` and `loss`, as in
            `UpdatePruningStep`.

    Raises:
        ValueError, TypeError: For arguments out of range; for a model that was not wrapped by
            `prune`; where the length of training is not known.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x, y = np.random.normal(size=(64, 8)), np.ones((64, 4))
    >>> rigl = tfprune.RigL(0.75, data=(x, y), update_every=2)
    >>> model = rigl.prune(model)
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(x, y, batch_size=8, verbose=0, callbacks=[rigl])
    >>> history.history["sparsity"]
    [0.75]

    Reference:

    - [Mocanu et al., 2018: Scalable Training of Artificial Neural Networks with Adaptive Sparse
      Connectivity](https://arxiv.org/abs/1707.04780) (SET)
    - [Evci et al., 2020: Rigging the Lottery](https://arxiv.org/abs/1911.11134) (RigL)
    - [Dettmers & Zettlemoyer, 2019: Sparse Networks from Scratch]
      (https://arxiv.org/abs/1907.04840) (SNFS)
    """

    def __init__(
        self,
        sparsity,
        distribution="erdos_renyi_kernel",
        drop="magnitude",
        grow="gradient",
        drop_fraction=0.3,
        update_every=100,
        stop=0.75,
        *,
        total_steps=None,
        seed=0,
        **arguments,
    ):
        mend = "Give a whole number from 1."
        self._target = check.sparsity("sparsity", sparsity)
        self._scope = Local(distributions.get(distribution))
        seed = check.integer("seed", seed, 0, "Give a whole number from 0.")
        self._first = criteria.Random(seed)
        self._drop = self._seeded(criteria.get(drop))
        self._grow = self._seeded(criteria.get(grow))
        self._fraction = drop_fractions.get(drop_fraction)
        self._every = check.integer("update_every", update_every, 1, mend)
        self._stop = _checked_stop(stop)
        self._given_total = total_steps
        if total_steps is not None:
            self._given_total = check.integer("total_steps", total_steps, 1, mend)
        self._last = None
        self._exchanged = None
        super().__init__(**arguments)

    def _seeded(self, criterion):
        return self._first if criterion == criteria.Random() else criterion

    def prune(self, model, *, pattern=None, criterion=None, rules=None):
        """Wraps a model for this callback.

        Args:
            model: A model or layer, as in `tfprune.prune_low_magnitude`.
            pattern: A pattern or the name of one; single weights by default.
            criterion: Which connections the model starts with: random ones by default.
            rules: List of `Rule`s that exempt layers.

        Returns:
            The wrapped copy, uncompiled.

        Raises:
            ValueError, TypeError: As `tfprune.prune_low_magnitude`.
        """
        pattern = patterns.get(pattern)
        if isinstance(pattern, patterns.Filter):
            # Connections are exchanged layer by layer.
            pattern = replace(pattern, coupled=False)
        return prune_low_magnitude(
            model,
            ConstantSparsity.one_shot(self._target),
            pattern=pattern,
            scope=self._scope,
            criterion=self._first if criterion is None else criterion,
            rules=rules,
        )

    # -- Keras's side --------------------------------------------------------------------------

    def set_model(self, model):
        super().set_model(model)
        for weight in self._weights():
            method = weight.method
            expected = (ConstantSparsity.one_shot(self._target), self._scope)
            if (method.schedule, method.scope) != expected:
                raise ValueError(
                    check.message(
                        f"a model that was wrapped for {self!r}",
                        f"{weight.name} with {method.schedule!r} and {method.scope!r}",
                        "Wrap it with model = callback.prune(model).",
                    )
                )
            if weight.coupled:
                raise ValueError(
                    check.message(
                        "filters of each layer by themselves",
                        f"{weight.name}, whose filters are coupled with those of other layers",
                        "Wrap the model with model = callback.prune(model), or with "
                        "tfprune.Filter(coupled=False).",
                    )
                )
            if isinstance(method.pattern, patterns.NOfM):
                raise ValueError(
                    check.message(
                        "a pattern whose units can move",
                        f"{weight.name} with {method.pattern!r}",
                        "Use single weights, blocks or slices.",
                    )
                )
        if self._moves():
            self._evidence.check(self._weights(), self._drop)
            self._evidence.check(self._weights(), self._grow)
        if self._in_own_loop:
            self._last = self._last_step(self._given_total)
            self._go_on_from(self._step_now(0))

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        # Found when the first epoch begins: another callback may restore a step before that.
        self._last = self._exchanged = None
        self._last_step(1 if self._given_total or self.params.get("steps") else None)

    def on_epoch_begin(self, epoch, logs=None):
        if self._last is None:
            total = self._given_total
            if total is None and self.params.get("steps"):
                _, accumulation = _keras.batches_done(self._trained.optimizer)
                batches = (self.params["epochs"] - epoch) * self.params["steps"]
                total = self._step_now(0) + batches // accumulation
            self._last = self._last_step(total)
        super().on_epoch_begin(epoch, logs)

    def _go_on_from(self, step):
        self._exchanged = step
        self._evidence.seek(step // self._every)

    def _last_step(self, total):
        if not self._moves() or self._stop > 1:
            return self._stop
        if total is None:
            raise ValueError(
                check.message(
                    "to know how long training goes on, for `stop` and `drop_fraction`",
                    f"stop={self._stop!r}, and data of unknown length",
                    "Give total_steps=..., in optimizer steps, or `stop` as a step.",
                )
            )
        return total * self._stop

    # -- Updates -------------------------------------------------------------------------------

    def _moves(self):
        return self._fraction.initial > 0

    def _step_now(self, elapsed):
        return max(owner.mask_set.step for owner in self._owners) + elapsed

    def _ask(self, elapsed):
        super()._ask(elapsed)
        if self._last is None:
            return
        step = self._step_now(elapsed)
        if self._exchanged is None or step < self._exchanged:
            self._go_on_from(step)
        if self._is_exchange_due(step):
            self._sync()
            self._exchange(self._step_now(min(elapsed, self._clock.elapsed())))

    def _step_once(self, sync):
        changed = super()._step_once(sync)
        step = self._step_now(0)
        if not self._is_exchange_due(step):
            return changed
        if sync is not None:
            sync()
        self._exchange(step)
        return True

    def _is_exchange_due(self, step):
        latest = step // self._every * self._every
        return self._moves() and self._exchanged < latest and latest <= self._last

    def _exchange(self, step):
        if not self._is_exchange_due(step):
            return
        weights = self._weights()
        fraction = self._fraction(min(1.0, step / self._last))
        drop, grow = self._drop.renewed(2 * step), self._grow.renewed(2 * step + 1)
        changed = exchange(weights, [fraction] * len(weights), drop, grow, self._evidence)
        self._exchanged = step
        optimizer = getattr(self._trained, "optimizer", None)
        if optimizer is None:
            return
        for weight, grown in changed:
            for slot in _keras.slots(optimizer, weight.variable):
                value = ops.convert_to_numpy(slot)
                slot.assign(np.where(grown, np.zeros((), value.dtype), value))

    def __repr__(self):
        return (
            f"{type(self).__name__}(sparsity={self._target:g}, "
            f"distribution={self._scope.distribution!r})"
        )


def _checked_stop(stop):
    number = isinstance(stop, numbers.Real) and not isinstance(stop, bool)
    if not number or not (0 < stop <= 1 or (stop > 1 and float(stop).is_integer())):
        raise ValueError(
            check.message(
                "`stop` to be a share of the training in (0, 1], or a step above 1",
                f"stop={stop!r}",
                "0.75 stops after three quarters of the training.",
            )
        )
    return stop


class RigL(DynamicSparseTraining):
    """Drops the smallest weights, grows where the dense gradient is largest.

    Args:
        sparsity: Fraction of zeros over all pruned weights together, in [0, 1).
        distribution: How it is shared out over layers: a `Distribution` or the name of one.
        **arguments: As in `DynamicSparseTraining`; `data` is needed.

    Example:

    >>> x, y = np.ones((4, 8)), np.ones((4, 4))
    >>> tfprune.RigL(0.9, data=(x, y))
    RigL(sparsity=0.9, distribution=ErdosRenyiKernel(power=1.0))

    Reference:

    - [Evci et al., 2020: Rigging the Lottery](https://arxiv.org/abs/1911.11134)
    """

    def __init__(self, sparsity, distribution="erdos_renyi_kernel", **arguments):
        super().__init__(sparsity, distribution, **{"grow": "gradient", **arguments})


class SET(DynamicSparseTraining):
    """Drops the smallest weights, grows at random; the share stays the same. Needs no data.

    Args:
        sparsity: Fraction of zeros over all pruned weights together, in [0, 1).
        distribution: How it is shared out over layers: a `Distribution` or the name of one.
        **arguments: As in `DynamicSparseTraining`.

    Example:

    >>> tfprune.SET(0.9, "uniform")
    SET(sparsity=0.9, distribution=Uniform())

    Reference:

    - [Mocanu et al., 2018: Scalable Training of Artificial Neural Networks with Adaptive Sparse
      Connectivity](https://arxiv.org/abs/1707.04780)
    """

    def __init__(self, sparsity, distribution="erdos_renyi_kernel", **arguments):
        own = {"grow": "random", "drop_fraction": drop_fractions.ConstantDrop(0.3)}
        super().__init__(sparsity, distribution, **{**own, **arguments})


class SNFS(DynamicSparseTraining):
    """Drops the smallest weights, grows where the momentum of the dense gradient is largest.

    The momentum is taken over `batches` batches of `data` at each update, 4 by default, so that no
    dense state is kept in between. The number of connections of each layer stays the same.

    Args:
        sparsity: Fraction of zeros over all pruned weights together, in [0, 1).
        distribution: How it is shared out over layers: a `Distribution` or the name of one.
        **arguments: As in `DynamicSparseTraining`; `data` is needed.

    Example:

    >>> x, y = np.ones((4, 8)), np.ones((4, 4))
    >>> tfprune.SNFS(0.9, "uniform", data=(x, y))
    SNFS(sparsity=0.9, distribution=Uniform())

    Reference:

    - [Dettmers & Zettlemoyer, 2019: Sparse Networks from Scratch]
      (https://arxiv.org/abs/1907.04840)
    """

    def __init__(self, sparsity, distribution="erdos_renyi_kernel", **arguments):
        own = {"grow": "gradient_momentum", "batches": 4}
        super().__init__(sparsity, distribution, **{**own, **arguments})

"""Dynamic sparse training: the sparsity stays, the connections move."""

import numbers
from dataclasses import replace

from tfprune import criteria, distributions, drop_fractions, patterns
from tfprune._base import validation as check
from tfprune.callbacks.exchange import Exchange
from tfprune.callbacks.pruning_callback import OwnLoop, PruningCallback
from tfprune.callbacks.pruning_training import PruningTraining
from tfprune.prune import prune_low_magnitude
from tfprune.schedules.constant import ConstantSparsity
from tfprune.scopes import Local


class DynamicSparseTraining(OwnLoop, PruningCallback):
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
            `None` for the default of the class, here "gradient".
        drop_fraction: Share of a layer's connections that an update drops: a `DropFraction`, or a
            number that falls to 0 along a cosine. `None` for the default of the class, here 0.3.
        update_every: Optimizer steps between updates.
        stop: No updates after this share of the training, in (0, 1], or after this optimizer step,
            as a whole number above 1.
        total_steps: Optimizer steps of the whole training. `fit` knows them unless the length of
            its data is unknown; a loop of your own has to say.
        seed: For random criteria and the first connections.
        model: The wrapped model, for a loop of your own only.
        data: For criteria on gradients or activations, as in `UpdatePruningStep`.
        batches: Batches of `data` for each update; `None` for the default of the class, here 1.
        batch_size: Size of the batches that arrays are cut into.
        loss: For criteria on gradients where the model is not compiled: a Keras loss.

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

    _grow_by_default = "gradient"
    _fraction_by_default: object = 0.3
    _batches_by_default = 1

    def __init__(
        self,
        sparsity,
        distribution="erdos_renyi_kernel",
        drop="magnitude",
        grow=None,
        drop_fraction=None,
        update_every=100,
        stop=0.75,
        *,
        total_steps=None,
        seed=0,
        model=None,
        data=None,
        batches=None,
        batch_size=32,
        loss=None,
    ):
        mend = "Give a whole number from 1."
        self._target = check.sparsity("sparsity", sparsity)
        self._scope = Local(distributions.get(distribution))
        seed = check.integer("seed", seed, 0, "Give a whole number from 0.")
        self._first = criteria.Random(seed)
        if total_steps is not None:
            total_steps = check.integer("total_steps", total_steps, 1, mend)
        exchange = Exchange(
            self,
            ConstantSparsity.one_shot(self._target),
            self._scope,
            self._seeded(criteria.get(drop)),
            self._seeded(criteria.get(self._grow_by_default if grow is None else grow)),
            drop_fractions.get(
                self._fraction_by_default if drop_fraction is None else drop_fraction
            ),
            check.integer("update_every", update_every, 1, mend),
            _checked_stop(stop),
            total_steps,
        )
        training = PruningTraining(
            exchange,
            data=data,
            batches=self._batches_by_default if batches is None else batches,
            batch_size=batch_size,
            loss=loss,
        )
        super().__init__(training, model)

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
    """Drops the smallest weights, grows where the dense gradient is largest: `grow="gradient"`.

    The arguments are those of `DynamicSparseTraining`; `data` is needed.

    Example:

    >>> x, y = np.ones((4, 8)), np.ones((4, 4))
    >>> tfprune.RigL(0.9, data=(x, y))
    RigL(sparsity=0.9, distribution=ErdosRenyiKernel(power=1.0))

    Reference:

    - [Evci et al., 2020: Rigging the Lottery](https://arxiv.org/abs/1911.11134)
    """


class SET(DynamicSparseTraining):
    """Drops the smallest weights, grows at random; the share stays the same. Needs no data.

    Its defaults: `grow="random"`, and a constant `drop_fraction` of 0.3.

    The arguments are those of `DynamicSparseTraining`.

    Example:

    >>> tfprune.SET(0.9, "uniform")
    SET(sparsity=0.9, distribution=Uniform())

    Reference:

    - [Mocanu et al., 2018: Scalable Training of Artificial Neural Networks with Adaptive Sparse
      Connectivity](https://arxiv.org/abs/1707.04780)
    """

    _grow_by_default = "random"
    _fraction_by_default = drop_fractions.ConstantDrop(0.3)


class SNFS(DynamicSparseTraining):
    """Drops the smallest weights, grows where the momentum of the dense gradient is largest.

    The momentum is taken over `batches` batches of `data` at each update, 4 by default, so that no
    dense state is kept in between. The number of connections of each layer stays the same.

    The arguments are those of `DynamicSparseTraining`; `data` is needed.

    Example:

    >>> x, y = np.ones((4, 8)), np.ones((4, 4))
    >>> tfprune.SNFS(0.9, "uniform", data=(x, y))
    SNFS(sparsity=0.9, distribution=Uniform())

    Reference:

    - [Dettmers & Zettlemoyer, 2019: Sparse Networks from Scratch]
      (https://arxiv.org/abs/1907.04840)
    """

    _grow_by_default = "gradient_momentum"
    _batches_by_default = 4

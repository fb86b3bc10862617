"""Dynamic sparse training: connections move while the sparsity stays constant."""

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
    """Trains a model that is sparse from the start, and moves its connections during training.

    `prune` wraps the model and distributes the zeros; the initial connections are random. Every
    `update_every` optimizer steps, each layer drops some connections and grows the same number of
    others, so its number of connections never changes. A new connection starts at zero, and its
    optimizer state is reset. Use the callback in place of `UpdatePruningStep`, with `fit` or in
    your own training loop.

    `RigL`, `SET` and `SNFS` are subclasses with other defaults. `drop_fraction=0` keeps the
    initial connections: static sparse training, the control.

    Args:
        sparsity: Fraction of zeros over all pruned weights together, in [0, 1).
        distribution: Divides the sparsity among the layers: a `Distribution` or the name of one.
        drop: Criterion, or the name of one: connections with the lowest scores are dropped.
        grow: Criterion, or the name of one: missing connections with the highest scores are grown.
            Criteria on gradients, such as "gradient", compute dense gradients on `data`, at updates
            only. `None` selects the default of the class, here "gradient".
        drop_fraction: Share of a layer's connections that an update drops: a `DropFraction`, or a
            number that falls to 0 along a cosine. `None` selects the default of the class, here
            0.3.
        update_every: Optimizer steps between updates.
        stop: End of the updates: a share of the training in (0, 1], or an optimizer step, as a
            whole number above 1.
        total_steps: Optimizer steps of the whole training. Required in your own training loop, and
            in `fit` on data of unknown length.
        seed: Seed of random criteria and of the initial connections.
        model: The wrapped model, for your own training loop only.
        data: Data for criteria on gradients or activations, as in `UpdatePruningStep`.
        batches: Batches of `data` for each update; `None` selects the default of the class, here 1.
        batch_size: Size of the batches that arrays are cut into.
        loss: A Keras loss for criteria on gradients, if the model is not compiled.
        masks_on: Where connections are dropped and grown, as in `UpdatePruningStep`. Random
            criteria, such as the one by which `SET` grows, are computed on the host, so that every
            backend draws the same numbers.

    Raises:
        ValueError, TypeError: For arguments out of range, a model that was not wrapped by `prune`,
            or an unknown length of training.

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

    _how_to_wrap = "model = callback.prune(model)"
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
        masks_on="auto",
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
            masks_on=masks_on,
        )
        super().__init__(training, model)

    def _seeded(self, criterion):
        return self._first if criterion == criteria.Random() else criterion

    def prune(self, model, *, pattern=None, criterion=None, rules=None):
        """Wraps a model for this callback.

        Args:
            model: A model or layer, as in `tfprune.prune_low_magnitude`.
            pattern: A pattern or the name of one; single weights by default.
            criterion: Selects the initial connections; random by default.
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
    """Drops the smallest weights, grows connections with the largest dense gradient.

    Takes the arguments of `DynamicSparseTraining`, with `grow="gradient"` by default; `data` is
    required.

    Example:

    >>> x, y = np.ones((4, 8)), np.ones((4, 4))
    >>> tfprune.RigL(0.9, data=(x, y))
    RigL(sparsity=0.9, distribution=ErdosRenyiKernel(power=1.0))

    Reference:

    - [Evci et al., 2020: Rigging the Lottery](https://arxiv.org/abs/1911.11134)
    """


class SET(DynamicSparseTraining):
    """Drops the smallest weights, grows random connections, at a constant rate. Needs no data.

    Takes the arguments of `DynamicSparseTraining`, with `grow="random"` and a constant
    `drop_fraction` of 0.3 by default.

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
    """Drops the smallest weights, grows connections with the largest gradient momentum.

    Each update computes the momentum of the dense gradient over `batches` batches of `data`, 4 by
    default, so no dense state is kept in between. The number of connections of each layer is
    constant.

    Takes the arguments of `DynamicSparseTraining`; `data` is required.

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

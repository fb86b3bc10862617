"""ADMM as a callback."""

from tfprune._base import validation as check
from tfprune.callbacks.pruning_callback import OwnLoop, PruningCallback
from tfprune.callbacks.pruning_training import PruningTraining
from tfprune.prune import prune_low_magnitude
from tfprune.pruners.admm.consensus_pull import ConsensusPull
from tfprune.pruners.admm.projection_score import ProjectionScore
from tfprune.schedules.constant import ConstantSparsity


class ADMM(OwnLoop, PruningCallback):
    """Pulls weights towards a pattern while they train, prunes them to it, and keeps the masks.

    `rho / 2 * ||W - Z + U||^2` is added to the loss for every pruned weight W. Every few optimizer
    steps, Z becomes the point of the pattern nearest to W + U, and U grows by W - Z. With any
    optimizer, gradients therefore pull the weights that will be pruned to zero, and little is lost
    at `end_step`, when the masks are made from W + U. After that, the masks are kept and the pull
    ends.

    `prune` wraps the model, and the callback replaces `UpdatePruningStep`, in `fit` and in your own
    loops. Z, U and rho are saved with the model, so an interrupted training resumes exactly. The
    logs hold "admm_primal", ||W - Z|| over all weights, and "admm_dual", the norm of the last
    change of Z times rho; a TensorBoard callback after this one in the list writes them.

    In the guide's measurements ("Search: how much each layer loses"), for single weights at 98 %
    with LAMP's shares, ADMM is no better than gradual pruning with the same shares: start with
    `PolynomialDecay`.

    Args:
        sparsity: Fraction of pruned units at the end, in (0, 1).
        end_step: Optimizer step at which the masks are made.
        pattern: A pattern or the name of one, of any kind; single weights by default.
        scope: A scope, a distribution, or the name of one; "local" by default.
        rules: List of `Rule`s that exempt layers or give them another pattern.
        rho: Strength of the pull at first. A larger loss needs a larger rho: raise it if
            "admm_primal" does not fall.
        growth: Factor of `rho` at each update, at least 1.
        every: Optimizer steps between updates of Z and U.

    Raises:
        ValueError: If an argument is out of range, or the model in `fit` was not wrapped with
            `prune`.
        TypeError: If an argument is of the wrong kind.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    >>> admm = tfprune.pruners.ADMM(0.5, end_step=16, rho=0.1, every=4)
    >>> pruned = admm.prune(model)
    >>> pruned.compile("adam", "mse")
    >>> history = pruned.fit(np.ones((64, 8)), np.ones((64, 1)), batch_size=8, epochs=3,
    ...     verbose=0, callbacks=[admm])
    >>> history.history["sparsity"]
    [0.0, 0.5, 0.5]

    Reference:

    - [Zhang et al., 2018: A Systematic DNN Weight Pruning Framework using
      ADMM](https://arxiv.org/abs/1804.03294)
    """

    def __init__(
        self,
        sparsity,
        end_step,
        *,
        pattern=None,
        scope=None,
        rules=None,
        rho=1e-2,
        growth=1.1,
        every=100,
    ):
        self._sparsity = check.sparsity("sparsity", sparsity)
        if self._sparsity == 0:
            mend = "Give the fraction of zeros, for instance 0.9."
            raise ValueError(check.message("`sparsity` above 0", f"{sparsity=}", mend))
        mend = "Give the optimizer step at which the masks are to be made."
        self._end = check.integer("end_step", end_step, 1, mend)
        rho = check.positive("rho", rho, "Use for instance 0.01.")
        growth = check.positive("growth", growth, "Use for instance 1.1.")
        if growth < 1:
            mend = "Use for instance 1.1; 1 leaves rho as it is."
            raise ValueError(check.message("`growth` to be at least 1", f"{growth=}", mend))
        every = check.integer("every", every, 1, "Use for instance 100.")
        self._parts = {"pattern": pattern, "scope": scope, "rules": rules}
        self._pulling = ConsensusPull(self._sparsity, self._end, rho, growth, every)
        super().__init__(PruningTraining(self._pulling))

    def prune(self, model):
        """Wraps a model for this callback.

        Args:
            model: A built model, as in `tfprune.prune_low_magnitude`. It is copied and not changed.

        Returns:
            The wrapped model, uncompiled.
        """
        return prune_low_magnitude(
            model,
            ConstantSparsity.one_shot(self._sparsity, self._end),
            criterion=ProjectionScore(),
            **self._parts,
        )

    def attach(self, model):
        """Begins with a model, for your own training loop; then call `step()`."""
        self._training.attach(model, own_loop=True)

    @property
    def residuals(self):
        """`{"admm_primal", "admm_dual"}` of the latest update of Z and U."""
        return dict(self._pulling.residuals)

    def _log(self, logs):
        super()._log(logs)
        if logs is not None:
            logs.update(self._pulling.residuals)

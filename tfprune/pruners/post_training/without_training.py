"""The pruners that need no training: Wanda, SparseGPT, and magnitude to compare them with."""

from tfprune._base import validation as check
from tfprune.pruners.post_training.methods import ByMagnitude, BySparseGPT, ByWanda
from tfprune.pruners.post_training.pruning import prune_blocks


def wanda(
    model,
    sparsity,
    data,
    *,
    pattern=None,
    distribution=None,
    blocks=None,
    layers=None,
    path=None,
    verbose=1,
):
    """Prunes a trained model at once by Wanda: magnitude times norm of the input.

    Weights are compared within each output of a layer, and not changed. The model is pruned block
    by block, each on the outputs of the pruned blocks before it, so the activations of one block
    are in memory at a time. In a model without a stack of repeated blocks, each layer is a block.
    Only Dense, EinsumDense and convolution layers inside the blocks are pruned; embeddings and the
    head outside of them stay dense.

    Args:
        model: A built `keras.Model`, for instance a KerasHub `CausalLM`. It is copied and not
            changed.
        sparsity: Fraction of zeros in each output, in [0, 1), rounded for each; or a list with
            one for each block.
        data: A `tfprune.pruners.Calibration`, or its `dataset` alone: texts, tokens, or what
            `model.fit` takes.
        pattern: `Unstructured` (the default) or `NOfM`, or the name of one.
        distribution: A `tfprune.pruners.Owl`, which divides the sparsity among the blocks.
        blocks: The blocks: layers, or their names, paths or patterns; or a dictionary with these as
            "sequential_blocks". By default the model's own `get_quantization_layer_structure`, or
            else the layers that repeat.
        layers: Names or patterns of the layers to prune; all in the blocks by default.
        path: Folder that keeps each finished block. The same call with the same path
            continues from there, with the same result.
        verbose: 1 shows a progress bar over the blocks, 0 does not.

    Returns:
        A `PostTrainingResult`: the wrapped model, and a table of the blocks.

    Raises:
        ValueError: If a block is missing or does not run; if the data is too short, does not fit
            the model, or has tokens outside its vocabulary; if inputs are not finite; if the
            folder belongs to another run; and as in `tfprune.prune_low_magnitude`.
        TypeError: If an argument is of the wrong kind.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
    >>> x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    >>> data = tfprune.pruners.Calibration(x, num_samples=32)
    >>> result = tfprune.pruners.wanda(model, 0.5, data, verbose=0)
    >>> [block.zeros for block in result.blocks]
    [64, 16]

    Reference:

    - [Sun et al., 2024: Wanda](https://arxiv.org/abs/2306.11695)
    """
    return prune_blocks(
        ByWanda(),
        model,
        sparsity,
        data,
        pattern=pattern,
        distribution=distribution,
        blocks=blocks,
        layers=layers,
        path=path,
        verbose=verbose,
    )


def sparse_gpt(
    model,
    sparsity,
    data,
    *,
    damping=0.01,
    pattern=None,
    distribution=None,
    blocks=None,
    layers=None,
    path=None,
    verbose=1,
):
    """Prunes a trained model at once by SparseGPT: kept weights compensate for pruned ones.

    The inputs of a layer determine how to compensate for a removed weight. The method visits them
    one by one, removes weights, and corrects the weights of later inputs, so that the outputs
    change least. It works block by block, as `wanda` does. It keeps, for one block at a time, a
    matrix of (inputs, inputs) in float64 for each layer.

    Args:
        model: As in `wanda`.
        sparsity: Fraction of zeros in each weight, in [0, 1); or a list with one for each block.
        data: As in `wanda`.
        damping: Added to the diagonal of the Hessian, in units of its mean, at least 0. If it is
            not enough, 0.01, 0.1 and 1 are tried, and noted in `notes` of the result.
        pattern: As in `wanda`, likewise the further arguments.
        distribution: A `tfprune.pruners.Owl`.
        blocks: The blocks.
        layers: The layers to prune.
        path: Folder that keeps each block.
        verbose: 1 shows a progress bar.

    Returns:
        A `PostTrainingResult`: the wrapped model, and a table of the blocks.

    Raises:
        ValueError: As in `wanda`, and if no damping makes the Hessian of a layer positive definite.
        TypeError: If an argument is of the wrong kind.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
    >>> x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    >>> data = tfprune.pruners.Calibration(x, num_samples=32)
    >>> pruned = tfprune.pruners.sparse_gpt(
    ...     model, 0.5, data, pattern=tfprune.NOfM(2, 4), verbose=0).stripped()

    Reference:

    - [Frantar and Alistarh, 2023: SparseGPT](https://arxiv.org/abs/2301.00774)
    """
    number = isinstance(damping, (int, float)) and not isinstance(damping, bool)
    if not (number and 0 <= damping < float("inf")):
        raise ValueError(
            check.message("`damping` to be a number from 0", f"{damping=}", "The paper uses 0.01.")
        )
    return prune_blocks(
        BySparseGPT(float(damping)),
        model,
        sparsity,
        data,
        pattern=pattern,
        distribution=distribution,
        blocks=blocks,
        layers=layers,
        path=path,
        verbose=verbose,
    )


def magnitude(
    model,
    sparsity,
    data=None,
    *,
    pattern=None,
    distribution=None,
    blocks=None,
    layers=None,
    path=None,
    verbose=1,
):
    """Prunes the same layers as `wanda` and `sparse_gpt` by magnitude, to compare with them.

    Each weight is pruned on its own. Without training afterwards, expect large losses in language
    models.

    Args:
        model: As in `wanda`.
        sparsity: Fraction of zeros in each weight, in [0, 1); or a list with one for each block.
        data: As in `wanda`, for the errors in the table and for `distribution`; or `None`.
        pattern: As in `wanda`, likewise the further arguments.
        distribution: A `tfprune.pruners.Owl`.
        blocks: The blocks.
        layers: The layers to prune.
        path: Folder that keeps each block.
        verbose: 1 shows a progress bar.

    Returns:
        A `PostTrainingResult`: the wrapped model, and a table of the blocks.

    Raises:
        ValueError: As in `wanda`.
        TypeError: If an argument is of the wrong kind.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> tfprune.pruners.magnitude(model, 0.75, verbose=0).sparsity
    0.75
    """
    return prune_blocks(
        ByMagnitude(),
        model,
        sparsity,
        data,
        pattern=pattern,
        distribution=distribution,
        blocks=blocks,
        layers=layers,
        path=path,
        verbose=verbose,
    )

"""How many outliers the blocks of a model have, and what follows for their sparsity."""

import numpy as np

from tfprune import _keras
from tfprune.pruners.post_training.owl import BlockRequest
from tfprune.pruners.post_training.statistics import InputStatistics, padding_of, watch


def divided(owl, sparsity, blocks, flow, batches):
    """Returns the sparsity of each block of the unpruned model.

    Args:
        owl: An `Owl`.
        sparsity: The overall sparsity.
        blocks: The `PlannedBlock`s, in running order.
        flow: The `BlockCalls` of the plain model.
        batches: The inputs of the model.
    """
    requests = []
    for number, block in enumerate(blocks):
        statistics = {
            weight.name: InputStatistics(weight.product, hessian=False) for weight in block.weights
        }
        calls = flow.calls(number)
        masks = [padding_of(batches[call.batch]) for call in calls]
        outputs = watch(statistics, calls, lambda call, at=block: call.run(at.layer), masks)
        flow.passed([[_keras.HeldTensor(tensor) for tensor in one] for one in outputs])
        scores = [_scores(weight, statistics[weight.name]) for weight in block.weights]
        requests.append(BlockRequest(block.name, block.size, owl.share_of_outliers(scores)))
    zeros = owl.zeros(requests, sparsity)
    return [count / request.units for count, request in zip(zeros, requests, strict=True)]


def _scores(weight, statistics):
    matrices = np.abs(weight.product.matrices(weight.kernel).astype("float64"))
    if not statistics.seen:
        return np.zeros(matrices.shape)
    return matrices * statistics.norms()[:, :, None]

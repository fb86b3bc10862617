"""SparseGPT against closed forms and a reference written from the paper."""

from fractions import Fraction

import numpy as np
import pytest
from post_training_support import correlated

from tfprune import NOfM
from tfprune.pruners.post_training.least_squares import groups_of, inverse_factor, prune_matrix


def setup(inputs=12, outputs=5, seed=0):
    x = correlated(200, inputs, seed).astype("float64")
    weights = np.random.default_rng(seed + 1).normal(size=(inputs, outputs))
    return x, weights


def test_the_factor_is_that_of_the_inverse():
    x, _ = setup()
    hessian = x.T @ x
    factor, damping = inverse_factor(hessian, 0.01)
    damped = hessian + 0.01 * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    assert damping == 0.01
    np.testing.assert_array_equal(factor, np.triu(factor))
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(len(hessian)), atol=1e-9)


def test_one_weight_removed_is_the_least_squares_solution():
    """The first input's weight goes; the others become the best replacement there is."""
    x, weights = setup(outputs=1)
    factor, _ = inverse_factor(x.T @ x, 0.0)
    groups = [(0, 1, 1), *((n, n + 1, 0) for n in range(1, 12))]
    found, keep = prune_matrix(weights, factor, np.zeros(12, bool), groups=groups)
    best, *_ = np.linalg.lstsq(x[:, 1:], x @ weights, rcond=None)
    assert keep.ravel().tolist() == [False] + [True] * 11
    np.testing.assert_allclose(found[1:], best, rtol=1e-7)
    assert found[0, 0] == 0


def test_several_inputs_removed_are_the_least_squares_solution():
    x, weights = setup()
    factor, _ = inverse_factor(x.T @ x, 0.0)
    groups = [(0, 4, 4), *((n, n + 1, 0) for n in range(4, 12))]
    found, _ = prune_matrix(weights, factor, np.zeros(12, bool), groups=groups)
    best, *_ = np.linalg.lstsq(x[:, 4:], x @ weights, rcond=None)
    np.testing.assert_allclose(found[4:], best, rtol=1e-7)
    assert not found[:4].any()


def reference(weight, x, sparsity, zeros=0, group=0, blocksize=128, percdamp=0.01):
    """Algorithm 1 of the paper on PyTorch: rows are outputs, and a threshold chooses."""
    torch = pytest.importorskip("torch")
    W = torch.tensor(weight.T.copy())
    X = torch.tensor(x)
    columns = W.shape[1]
    H = X.T @ X
    H += percdamp * torch.mean(torch.diag(H)) * torch.eye(columns, dtype=H.dtype)
    Hinv = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    for i1 in range(0, columns, blocksize):
        i2 = min(i1 + blocksize, columns)
        W1, Hinv1 = W[:, i1:i2].clone(), Hinv[i1:i2, i1:i2]
        Q1, Err1 = torch.zeros_like(W1), torch.zeros_like(W1)
        mask1 = torch.zeros_like(W1) == 1
        if not group:
            tmp = W1**2 / torch.diag(Hinv1).reshape(1, -1) ** 2
            thresh = torch.sort(tmp.flatten())[0][int(tmp.numel() * sparsity) - 1]
            mask1 = tmp <= thresh
        for i in range(i2 - i1):
            if group and i % group == 0:
                part = slice(i, i + group)
                tmp = W1[:, part] ** 2 / torch.diag(Hinv1)[part].reshape(1, -1) ** 2
                mask1.scatter_(1, i + torch.topk(tmp, zeros, dim=1, largest=False)[1], True)
            q = W1[:, i].clone()
            q[mask1[:, i]] = 0
            Q1[:, i] = q
            err = (W1[:, i] - q) / Hinv1[i, i]
            W1[:, i:] -= err.unsqueeze(1) @ Hinv1[i, i:].unsqueeze(0)
            Err1[:, i] = err
        W[:, i1:i2] = Q1
        W[:, i2:] -= Err1 @ Hinv[i1:i2, i2:]
    return W.numpy().T


@pytest.mark.parametrize(("zeros", "group"), [(0, 0), (2, 4), (4, 8)])
@pytest.mark.parametrize("inputs", [64, 256])
def test_it_is_the_algorithm_of_the_paper(inputs, zeros, group):
    x, weights = setup(inputs, 16)
    factor, _ = inverse_factor(x.T @ x, 0.01)
    groups = groups_of(NOfM(zeros, group), inputs, inputs) if group else None
    found, keep = prune_matrix(weights, factor, np.zeros(inputs, bool), 0.5, groups)
    expected = reference(weights, x, 0.5, zeros, group)
    np.testing.assert_array_equal(keep, expected != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.5, 0.9])
@pytest.mark.parametrize("inputs", [5, 128, 300])
def test_the_count_is_exact(inputs, sparsity):
    x, weights = setup(inputs, 7)
    factor, _ = inverse_factor(x.T @ x, 0.01)
    found, keep = prune_matrix(weights, factor, np.zeros(inputs, bool), sparsity)
    assert keep.sum() == max(1, round(keep.size * (1 - Fraction(str(sparsity)))))
    assert not found[~keep].any()


def test_inputs_that_were_always_zero_go_first():
    x, weights = setup()
    x[:, [2, 7]] = 0
    hessian = x.T @ x + np.diag(np.isin(np.arange(12), [2, 7]) * 1.0)
    factor, _ = inverse_factor(hessian, 0.01)
    dead = np.isin(np.arange(12), [2, 7])
    _, keep = prune_matrix(100 * weights, factor, dead, 0.25)
    assert not keep[[2, 7]].any()


def test_damping_is_raised_until_it_is_enough():
    singular = np.ones((4, 4))
    factor, damping = inverse_factor(singular, 0.0)
    assert damping == 0.01
    assert np.isfinite(factor).all()
    assert inverse_factor(np.diag([1.0, 1.0, -10.0]), 0.01) is None


def test_groups_end_with_the_positions_of_a_window():
    groups = groups_of(NOfM(2, 4), 12, 6)
    assert groups == [(0, 4, 2), (4, 6, 0), (6, 10, 2), (10, 12, 0)]

"""Gaussian processes: the textbook's formulae, and hyperparameters that are found again."""

import numpy as np
import pytest
import torch

from sbi_da.alignment.gaussian_process import Kernel, Processes, learn


def kernel(processes=2, inputs=3):
    of = torch.linspace(0.5, 1.5, processes, dtype=torch.float64)
    length = 1 + torch.arange(processes * inputs, dtype=torch.float64).reshape(processes, inputs)
    return Kernel(length, of, 0.3 * of, 0.2 * of, 0.1 * of)


def by_hand(k, p, x, y):
    """The covariance, entry by entry."""
    found = np.empty((len(x), len(y)))
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            r = np.sqrt(3 * np.sum(((a - b) / k.length[p].numpy()) ** 2))
            plane = float(k.slope[p]) ** 2 * float(a @ b) + float(k.level[p]) ** 2
            found[i, j] = float(k.amplitude[p]) ** 2 * (1 + r) * np.exp(-r) + plane
    return found


def test_the_covariance_is_that_of_the_docstring():
    x, y = np.random.default_rng(0).standard_normal((2, 6, 3))
    k = kernel()
    found = k(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    for p in range(2):
        assert found[p] == pytest.approx(by_hand(k, p, x, y), abs=1e-5)
    assert k.diagonal(torch.from_numpy(x))[1].numpy() == pytest.approx(np.diag(by_hand(k, 1, x, x)), abs=1e-9)


def test_predictions_are_those_of_the_normal_equations():
    rng = np.random.default_rng(1)
    x, at, target, noise = rng.standard_normal((8, 3)), rng.standard_normal((5, 3)), rng.standard_normal((2, 8)), rng.random((2, 8)) + 0.1
    k = kernel()
    mean, variance = Processes(k, *map(torch.from_numpy, (x, target, noise))).predict(at)
    for p in range(2):
        inverse = np.linalg.inv(by_hand(k, p, x, x) + np.diag(noise[p]))
        cross = by_hand(k, p, x, at)
        assert mean[:, p] == pytest.approx(cross.T @ inverse @ target[p], abs=1e-4)
        assert variance[:, p] == pytest.approx(np.diag(by_hand(k, p, at, at) - cross.T @ inverse @ cross), abs=1e-4)


def test_an_input_of_no_effect_gets_a_long_length_and_the_scatter_is_found():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((150, 2))
    target = np.stack([np.sin(2 * x[:, 0]), np.sin(2 * x[:, 1])]) + 0.1 * rng.standard_normal((2, 150))
    start = Kernel.start(torch.ones(2, dtype=torch.float64), 2)
    found = learn(start, torch.from_numpy(x), torch.from_numpy(target), torch.full((2, 150), 1e-6, dtype=torch.float64),
                  torch.ones(150, dtype=torch.float64), 150)
    assert found.length[0, 1] > 3 * found.length[0, 0] and found.length[1, 0] > 3 * found.length[1, 1]
    assert found.white.numpy() == pytest.approx([0.1, 0.1], rel=0.25)

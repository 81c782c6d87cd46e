r"""Classifier two-sample tests of many pairs of samples at once.

The same test as :func:`~sbi_da.diagnostics.twosample.c2st`: all networks, one for each pair and fold, are trained side by side by
batched products of matrices. They are those of scikit-learn's ``MLPClassifier``: two hidden layers of rectified units, uniform Glorot
initialisation, Adam at 1e-3 in batches of 200, a penalty of :math:`\tfrac12 10^{-4}|w|^2` per batch, and each stops when its mean
training loss has not fallen by 1e-4 for more than ten epochs in a row.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from sbi_da.errors import SbiDaError

__all__ = ["c2st_many"]

BATCH, RATE, PENALTY, TOLERANCE, PATIENCE = 200, 1e-3, 1e-4, 1e-4, 10
DECAYS = (0.9, 0.999)
CACHED = 1000
"""Hidden units, over all networks trained side by side, whose activations stay in a processor's cache."""


def c2st_many(
    x: Sequence[np.ndarray], y: Sequence[np.ndarray], folds: int = 5, seed: int = 0, max_n: int | None = 10_000,
    epochs: int = 1000,
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-validated accuracy of classifiers that tell two samples apart, for each of many pairs.

    Args:
        x: reference samples, each of shape ``(draw, parameter)``.
        y: other samples, as many.
        folds: of the cross-validation.
        seed: of subsampling, folds and networks; the result is a function of it and of all pairs.
        max_n: most draws used of each sample; None for all. All pairs are cut to the number of the smallest sample.
        epochs: most of them.

    Returns:
        Accuracies on held-out draws, and their standard errors (the larger of the binomial one and that of the folds), shape ``(pair,)``.

    Raises:
        SbiDaError: shapes that differ, values that are not finite, or fewer draws than folds.
    """
    pairs = [(np.asarray(a, float), np.asarray(b, float)) for a, b in zip(x, y, strict=True)]
    if not pairs or len({s.shape[1:] for pair in pairs for s in pair}) > 1 or pairs[0][0].ndim != 2:
        raise SbiDaError("c2st_many compares pairs of (draw, parameter) samples, all of the same parameters")
    if not all(np.isfinite(s).all() for pair in pairs for s in pair):
        raise SbiDaError("c2st_many: a sample holds values that are not finite: remove them first")
    n = min([*(len(s) for pair in pairs for s in pair), *([max_n] if max_n else [])])
    if n < folds:
        raise SbiDaError(f"c2st_many: {n} draws cannot be split into {folds} folds")
    rng = np.random.default_rng(seed)
    trained_on, tested_on = [], []
    part = np.arange(n) % folds
    for a, b in pairs:
        centre, scale = a.mean(0), np.where(a.std(0) > 0, a.std(0), 1.0)
        sample = np.stack([(s[rng.permutation(len(s))[:n]] - centre) / scale for s in (a, b)]).astype(np.float32)
        for fold in range(folds):
            trained_on.append(sample[:, part != fold])
            tested_on.append(sample[:, part == fold])
    right = _accuracies(trained_on, tested_on, seed, epochs).reshape(len(pairs), folds)
    value = right.mean(1)
    binomial = np.sqrt(value * (1 - value) / (2 * n))
    return value, np.maximum(binomial, right.std(1, ddof=1) / np.sqrt(folds))


def _accuracies(trained_on: list[np.ndarray], tested_on: list[np.ndarray], seed: int, epochs: int) -> np.ndarray:
    """Accuracy of one network for each set of two samples ``(2, draw, parameter)``, where it was not trained."""
    size = trained_on[0].shape[2]
    least = min(s.shape[1] for s in trained_on)
    label = torch.arange(2).repeat_interleave(least).float()
    generator = torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, len(trained_on), group := max(10, CACHED // (10 * size))):
        some = slice(start, start + group)
        data = torch.from_numpy(np.stack([s[:, :least].reshape(-1, size) for s in trained_on[some]]))
        networks = Networks(len(data), size, 10 * size, generator).fit(data, label, epochs)
        for k, test in enumerate(tested_on[some]):
            says = [networks.pick([k]).logit(torch.from_numpy(s)[None])[0] > 0 for s in test]
            found.append(float(torch.cat([~says[0], says[1]]).float().mean()))
    return np.array(found)


class Networks:
    """Perceptrons of two hidden layers and one output, side by side.

    Args:
        count: of networks.
        size: of the input.
        width: of the hidden layers.
        generator: of initial weights and of the order of training.
    """

    def __init__(self, count: int, size: int, width: int, generator: torch.Generator) -> None:
        self.generator = generator
        self.shapes = [(size, width), (1, width), (width, width), (1, width), (width, 1), (1, 1)]
        bounds = [b for i, o in ((size, width), (width, width), (width, 1)) for b in 2 * [(6 / (i + o)) ** 0.5]]
        counts = [i * o for i, o in self.shapes]
        scale = torch.tensor(bounds).repeat_interleave(torch.tensor(counts))
        self.flat = scale * (2 * torch.rand(count, sum(counts), generator=generator) - 1)
        self.penalty = PENALTY * torch.tensor([1.0, 0.0] * 3).repeat_interleave(torch.tensor(counts))

    def split(self, flat: Tensor) -> list[Tensor]:
        """Weights and biases of a flat array, in turn."""
        ends = np.cumsum([i * o for i, o in self.shapes])
        return [
            flat[:, end - i * o : end].view(-1, i, o) for end, (i, o) in zip(ends, self.shapes, strict=True)
        ]

    def pick(self, which: list[int]) -> "Networks":
        """Some of the networks."""
        some = object.__new__(Networks)
        some.__dict__ = {**self.__dict__, "flat": self.flat[which]}
        return some

    def logit(self, x: Tensor) -> Tensor:
        """Log-odds, shape ``(network, draw)``, of the second sample."""
        w1, b1, w2, b2, w3, b3 = self.split(self.flat)
        hidden = torch.baddbmm(b2, torch.baddbmm(b1, x, w1).relu_(), w2).relu_()
        return torch.baddbmm(b3, hidden, w3)[..., 0]

    def fit(self, data: Tensor, label: Tensor, epochs: int) -> "Networks":
        """Train each network on its own data ``(network, draw, size)`` until it stops; itself."""
        final = self.flat.clone()
        alive = torch.arange(len(data))
        first, second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        best, stale = torch.full((len(data),), torch.inf), torch.zeros(len(data), dtype=torch.long)
        steps, draws = 0, data.shape[1]
        for _ in range(epochs):
            order = torch.randperm(draws, generator=self.generator)
            shuffled, labels = data[:, order], label[order]
            loss = torch.zeros(len(alive))
            for start in range(0, draws, BATCH):
                steps += 1
                some, target = shuffled[:, start : start + BATCH], labels[start : start + BATCH]
                value, gradient = self.gradient(some, target)
                loss += value
                first.lerp_(gradient, 1 - DECAYS[0])
                second.mul_(DECAYS[1]).addcmul_(gradient, gradient, value=1 - DECAYS[1])
                rate = RATE * (1 - DECAYS[1] ** steps) ** 0.5 / (1 - DECAYS[0] ** steps)
                self.flat.addcdiv_(first, second.sqrt().add_(1e-8), value=-rate)
            loss /= draws
            stale = torch.where(loss > best - TOLERANCE, stale + 1, 0)
            best = torch.minimum(best, loss)
            going = stale <= PATIENCE
            if not going.all():
                final[alive[~going]] = self.flat[~going]
                if not going.any():
                    break
                alive, data = alive[going], data[going]
                self.flat, first, second, best, stale = (t[going] for t in (self.flat, first, second, best, stale))
        else:
            final[alive] = self.flat
        self.flat = final
        return self

    def gradient(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss of a batch for each network, and the gradient of its mean."""
        w1, b1, w2, b2, w3, b3 = self.split(self.flat)
        h1 = torch.bmm(x, w1).add_(b1).relu_()
        h2 = torch.bmm(h1, w2).add_(b2).relu_()
        logit = torch.baddbmm(b3, h2, w3)[..., 0]
        shrink = self.penalty * self.flat
        loss = (softplus(logit) - label * logit).sum(1) + 0.5 * (shrink * self.flat).sum(1)
        error = (torch.sigmoid(logit) - label)[..., None]
        of_w3 = torch.bmm(error.transpose(1, 2), h2)
        d2 = h2.sign_().mul_(w3.transpose(1, 2)).mul_(error)  # in place: memory is what takes the time
        of_w2 = torch.bmm(h1.transpose(1, 2), d2)
        d1 = torch.bmm(d2, w2.transpose(1, 2)).mul_(h1.sign_())
        parts = [torch.bmm(x.transpose(1, 2), d1), d1.sum(1), of_w2, d2.sum(1), of_w3, error.sum(1)]
        gradient = torch.cat([p.flatten(1) for p in parts], 1).add_(shrink).div_(len(label))
        return loss, gradient

r"""Training with Lightning.

The loss is :math:`\mathbb E_q[\tilde w\,(-\log q_\phi(z\mid x))]` over objects drawn from a proposal, with
:math:`\tilde w = w(\theta)/\hat w(x)`, :math:`w = p/q`, and :math:`\hat w(x)\approx\mathbb E_q[w\mid x]` regressed on the
context along the way. Any positive function of x alone leaves the optimum, the posterior under the prior, where it is;
this one removes the part of the weights that says nothing of the posterior and with it most of their variance, so that
rare objects are not drowned. Ratios above 20 are cut to keep gradients finite: a mode the proposal reaches less than a
twentieth as often as the rest of the same posterior is learned too weak (``clipped`` in the log is its share of the loss's
weight).
"""

from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from sbi_da.config import TrainingConfig
from sbi_da.estimator import Estimator
from sbi_da.layout import Scalars
from sbi_da.optimiser import MuonAdamW
from sbi_da.sources import Examples, Source

__all__ = ["StreamModule", "TrainingModule"]

LARGEST_WEIGHT = 20.0
VALIDATION_EPOCH = 2**31
Batch = dict[str, Tensor]


def measurements(scalars: Scalars, rows: Any = slice(None)) -> Batch:
    """Measurements of some objects as tensors."""
    return {
        "value": torch.from_numpy(scalars.value[rows]).float(),
        "error": torch.from_numpy(scalars.error[rows]).float(),
        "state": torch.from_numpy(scalars.state[rows]),
    }


def tensors(examples: Examples, rows: Any = slice(None)) -> Batch:
    """Some of the examples as tensors."""
    return {
        **measurements(examples.scalars, rows),
        "z": torch.from_numpy(examples.z[rows]).float(),
        "weight": torch.from_numpy(np.exp(examples.log_weight[rows])).float(),
    }


class _EpochStream(IterableDataset[dict[str, Batch]]):
    """Batches of one epoch, made when the epoch starts."""

    def __init__(self, module: "StreamModule") -> None:
        self.module = module

    def __len__(self) -> int:
        return self.module.config.steps_per_epoch

    def __iter__(self) -> Iterator[dict[str, Batch]]:
        trainer = self.module.trainer
        yield from self.module.batches(trainer.current_epoch if trainer is not None else 0)


class StreamModule(L.LightningDataModule):
    """Training stream and held-out set.

    Args:
        source: training examples.
        validation: source of the held-out ones (the same simulator with another seed).
        config: sizes.
    """

    def __init__(self, source: Source, validation: Source, config: TrainingConfig) -> None:
        super().__init__()
        self.source, self.validation, self.config = source, validation, config

    def batches(self, epoch: int) -> Iterator[dict[str, Batch]]:
        """Batches ``{"simulated": batch}`` of an epoch."""
        steps, batch = self.config.steps_per_epoch, self.config.batch
        examples = self.source.examples(steps * batch, epoch)
        whole = tensors(examples)
        for rows in np.array_split(np.arange(len(examples)), steps):
            yield {"simulated": {k: v[rows[0] : rows[-1] + 1] for k, v in whole.items()}}

    def train_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return DataLoader(_EpochStream(self), batch_size=None, num_workers=0)

    def val_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        examples = self.validation.examples(self.config.validation, VALIDATION_EPOCH)
        pieces = np.array_split(np.arange(len(examples)), max(1, len(examples) // 1024))
        batches: Any = [{"simulated": tensors(examples, rows)} for rows in pieces]
        return DataLoader(batches, batch_size=None, num_workers=0)


class TrainingModule(L.LightningModule):
    """Optimises an estimator on the streams of a batch.

    Args:
        estimator: what is trained.
        config: schedule.
        weighted: whether examples come from a proposal and carry weights.
    """

    def __init__(self, estimator: Estimator, config: TrainingConfig, weighted: bool) -> None:
        super().__init__()
        self.estimator, self.config = estimator, config
        width = estimator.network.context
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)) if weighted else None

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:  # noqa: D102
        simulated = batch["simulated"]
        context = self.estimator.context(simulated["value"], simulated["error"], simulated["state"])
        return self.posterior_loss(simulated, context)

    def posterior_loss(self, simulated: Batch, context: Tensor) -> Tensor:
        """Weighted negative log-likelihood of simulated objects, and the regression of their weights."""
        nll = -self.estimator.head.log_prob(simulated["z"], context)
        if self.level is None:
            loss = nll.mean()
            self.log("train_nll", loss.detach(), prog_bar=True)
            return loss
        weight = simulated["weight"]
        level = self.level(context.detach())[:, 0].clamp(-12, 4)
        regression = (level.exp() - weight * level).mean()
        ratio = weight / level.detach().exp()
        relative = ratio.clamp(max=LARGEST_WEIGHT)
        self.log("clipped", 1 - relative.sum() / ratio.sum())
        loss = (relative * nll).mean()
        self.log("train_nll", loss.detach(), prog_bar=True)
        return loss + regression

    def validation_step(self, batch: dict[str, Batch], batch_idx: int) -> None:  # noqa: D102
        simulated = batch["simulated"]
        context = self.estimator.context(simulated["value"], simulated["error"], simulated["state"])
        nll, weight = -self.estimator.head.log_prob(simulated["z"], context), simulated["weight"]
        self._sums += torch.stack([(weight * nll).sum(), weight.sum(), nll.sum(), nll.new_tensor(len(nll))])

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        self._sums = torch.zeros(4, device=self.device)

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        total, weight, plain, count = self._sums
        self.log("val_nll", total / weight, prog_bar=True)
        self.log("val_nll_proposal", plain / count)

    def configure_optimizers(self) -> Any:  # noqa: D102
        config = self.config
        optimizer = MuonAdamW(self, config.learning_rate, config.weight_decay)
        total = config.epochs * config.steps_per_epoch
        warmup = min(config.warmup, total // 5)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + float(np.cos(np.pi * min(1.0, (step - warmup) / max(1, total - warmup)))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

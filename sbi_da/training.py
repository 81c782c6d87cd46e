r"""Training with Lightning.

The loss is :math:`\mathbb E_q[\tilde w\,(-\log q_\phi(z\mid x))]` over objects drawn from a proposal, with
:math:`\tilde w = w(\theta)/\hat w(x)`, :math:`w = p/q`, and :math:`\hat w(x)\approx\mathbb E_q[w\mid x]` regressed on the
context along the way. Any positive function of x alone leaves the optimum, the posterior under the prior, where it is;
this one removes the part of the weights that says nothing of the posterior and with it most of their variance, so that
rare objects are not drowned. Ratios above 20 are cut to keep gradients finite: a mode the proposal reaches less than a
twentieth as often as the rest of the same posterior is learned too weak (``clipped`` in the log is its share of the loss's
weight).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sbi_da.augmentation import Augmentation, augment
from sbi_da.config import TrainingConfig
from sbi_da.estimator import Estimator
from sbi_da.measured import Batch, measurements, pictures
from sbi_da.optimiser import optimiser
from sbi_da.posterior_loss import posterior_loss
from sbi_da.sources import Examples, Source

__all__ = ["StreamModule", "TrainingModule", "moved"]

LARGEST_WEIGHT = 20.0
VALIDATION_EPOCH = 2**31


def tensors(examples: Examples, rows: Any = slice(None)) -> Batch:
    """Some of the examples as tensors."""
    return {
        **measurements(examples.observed, rows),
        "z": torch.from_numpy(examples.z[rows]).float(),
        "weight": torch.from_numpy(np.exp(examples.log_weight[rows])).float(),
    }


def moved(batch: Batch, how: Augmentation | None, seed: Sequence[int]) -> Batch:
    """A batch whose images are transformed copies.

    Args:
        batch: measurements; what is not an image stays.
        how: what is drawn; None: nothing.
        seed: the same numbers give the same copies.
    """
    if how is None:
        return batch
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(list(seed)).generate_state(1)[0]))
    changed = {f"pixels.{name}": augment(pixels, how, generator, seen) for name, (pixels, seen) in pictures(batch).items()}
    return {**batch, **changed}


class _EpochStream(IterableDataset[dict[str, Batch]]):
    """Batches of one epoch, made when the epoch starts."""

    def __init__(self, module: "StreamModule") -> None:
        self.module = module

    def __len__(self) -> int:
        return self.module.config.steps_per_epoch

    def __iter__(self) -> Iterator[dict[str, Batch]]:
        trainer = self.module.trainer
        yield from self.module.batches(trainer.current_epoch if trainer is not None else 0)


class _Pieces(Dataset[dict[str, Batch]]):
    """Batches of simulated examples, made when they are asked for."""

    def __init__(self, examples: Examples, pieces: list[np.ndarray]) -> None:
        self.examples, self.pieces = examples, pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> dict[str, Batch]:
        return {"simulated": tensors(self.examples, self.pieces[index])}


class StreamModule(L.LightningDataModule):
    """Training stream and held-out set.

    Args:
        source: training examples.
        validation: source of the held-out ones (the same simulator with another seed).
        config: sizes.
        seed: of the transformations of images.
    """

    def __init__(self, source: Source, validation: Source, config: TrainingConfig, seed: int = 0) -> None:
        super().__init__()
        self.source, self.validation, self.config, self.seed = source, validation, config, seed

    def batches(self, epoch: int) -> Iterator[dict[str, Batch]]:
        """Batches ``{"simulated": batch}`` of an epoch."""
        steps, batch = self.config.steps_per_epoch, self.config.batch
        examples = self.source.examples(steps * batch, epoch)
        whole = None if examples.observed.images else tensors(examples)  # images are read batch by batch
        for step, rows in enumerate(np.array_split(np.arange(len(examples)), steps)):
            some = slice(rows[0], rows[-1] + 1)
            made = tensors(examples, some) if whole is None else {k: v[some] for k, v in whole.items()}
            yield {"simulated": moved(made, self.config.augmentation, (self.seed, epoch, step))}

    def train_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return DataLoader(_EpochStream(self), batch_size=None, num_workers=0)

    def val_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        examples = self.validation.examples(self.config.validation, VALIDATION_EPOCH)
        pieces = np.array_split(np.arange(len(examples)), max(1, len(examples) // 1024))
        if examples.observed.images:
            pieces = np.array_split(np.arange(len(examples)), max(1, len(examples) // 256))
            return DataLoader(_Pieces(examples, pieces), batch_size=None, num_workers=0)
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
        self.loss = posterior_loss(estimator)
        width = estimator.network.context
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)) if weighted else None

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:  # noqa: D102
        self.loss.step = self.global_step
        simulated = self.loss.posed(batch["simulated"])
        return self.posterior_loss(simulated, self._context(simulated))

    def _context(self, batch: Batch) -> Tensor:
        return self.estimator.context(batch["value"], batch["error"], batch["state"], images=pictures(batch))

    def posterior_loss(self, simulated: Batch, context: Tensor) -> Tensor:
        """Weighted negative log-likelihood of simulated objects, and the regression of their weights."""
        nll = self.loss(simulated, context)
        if self.level is None:
            loss = nll.mean()
            self.log("train_loss", loss.detach(), prog_bar=True)
            return loss
        weight = simulated["weight"]
        level = self.level(self.estimator.told.fused(context).detach())[:, 0].clamp(-12, 4)
        regression = (level.exp() - weight * level).mean()
        ratio = weight / level.detach().exp()
        relative = ratio.clamp(max=LARGEST_WEIGHT)
        self.log("clipped", 1 - relative.sum() / ratio.sum())
        loss = (relative * nll).mean()
        self.log("train_loss", loss.detach(), prog_bar=True)
        return loss + regression

    def validation_step(self, batch: dict[str, Batch], batch_idx: int) -> None:  # noqa: D102
        simulated = self.loss.posed(batch["simulated"])
        nll, weight = self.loss.judged(simulated, self._context(simulated)), simulated["weight"]
        self._sums += torch.stack([(weight * nll).sum(), weight.sum(), nll.sum(), nll.new_tensor(len(nll))])

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        self._sums = torch.zeros(4, device=self.device)

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        total, weight, plain, count = self._sums
        self.log("val_loss", total / weight, prog_bar=True)
        self.log("val_loss_proposal", plain / count)

    def configure_optimizers(self) -> Any:  # noqa: D102
        config = self.config
        optimizer = optimiser(config.optimiser, self, config.learning_rate, config.weight_decay)
        total = config.epochs * config.steps_per_epoch
        warmup = min(config.warmup, total // 5)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + float(np.cos(np.pi * min(1.0, (step - warmup) / max(1, total - warmup)))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

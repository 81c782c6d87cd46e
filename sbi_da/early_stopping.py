"""A training that ends when held-out objects no longer gain, resumable from its checkpoints; the best state is what stays."""

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from sbi_da.config import TrainingConfig
from sbi_da.errors import ArtefactError, SbiDaError
from sbi_da.training import StreamModule, TrainingModule

__all__ = ["Ended", "fit_best"]


class Ended:
    """How a training ended.

    Attributes:
        score: lowest held-out loss.
        epochs: number of epochs.
        steps: number of steps.
    """

    def __init__(self, score: float, epochs: int, steps: int) -> None:
        self.score, self.epochs, self.steps = score, epochs, steps


class _Averaging(WeightAveraging):
    """An exponential average of the weights that forgets those it began with: its decay rises to the one given.

    Buffers are not averaged but copied: integers cannot be, and counts should not.
    """

    def __init__(self, decay: float) -> None:
        def average(kept: Tensor, now: Tensor, count: Any) -> Tensor:
            return torch.lerp(now, kept, min(decay, (1 + int(count)) / (10 + int(count))))

        super().__init__(use_buffers=False, avg_fn=average)


class _Stopping(EarlyStopping):
    """One that had stopped a training stops it again where it is resumed."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class _Progress(TQDMProgressBar):
    """The bar without Lightning's version number."""

    def get_metrics(self, *args: Any) -> dict[str, int | str | float | dict[str, float]]:
        items = super().get_metrics(*args)
        items.pop("v_num", None)
        return items


def fit_best(
    module: TrainingModule, data: StreamModule, settings: TrainingConfig, run: str | Path, resume: str | None = None,
    progress: bool = False, records: bool = True,
) -> Ended:
    """Train, and leave the estimator of the module in its state of lowest held-out loss.

    Args:
        module: what is trained.
        data: its batches, and held-out ones.
        settings: schedule.
        run: folder for checkpoints and logs.
        resume: checkpoint to go on from.
        progress: show a progress bar.
        records: whether logs are written.

    Raises:
        ArtefactError: the checkpoint cannot be resumed.
        SbiDaError: no epoch had a finite held-out loss.
    """
    run = Path(run)
    best = ModelCheckpoint(run / "checkpoints", "best", monitor="val_loss", enable_version_counter=False)
    last = ModelCheckpoint(run / "checkpoints", "last", enable_version_counter=False)  # of every epoch, after what is best is known
    callbacks: list[Any] = [best, last, _Stopping("val_loss", patience=settings.patience, check_finite=True)]
    if records:
        callbacks.append(LearningRateMonitor("step"))
    if settings.averaging:
        callbacks.append(_Averaging(settings.averaging))
    if progress:
        callbacks.append(_Progress(refresh_rate=20))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="auto", devices=1, max_epochs=settings.epochs, gradient_clip_val=settings.gradient_clip,
            callbacks=callbacks, enable_progress_bar=progress, enable_model_summary=False,
            logger=[CSVLogger(run, "logs", version=""), TensorBoardLogger(run, "logs", version="tensorboard")] if records else False,
            log_every_n_steps=50, num_sanity_val_steps=0,
        )
        try:
            trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        except SystemExit as stop:  # how Lightning ends after Ctrl-C, once it has shut down
            raise KeyboardInterrupt from stop
        except (EOFError, RuntimeError, KeyError) as error:
            if resume and module.global_step == 0:
                raise ArtefactError(f"{resume}: cannot be resumed ({' '.join(str(error).split())[:200]}): remove {run}") from error
            raise
    if trainer.interrupted:
        raise KeyboardInterrupt
    kept, score = run / "checkpoints" / "best.ckpt", best.best_model_score
    if not kept.is_file() or score is None or not bool(torch.isfinite(score)):
        raise SbiDaError(f"{run}: training ended without a finite held-out NLL: lower training.learning_rate")
    state = torch.load(kept, map_location="cpu", weights_only=True)["state_dict"]
    module.estimator.load_state_dict({k.removeprefix("estimator."): v for k, v in state.items() if k.startswith("estimator.")})
    return Ended(float(score), trainer.current_epoch, trainer.global_step)

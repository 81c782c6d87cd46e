"""One uninterrupted training to its last step, for alignment: what is chosen is not the epoch but, afterwards, the whole."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from sbi_da.config import TrainingConfig
from sbi_da.training import StreamModule, TrainingModule

__all__ = ["fit"]


def fit(
    module: TrainingModule, streams: StreamModule, config: TrainingConfig, out: str | Path | None = None, progress: bool = False,
    callbacks: Sequence[Any] = (),
) -> None:
    """Train for all epochs; the last weights stay, for earlier ones belong to losses whose weights still rose.

    Args:
        module: what is trained.
        streams: its batches.
        config: schedule.
        out: folder for logs; None: none.
        progress: show a progress bar.
        callbacks: of Lightning.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logger: Any = CSVLogger(out, "logs", version="") if out is not None else False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="auto", devices=1, max_epochs=config.epochs, gradient_clip_val=config.gradient_clip, logger=logger,
            enable_progress_bar=progress, enable_checkpointing=False, enable_model_summary=False, num_sanity_val_steps=0,
            limit_val_batches=0, log_every_n_steps=50, callbacks=list(callbacks),
        )
        try:
            trainer.fit(module, streams)
        except SystemExit as stop:  # how Lightning ends after Ctrl-C, once it has shut down
            raise KeyboardInterrupt from stop
    if trainer.interrupted:
        raise KeyboardInterrupt

"""A training run: a folder with its config, logs, checkpoints and the estimator; started, resumed or found finished."""

import hashlib
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sbi_da.config import Config
from sbi_da.errors import ArtefactError, ConfigError, SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.inference_prior import inference_prior
from sbi_da.layout import Layout
from sbi_da.records import ABSENT, EmpiricalMissing, MixedMissing, Records, read_table, split_by_group
from sbi_da.simulators import Simulator, get_simulator
from sbi_da.sources import RecordsSource, SimulatorSource, Source
from sbi_da.surveys import Survey, get_survey
from sbi_da.training import StreamModule, TrainingModule

__all__ = ["build", "resolve", "train"]


def resolve(config: Config) -> Config:
    """The config with patterns of missing data read from the tables it names."""
    simulator = get_simulator(config.simulator.name, **config.simulator.options)
    layout = Layout(tuple(_surveys(config, simulator)))

    def read(law: Any) -> Any:
        if isinstance(law, MixedMissing):
            return law.model_copy(update={"laws": [read(one) for one in law.laws]})
        if isinstance(law, EmpiricalMissing) and law.table is not None:
            return EmpiricalMissing.from_states(layout.read(read_table(law.table, layout.surveys)).state)
        return law

    return config.model_copy(update={"missing": read(config.missing)})


def _surveys(config: Config, simulator: Simulator) -> list[Survey]:
    surveys = [get_survey(name) for name in config.surveys] if config.surveys else list(simulator.surveys())
    if not surveys:
        raise ConfigError(f"config: surveys: name at least one, the simulator {config.simulator.name!r} brings none")
    return surveys


def build(config: Config) -> tuple[Simulator, list[Survey], Estimator]:
    """The simulator, the surveys and an untrained estimator of a config; weights follow ``config.seed``.

    Raises:
        SbiDaError: an unknown name, or a parameter the simulator does not have.
    """
    simulator = get_simulator(config.simulator.name, **config.simulator.options)
    surveys = _surveys(config, simulator)
    prior = inference_prior(simulator, config.parameters, config.seed)
    for name in config.derived:
        simulator.parameter(name)
    if config.derived and prior.names != simulator.prior.names:
        raise ConfigError(
            f"config: derived: needs all of {', '.join(simulator.prior.names)} among the parameters; "
            f"to infer {config.derived[0]!r} itself, list it in parameters"
        )
    parameters = {name: simulator.parameter(name) for name in [*prior.names, *config.derived]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        metadata = {"config": config.model_dump(mode="json")}
        estimator = Estimator(
            surveys, prior, parameters, config.network, config.derived, config.simulator, metadata
        )
    return simulator, surveys, estimator


def _sources(config: Config, simulator: Simulator, surveys: list[Survey], estimator: Estimator) -> tuple[Source, Source]:
    if config.training.records:
        kept, held = split_by_group(Records.open(config.training.records), (0.9, 0.1), config.seed)
        return (
            RecordsSource(kept, surveys, estimator.prior, config.missing, config.seed),
            RecordsSource(held, surveys, estimator.prior, config.missing, config.seed),
        )
    what = (simulator, surveys, estimator.prior, config.missing, config.proposal)
    return (
        SimulatorSource(*what, config.training.simulations, config.seed),
        SimulatorSource(*what, None, config.seed + 1_000_003),
    )


def _claim(run: Path, config: Config) -> str | None:
    """Write the config of a new run; for an earlier one check that it is the same. Returns the checkpoint to resume."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    file = run / "config.yaml"
    if file.is_file():
        earlier, now = yaml.safe_load(file.read_text()), yaml.safe_load(text)
        known = earlier if isinstance(earlier, dict) else {}
        differing = [k for k in now if k != "alignment" and known.get(k) != now[k]]  # which has no part in training
        if differing:
            raise ConfigError(f"{run}: holds a run of another config ({', '.join(differing)} differ): choose another --out")
    elif run.exists() and any(run.iterdir()):
        raise ConfigError(f"{run}: not empty and not a training run: choose another --out")
    else:
        run.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(file)
    last = run / "checkpoints" / "last.ckpt"
    return str(last) if last.is_file() else None


def train(config: Config, out: str | Path, progress: bool = True) -> Estimator:
    """Train, or go on where an interrupted run of the same config stopped, or load one that has finished.

    Args:
        config: the experiment.
        out: folder of the run.
        progress: show a progress bar.

    Returns:
        The estimator with the lowest held-out NLL.

    Raises:
        ConfigError: the folder holds something else.
        SbiDaError: training stopped without a usable state.
    """
    run = Path(out)
    config = resolve(config)
    simulator, surveys, estimator = build(config)
    resume = _claim(run, config)
    if (run / "estimator").is_dir():
        return Estimator.load(run)
    settings = config.training
    if settings.threads:
        torch.set_num_threads(settings.threads)
    source, validation = _sources(config, simulator, surveys, estimator)
    sample = source.examples(min(20_000, settings.batch * settings.steps_per_epoch), 2**31 + 1)
    s = sample.scalars
    estimator.encoder.fit(torch.from_numpy(s.value).float(), torch.from_numpy(s.error).float(), torch.from_numpy(s.state))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)
        module = TrainingModule(estimator, settings, weighted=source.weighted)
        checkpoints = ModelCheckpoint(
            run / "checkpoints", "best", monitor="val_nll", save_last=True, enable_version_counter=False
        )
        started = time.perf_counter()
        trainer = _fit(module, StreamModule(source, validation, settings), checkpoints, run, config, resume, progress)
    if trainer.interrupted:
        raise KeyboardInterrupt
    best, score = run / "checkpoints" / "best.ckpt", checkpoints.best_model_score
    if not best.is_file() or score is None or not bool(torch.isfinite(score)):
        raise SbiDaError(f"{run}: training ended without a finite held-out NLL: lower training.learning_rate")
    state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    estimator.load_state_dict({k.removeprefix("estimator."): v for k, v in state.items() if k.startswith("estimator.")})
    measured = np.where(s.state != ABSENT, s.value, 0.0)
    fingerprint = hashlib.sha256(measured.tobytes() + s.state.tobytes() + sample.z.tobytes()).hexdigest()
    estimator.metadata["training"] = {
        "held_out_nll": float(score),
        "epochs": trainer.current_epoch, "steps": trainer.global_step, "seconds": time.perf_counter() - started,
        "data_fingerprint": fingerprint,
    }
    estimator.eval().save(run / "estimator")
    return estimator


class _Progress(TQDMProgressBar):
    """The bar without Lightning's version number."""

    def get_metrics(self, *args: Any) -> dict[str, int | str | float | dict[str, float]]:
        items = super().get_metrics(*args)
        items.pop("v_num", None)
        return items


def _fit(
    module: TrainingModule, data: StreamModule, checkpoints: ModelCheckpoint, run: Path, config: Config,
    resume: str | None, progress: bool,
) -> L.Trainer:
    settings = config.training
    callbacks: list[Any] = [
        checkpoints, EarlyStopping("val_nll", patience=settings.patience, check_finite=True),
        LearningRateMonitor("step"),
    ]
    if progress:
        callbacks.append(_Progress(refresh_rate=20))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="auto", devices=1, max_epochs=settings.epochs, gradient_clip_val=settings.gradient_clip,
            callbacks=callbacks, enable_progress_bar=progress, enable_model_summary=False,
            logger=[CSVLogger(run, "logs", version=""), TensorBoardLogger(run, "logs", version="tensorboard")],
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
    return trainer

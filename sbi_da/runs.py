"""A training run: a folder with its config, logs, checkpoints and the estimator; started, resumed or found finished."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import ValidationError

from sbi_da.any_prior import AnyPrior
from sbi_da.class_prior import ClassPrior
from sbi_da.config import Config, TrainingConfig, config_from
from sbi_da.distributions import Categorical
from sbi_da.early_stopping import fit_best
from sbi_da.errors import ArtefactError, ConfigError, SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.held_out import held_out_nll
from sbi_da.inference_prior import inference_prior
from sbi_da.label_prior import LabelPrior
from sbi_da.layout import Layout
from sbi_da.posterior_loss import finish
from sbi_da.posteriors.matching import FlowMatchingHead
from sbi_da.records import ABSENT, EmpiricalMissing, MixedMissing, Records, read_table, split_by_group
from sbi_da.simulators import Parameter, Simulator, get_simulator
from sbi_da.sources import RecordsSource, SimulatorSource, Source
from sbi_da.surveys import Survey, get_survey
from sbi_da.target_prior import sealed_hint, target_prior
from sbi_da.training import StreamModule, TrainingModule
from sbi_da.transfer import transfer
from sbi_da.vote_prior import VotePrior

__all__ = ["build", "resolve", "sources", "sources_of", "train", "untrained"]

MEASURED = 1000
"""Held-out objects, at most, whose log-density a flow-matching head is asked for once it is trained."""
START = "start.json"
"""What a run took from an earlier artefact."""


def resolve(config: Config) -> Config:
    """The config with patterns of missing data read from the tables it names."""
    layout = Layout(tuple(_surveys(config, _simulator(config))))

    def read(law: Any) -> Any:
        if isinstance(law, MixedMissing):
            return law.model_copy(update={"laws": [read(one) for one in law.laws]})
        if isinstance(law, EmpiricalMissing) and law.table is not None:
            return EmpiricalMissing.from_states(layout.read(read_table(law.table, layout.surveys)).state)
        return law

    return config.model_copy(update={"missing": read(config.missing)})


def _simulator(config: Config) -> Simulator | None:
    return get_simulator(config.simulator.name, **config.simulator.options) if config.simulator else None


def _surveys(config: Config, simulator: Simulator | None) -> list[Survey]:
    surveys = [get_survey(name) for name in config.surveys] if config.surveys else list(simulator.surveys() if simulator else [])
    if not surveys:
        raise ConfigError("config: surveys: name at least one, no simulator brings any")
    return surveys


def build(config: Config) -> tuple[Simulator, list[Survey], Estimator]:
    """The simulator, the surveys and an untrained estimator of a config; weights follow ``config.seed``.

    Raises:
        SbiDaError: an unknown name, no simulator, or a parameter that it does not have.
    """
    simulator = _simulator(config)
    if simulator is None:
        raise ConfigError("config: simulator: name one, there is nothing else to simulate with")
    return simulator, _surveys(config, simulator), untrained(config)


def untrained(config: Config) -> Estimator:
    """An untrained estimator of a config; weights follow ``config.seed``.

    Raises:
        SbiDaError: an unknown name, or a parameter that the simulator, or the training records, do not have.
    """
    simulator = _simulator(config)
    surveys = _surveys(config, simulator)
    prior = _prior(config, simulator)
    for name in config.derived:
        _described(name, simulator, prior)
    if config.derived and (simulator is None or prior.names != simulator.prior.names):
        raise ConfigError(
            f"config: derived: needs all of {', '.join(simulator.prior.names if simulator else ['a simulator'])} among the parameters; "
            f"to infer {config.derived[0]!r} itself, list it in parameters"
        )
    parameters = {name: _described(name, simulator, prior) for name in [*prior.names, *config.derived]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        metadata = {"config": config.model_dump(mode="json")}
        return Estimator(surveys, prior, parameters, config.network, config.derived, config.simulator, metadata)


def _described(name: str, simulator: Simulator | None, prior: AnyPrior) -> Parameter:
    if isinstance(prior, VotePrior):
        return Parameter(name, "", "fractions of votes", prior.bounds(name), classes=tuple(prior.questions[name]))
    if isinstance(prior, LabelPrior):
        return Parameter(name, "", "label: 1 holds, 0 does not", prior.bounds(name))
    if simulator is not None:
        known = simulator.parameter(name)
        return replace(known, classes=prior.classes) if isinstance(prior, ClassPrior) else known
    if not isinstance(prior, ClassPrior) or name != prior.name:
        raise ConfigError(f"config: {name}: only a simulator can say what it is: name one")
    return Parameter(name, "", "class", prior.bounds(name), classes=prior.classes)


def _prior(config: Config, simulator: Simulator | None) -> AnyPrior:
    """Of continuous parameters that of the simulator; of a class, votes or labels what the training objects show."""
    if config.network.classifier.target != "class":
        return target_prior(config)
    laws = simulator.prior.laws if simulator else {}
    discrete = [name for name in config.parameters if simulator is None or isinstance(laws.get(name), Categorical)]
    if discrete and len(config.parameters) > 1:
        raise ConfigError(f"config: parameters: infer the class {discrete[0]!r} alone, or continuous parameters alone")
    law = laws.get(config.parameters[0])
    named = law.names if isinstance(law, Categorical) else None
    if isinstance(law, Categorical) and not config.training.records:
        return ClassPrior(config.parameters[0], law.names, law.probabilities)
    if config.training.records and (simulator is None or named):
        records, name = Records.open(config.training.records), config.parameters[0]
        classes = records.attrs.get(f"classes_{name}", named)
        if classes is None or name not in records.parameters:
            known = [key.removeprefix("classes_") for key in records.attrs if key.startswith("classes_")]
            hint = sealed_hint(classes is not None and name in records.opened().parameters)
            raise ConfigError(
                f"config: parameters: {config.training.records} holds no class {name!r} (known: {', '.join(known) or 'none'}), and what "
                f"is no class needs a simulator{hint}"
            )
        return ClassPrior.of_labels(name, tuple(classes), records.parameters[name])
    if simulator is None:
        raise ConfigError("config: simulator: name one, or give training.records with classes to learn from")
    return inference_prior(simulator, config.parameters, config.seed)


def sources(config: Config, estimator: Estimator) -> tuple[Source, Source]:
    """Training examples and held-out ones of a config, for its estimator."""
    surveys, prior = list(estimator.layout.surveys), estimator.prior
    if config.training.records:
        kept, held = split_by_group(Records.open(config.training.records), (0.9, 0.1), config.seed)
        return (
            RecordsSource(kept, surveys, prior, config.missing, config.seed),
            RecordsSource(held, surveys, prior, config.missing, config.seed),
        )
    simulator = _simulator(config)
    if simulator is None:
        raise ConfigError("config: simulator: name one, or give training.records")
    what = (simulator, surveys, prior, config.missing, config.proposal)
    return (
        SimulatorSource(*what, config.training.simulations, config.seed),
        SimulatorSource(*what, None, config.seed + 1_000_003),
    )


def sources_of(estimator: Estimator) -> Source:
    """Examples like those that a trained estimator was trained on.

    Raises:
        SbiDaError: it was not trained from a config.
    """
    content = estimator.metadata.get("config")
    if content is None:
        raise SbiDaError("the artefact keeps no config to simulate by: in Python, call sbi_da.distillation.distil with a source")
    return sources(config_from(content), estimator)[0]


def _earlier(estimator: Estimator, settings: TrainingConfig) -> Estimator | None:
    """The artefact to start from, if a config names one and its weights fit."""
    if settings.start is None:
        return None
    try:
        earlier = Estimator.load(settings.start)
    except ArtefactError as error:
        raise ConfigError(f"config: training.start: {error}") from error
    transfer(estimator, earlier, settings.transfer, settings.start)
    return earlier


def _claim(run: Path, config: Config) -> str | None:
    """Write the config of a new run; for an earlier one check that it is the same. Returns the checkpoint to resume."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    file = run / "config.yaml"
    if file.is_file():
        earlier, now = yaml.safe_load(file.read_text()), yaml.safe_load(text)
        known = earlier if isinstance(earlier, dict) else {}
        with suppress(ValidationError):  # so that a key this version knows and that one did not does not tell them apart
            known = Config.model_validate(known).model_dump(mode="json")
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


def train(config: Config, out: str | Path, progress: bool = True, say: Callable[[str], None] | None = None) -> Estimator:
    """Train, or go on where an interrupted run of the same config stopped, or load one that has finished.

    Args:
        config: the experiment.
        out: folder of the run.
        progress: show a progress bar.
        say: told what was taken from an earlier artefact, before the training.

    Returns:
        The estimator with the lowest held-out NLL.

    Raises:
        ConfigError: the folder holds something else.
        SbiDaError: training stopped without a usable state.
    """
    run = Path(out)
    config = resolve(config)
    estimator, settings = untrained(config), config.training
    begun = (run / "estimator").is_dir() or (run / "checkpoints" / "last.ckpt").is_file()
    earlier = None if begun else _earlier(estimator, settings)  # refused before anything is written
    resume = _claim(run, config)
    if (run / "estimator").is_dir():
        return Estimator.load(run)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    source, validation = sources(config, estimator)

    sample = source.examples(min(20_000, settings.batch * settings.steps_per_epoch), 2**31 + 1)
    s = sample.observed
    estimator.fit(sample.observed, sample.z)
    if earlier is not None:
        taken = transfer(estimator, earlier, settings.transfer, str(settings.start))
        (run / START).write_text(json.dumps({"start": settings.start, "taken": list(taken.taken), "left": dict(taken.left)}, indent=1))
        if say is not None:
            say(f"start from {settings.start}: {taken}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)
        module = TrainingModule(estimator, settings, weighted=source.weighted)
        started = time.perf_counter()
        ended = fit_best(module, StreamModule(source, validation, settings, config.seed), settings, run, resume, progress)
    finish(estimator.eval(), source, validation, settings.validation)
    measured = np.where(s.state != ABSENT, s.value, 0.0)
    fingerprint = hashlib.sha256(measured.tobytes() + s.state.tobytes() + sample.z.tobytes()).hexdigest()
    matched = isinstance(estimator.head, FlowMatchingHead)  # whose loss is no density
    nll = held_out_nll(estimator, validation, min(MEASURED, settings.validation)) if matched else ended.score
    estimator.metadata["training"] = {
        "held_out_nll": nll, "held_out_loss": ended.score,
        "epochs": ended.epochs, "steps": ended.steps, "seconds": time.perf_counter() - started,
        "data_fingerprint": fingerprint,
    }
    if (run / START).is_file():
        estimator.metadata["training"]["start"] = json.loads((run / START).read_text())
    estimator.eval().save(run / "estimator")
    return estimator

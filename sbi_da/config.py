"""Experiment configs: YAML files, inheritance, overrides, strict checks."""

import copy
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sbi_da.alignment_config import AlignmentConfig
from sbi_da.augmentation import Augmentation
from sbi_da.errors import ConfigError
from sbi_da.estimator import SimulatorSpec
from sbi_da.network import NetworkConfig
from sbi_da.optimiser import OptimiserKind
from sbi_da.proposal import Proposal
from sbi_da.records import AnyMissing, NothingMissing
from sbi_da.transfer import Transfer

__all__ = ["Config", "TrainingConfig", "config_from", "config_root", "list_configs", "load_config", "override", "read_mapping"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TrainingConfig(_Strict):
    """How to train.

    Attributes:
        simulations: number of simulated objects; None simulates afresh for every epoch.
        epochs: number of epochs.
        steps_per_epoch: optimiser steps per epoch.
        batch: objects per step.
        learning_rate: peak of the schedule.
        optimiser: Muon with AdamW, AdamW alone, or SGD with Nesterov momentum.
        warmup: steps of linear warm-up; a cosine to zero follows.
        weight_decay: decoupled, per step relative to the learning rate.
        gradient_clip: largest gradient norm.
        averaging: weights are averaged over steps with this decay per step, from the end of the warm-up; 0: they are not.
        patience: epochs without a better held-out NLL before stopping.
        validation: held-out simulated objects.
        start: a trained artefact, or the run that holds one, whose weights to start from where they fit.
        transfer: which of them.
        records: train on these saved records instead of simulating (their noise is then fixed).
        augmentation: how images are transformed at random.
        threads: torch threads; None leaves torch's own choice.
    """

    simulations: int | None = Field(None, ge=1)
    epochs: int = Field(30, ge=1)
    steps_per_epoch: int = Field(400, ge=1)
    batch: int = Field(512, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    optimiser: OptimiserKind = "muon"
    warmup: int = Field(300, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    gradient_clip: float = Field(5.0, gt=0)
    averaging: float = Field(0.0, ge=0, lt=1)
    patience: int = Field(8, ge=1)
    validation: int = Field(5000, ge=2)
    start: str | None = None
    transfer: Transfer = Transfer()
    records: str | None = None
    augmentation: Augmentation | None = None
    threads: int | None = Field(None, ge=1)


class Config(_Strict):
    """One experiment.

    Attributes:
        description: what it is, one line.
        seed: the same seed gives the same run on the same machine and versions.
        simulator: simulator and its options; none where training records say all there is to know of the classes.
        surveys: survey names or folders; None takes those the simulator brings.
        parameters: what is inferred.
        derived: what is computed from the draws.
        missing: missing-data law of the training objects.
        proposal: where training objects are drawn; None draws from the prior.
        network: sizes.
        training: how to train.
        alignment: how to align the trained estimator with real objects.
    """

    description: str = ""
    seed: int = Field(0, ge=0)
    simulator: SimulatorSpec | None = None
    surveys: list[str] | None = None
    parameters: list[str] = Field(min_length=1)
    derived: list[str] = []
    missing: AnyMissing = NothingMissing()
    proposal: Proposal | None = None
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    alignment: AlignmentConfig = AlignmentConfig()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.network.head == "few_step":
            raise ValueError("network.head: few_step is distilled from a trained run: sbi-da distill RUN --out FAST")
        if self.network.matching.questions == "channels" and self.network.head == "flow_matching" and "depth" in _kinds(self.missing):
            raise ValueError(
                "network.matching.questions: channels that are hidden to be asked look like faint ones under the missing-data law depth: "
                "leave one of the two out"
            )
        return self


def _kinds(law: Any) -> set[str]:
    """Kinds of a missing-data law and of those it mixes."""
    return {law.kind}.union(*(_kinds(one) for one in getattr(law, "laws", ())))


def config_root() -> Path:
    """Folder of the shipped configs."""
    inside = Path(str(resources.files("sbi_da"))) / "configs"
    return inside if inside.is_dir() else Path(str(resources.files("sbi_da"))).parent / "configs"


def list_configs() -> list[str]:
    """Names of the shipped configs."""
    root = config_root()
    return sorted(str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.yaml"))


def _path(name: str, folder: Path | None = None) -> Path:
    candidates = [Path(name)] if folder is None else [folder / name, folder / f"{name}.yaml", Path(name)]
    candidates += [config_root() / f"{name}.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    near = difflib.get_close_matches(name, list_configs(), 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"no config {name!r}: give a path or one of {', '.join(list_configs())}{hint}")


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        replaced = both and "kind" in value and value["kind"] != merged[key].get("kind")
        merged[key] = _merge(merged[key], value) if both and not replaced else value
    return merged


class _Loader(yaml.SafeLoader):
    """As YAML 1.2 has it: ``yes`` and ``no``, which volunteers answer, are texts; ``true`` and ``false`` alone are not."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_mapping(path: Path) -> dict[str, Any]:
    """Content of a YAML file that must be a mapping.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.
    """
    try:
        content = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values")
    return content


def _read(name: str, folder: Path | None = None, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = _path(name, folder)
    if path.resolve() in seen:
        raise ConfigError(f"{path}: extends itself")
    content = read_mapping(path)
    parent = content.pop("extends", None)
    for i, survey in enumerate(content.get("surveys") or []):
        beside = path.parent / str(survey)
        if os.sep in str(survey) and beside.is_dir():
            content["surveys"][i] = str(beside.resolve())
    if parent is None:
        return content
    return _merge(_read(str(parent), path.parent, (*seen, path.resolve())), content)


def override(content: dict[str, Any], items: Sequence[str]) -> None:
    """Set ``key.sub=value`` strings in plain content, in place.

    Raises:
        ConfigError: no such form, or a value that is not YAML.
    """
    for item in items:
        key, separator, text = item.partition("=")
        if not separator or not key:
            raise ConfigError(f"override {item!r}: write it as key.sub=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {item!r}: the value is not valid YAML") from error
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
            try:
                value = float(value)
            except ValueError:
                pass
        node = content
        *path, last = key.split(".")
        for part in path:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        node[last] = value


def load_config(name: str, overrides: Sequence[str] = ()) -> Config:
    """Read a config by name or path, merge what it extends, apply overrides, and check every key.

    Args:
        name: name in ``configs/`` or a path.
        overrides: ``key.sub=value`` strings.

    Raises:
        ConfigError: naming the file or override, the key and what was expected.
    """
    return config_from(_read(name), overrides, name)


def config_from(content: Mapping[str, Any], overrides: Sequence[str] = (), name: str = "") -> Config:
    """A config from plain content, such as an artefact keeps, with overrides; every key is checked.

    Args:
        content: mapping of keys to values.
        overrides: ``key.sub=value`` strings.
        name: what it is called in errors.

    Raises:
        ConfigError: naming the config or override, the key and what was expected.
    """
    changed = copy.deepcopy(dict(content))
    override(changed, overrides)
    try:
        return Config.model_validate(changed)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"no such key{_nearest(first['loc'])}"
        raise ConfigError(f"config {name}: {where}: {message}") from error


def _nearest(location: tuple[Any, ...]) -> str:
    model: Any = Config
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        args = [a for a in (annotation, *getattr(annotation, "__args__", ())) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not args:
            return ""
        model = args[0]
    near = difflib.get_close_matches(str(location[-1]), list(model.model_fields), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(model.model_fields)}"

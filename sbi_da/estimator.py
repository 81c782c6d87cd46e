"""An estimator: encoders, fusion and a posterior head over a layout of surveys and a prior; saved as one artefact."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import sbi_da
from sbi_da.alignment.adapter import RealBranch
from sbi_da.alignment.features import Features
from sbi_da.atomic import whole_folder
from sbi_da.encoders import ScalarEncoder
from sbi_da.errors import ArtefactError, SbiDaError, UnknownNameError
from sbi_da.fusion import MaskedTransformer
from sbi_da.layout import Layout, Scalars
from sbi_da.posteriors import Posterior, SplineHead
from sbi_da.posteriors.recalibration import RecalibratedHead, Recalibration
from sbi_da.prior import Prior
from sbi_da.records import ABSENT, Records
from sbi_da.simulators import Parameter, Simulator, get_simulator
from sbi_da.surveys import Survey

__all__ = ["Estimator", "NetworkConfig", "SimulatorSpec"]

SCHEMA = 1
FILES = ("model.safetensors", "estimator.json")


class NetworkConfig(BaseModel):
    """Sizes of the network.

    Attributes:
        width: token width.
        layers: layers of the fusion transformer.
        heads: attention heads.
        summary: width of the encoder's sum over channels and of the perceptrons that follow.
        blocks: residual perceptrons after the transformer.
        context: width of the fused context.
        transforms: coupling transforms of the flow.
        bins: spline bins.
        hidden: widths of the flow's conditioners.
    """

    model_config = ConfigDict(extra="forbid")
    width: int = Field(64, ge=4)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    summary: int = Field(256, ge=4)
    blocks: int = Field(3, ge=0)
    context: int = Field(128, ge=4)
    transforms: int = Field(5, ge=1)
    bins: int = Field(12, ge=2)
    hidden: tuple[int, ...] = (128, 128)

    @model_validator(mode="after")
    def _check(self) -> "NetworkConfig":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be one or more widths of at least 1, not {list(self.hidden)}")
        return self


class SimulatorSpec(BaseModel):
    """A simulator by name with its options.

    Attributes:
        name: a known simulator or the path of its folder.
        options: arguments of its ``__init__``.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    options: dict[str, Any] = {}


class Estimator(nn.Module):
    """Called with records, returns their posteriors.

    Args:
        surveys: surveys it reads.
        prior: joint prior of the inferred parameters; the network works in its normal scores.
        parameters: description of the inferred parameters and derived quantities by name.
        network: sizes.
        derived: quantities computed from draws by the simulator.
        simulator: where they come from.
        metadata: provenance, kept in the artefact.
        adapter: parts of a branch for real objects, see :class:`~sbi_da.alignment.adapter.RealBranch`.
    """

    def __init__(
        self,
        surveys: Sequence[Survey],
        prior: Prior,
        parameters: Mapping[str, Parameter],
        network: NetworkConfig | None = None,
        derived: Sequence[str] = (),
        simulator: SimulatorSpec | None = None,
        metadata: Mapping[str, Any] | None = None,
        adapter: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.layout = Layout(tuple(surveys))
        self.prior = prior
        self.parameters_info = dict(parameters)
        self.network = network or NetworkConfig()
        self.derived = tuple(derived)
        self.simulator = simulator
        self._simulator: Simulator | None = None
        self.metadata = dict(metadata or {})
        size = self.network
        kinds = [channel.kind for channel in self.layout.channels]
        self.encoder = ScalarEncoder(kinds, self.layout.survey_index.tolist(), size.width, size.summary)
        self.fusion = MaskedTransformer(size.width, size.context, size.layers, size.heads, size.summary, size.blocks)
        self.head = SplineHead(len(prior.names), size.context, size.transforms, size.bins, size.hidden)
        self.adapter: RealBranch | None = None
        self.adapt(adapter)
        self.recalibration: Recalibration | None = None
        """Of the posteriors of real objects."""

    @property
    def surveys(self) -> list[str]:
        """Names of the surveys it reads."""
        return [survey.name for survey in self.layout.surveys]

    @property
    def parameter_names(self) -> list[str]:
        """Names of the inferred parameters."""
        return self.prior.names

    def adapt(self, parts: Sequence[str]) -> None:
        """Put a fresh branch for real objects in place, or none; it changes nothing until it is trained."""
        size, index = self.network, self.layout.survey_index.tolist()
        self.adapter = RealBranch(parts, index, size.width, size.summary, size.context) if parts else None

    def features(self, value: Tensor, error: Tensor, state: Tensor, real: Tensor | None = None) -> Features:
        """Encode laid-out measurements.

        Args:
            value: shape ``(object, channel)``; whatever stands in absent entries is never read.
            error: same shape.
            state: same shape.
            real: which objects are real and pass the adapter, boolean, shape ``(object,)``; None: none.
        """
        adapter = self.adapter if real is not None else None
        if adapter is not None and real is not None:
            seen = state != ABSENT
            shift = adapter.shift(self.encoder.colours(value, error, state), seen) * self.encoder.scale[1]
            value = torch.where(seen & real[:, None], value + shift, value)
        tokens, present, summary = self.encoder(value, error, state)
        if adapter is not None and real is not None:
            adapted, moved = adapter.tokens(tokens, summary)
            tokens = torch.where(real[:, None, None], adapted, tokens)
            summary = torch.where(real[:, None], moved, summary)
        context = self.fusion(tokens, present, summary)
        if adapter is not None and real is not None:
            context = torch.where(real[:, None], adapter.context(context), context)
        surveys = slice(1, 1 + len(self.surveys))
        return Features(context, tokens[:, surveys], present[:, surveys])

    def context(self, value: Tensor, error: Tensor, state: Tensor, real: Tensor | None = None) -> Tensor:
        """Contexts of laid-out measurements, shape ``(object, context)``; arguments as of :meth:`features`."""
        return self.features(value, error, state, real).context

    def encode(self, scalars: Scalars, batch: int = 4096, real: bool = False) -> Tensor:
        """Contexts of laid-out measurements, of real objects or not, without gradients, in evaluation mode."""
        training = self.training
        self.eval()
        pieces = [torch.zeros(0, self.network.context)]
        with torch.inference_mode():
            for start in range(0, len(scalars), batch):
                rows = slice(start, start + batch)
                pieces.append(
                    self.context(
                        torch.from_numpy(scalars.value[rows]).float(),
                        torch.from_numpy(scalars.error[rows]).float(),
                        torch.from_numpy(scalars.state[rows]),
                        torch.full((len(scalars.state[rows]),), True) if real else None,
                    )
                )
        self.train(training)
        return torch.cat(pieces)

    def forward(self, records: Records) -> Posterior:
        """Posteriors of ``records``; surveys they lack are absent, surveys the estimator does not know are not read."""
        unread = [s for s in records.surveys if s not in self.surveys]
        if unread and len(unread) == len(records.surveys):
            raise SbiDaError(f"the estimator reads {', '.join(self.surveys)}; the records hold only {', '.join(unread)}")
        real = records.attrs.get("domain") == "real"
        return Posterior(
            RecalibratedHead(self.head, self.recalibration) if real and self.recalibration else self.head,
            self.encode(self.layout.read(records), real=real),
            self.prior,
            records.ids,
            units={k: p.unit for k, p in self.parameters_info.items()},
            derive=self._derive if self.derived else None,
            derived=self.derived,
        )

    def _derive(self, theta: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if self.simulator is None:
            raise SbiDaError(f"no simulator is recorded to derive {', '.join(self.derived)}")
        if self._simulator is None:
            self._simulator = get_simulator(self.simulator.name, **self.simulator.options)
        return self._simulator.derive(theta)

    def parameter(self, name: str) -> Parameter:
        """Description of a parameter or derived quantity."""
        if name not in self.parameters_info:
            raise UnknownNameError("parameter", name, list(self.parameters_info))
        return self.parameters_info[name]

    def save(self, path: str | Path) -> Path:
        """Write the artefact folder, first under a temporary name, then renamed; replaces an earlier artefact."""
        path = Path(path)
        with whole_folder(path, replace=FILES) as folder:
            try:
                save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / FILES[0])
            except SafetensorError as error:
                raise ArtefactError(f"{path}: cannot be written ({error}): free space or choose another place") from error
            content = {
                "schema": SCHEMA,
                "surveys": [survey.model_dump(mode="json") for survey in self.layout.surveys],
                "parameters": [asdict(p) for p in self.parameters_info.values()],
                "prior": self.prior.to_dict(),
                "network": self.network.model_dump(mode="json"),
                "derived": list(self.derived),
                "simulator": self.simulator.model_dump(mode="json") if self.simulator else None,
                "adapter": list(self.adapter.parts) if self.adapter else [],
                "recalibration": self.recalibration.to_dict() if self.recalibration else None,
                "weights_sha256": hashlib.sha256((folder / FILES[0]).read_bytes()).hexdigest(),
                "versions": _versions(),
                "metadata": self.metadata,
            }
            (folder / FILES[1]).write_text(json.dumps(content, indent=1, allow_nan=False))
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Estimator":
        """Read an artefact, or the ``estimator`` folder of a training run.

        Raises:
            ArtefactError: missing, truncated, altered, or of another schema version; the message says what to do.
        """
        path = Path(path)
        if (path / "estimator").is_dir():
            path = path / "estimator"
        for name in FILES:
            if not (path / name).is_file():
                raise ArtefactError(f"{path}: no {name} there: not an estimator, or its training has not finished")
        try:
            content = json.loads((path / FILES[1]).read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ArtefactError(f"{path / FILES[1]}: truncated or not JSON ({error}): copy or train it again") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            found = content.get("schema") if isinstance(content, dict) else None
            raise ArtefactError(
                f"{path}: artefact schema {found}, this version ({sbi_da.__version__}) reads {SCHEMA}: "
                "train it again or use the version that wrote it"
            )
        weights = path / FILES[0]
        if hashlib.sha256(weights.read_bytes()).hexdigest() != content.get("weights_sha256"):
            raise ArtefactError(f"{weights}: truncated or altered (checksum differs): copy or train it again")
        try:
            estimator = cls(
                [Survey.model_validate(s) for s in content["surveys"]],
                Prior.from_dict(content["prior"]),
                {p["name"]: Parameter(**{**p, "bounds": tuple(p["bounds"])}) for p in content["parameters"]},
                NetworkConfig.model_validate(content["network"]),
                content["derived"],
                SimulatorSpec.model_validate(content["simulator"]) if content["simulator"] else None,
                content["metadata"],
                content.get("adapter", []),
            )
            estimator.load_state_dict(load_file(weights))
            if content.get("recalibration"):
                estimator.recalibration = Recalibration.from_dict(content["recalibration"])
        except (KeyError, TypeError, ValidationError, SafetensorError, RuntimeError) as error:
            raise ArtefactError(f"{path}: cannot be read ({' '.join(str(error).split())}): train it again") from error
        return estimator.eval()


def _versions() -> dict[str, str]:
    found = {}
    for name in ("sbi-da", "torch", "zuko", "lightning", "numpy", "xarray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

"""An estimator: encoders, fusion and a posterior head over a layout of surveys and a prior; saved as one artefact."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sbi_da.alignment.adapter import RealBranch
from sbi_da.alignment.features import Features
from sbi_da.any_prior import AnyPrior, prior_from_dict
from sbi_da.artefact import read_artefact, write_artefact
from sbi_da.class_prior import ClassPrior
from sbi_da.encoders import ScalarEncoder
from sbi_da.encoders.images import ImageConfig, ImageTokens, Pictures, runnable
from sbi_da.errors import ArtefactError, SbiDaError, UnknownNameError
from sbi_da.fusion import MaskedTransformer
from sbi_da.heads import DensityHead, head_of, told
from sbi_da.label_prior import LabelPrior
from sbi_da.layout import Layout, Observations
from sbi_da.measured import measurements, pictures
from sbi_da.network import NetworkConfig, Target
from sbi_da.normality import Normality
from sbi_da.posteriors import Posterior
from sbi_da.posteriors.asking import Predicted
from sbi_da.posteriors.categorical import CategoricalHead
from sbi_da.posteriors.class_posterior import ClassPosterior
from sbi_da.posteriors.label_head import LabelHead
from sbi_da.posteriors.label_posterior import LabelPosterior
from sbi_da.posteriors.matching import FlowMatchingHead
from sbi_da.posteriors.recalibration import RecalibratedHead, Recalibration
from sbi_da.posteriors.vote_head import VoteHead
from sbi_da.posteriors.vote_posterior import VotePosterior
from sbi_da.prior import Prior
from sbi_da.records import ABSENT, OBSERVED, Records
from sbi_da.simulators import Parameter, Simulator, get_simulator
from sbi_da.surveys import Survey
from sbi_da.views import views
from sbi_da.vote_prior import VotePrior

__all__ = ["Estimator", "NetworkConfig", "SimulatorSpec"]

NORMALITY, EXPORTED = "normality.", "exported."
FITTED = 2000
"""Objects whose images settle the centres and scales of pixels."""
BLEND = ClassPrior("shown", ("one galaxy", "two"), (0.5, 0.5))
DETECTOR = NetworkConfig(
    width=32, layers=1, heads=2, summary=64, blocks=1, context=32,
    images=ImageConfig(options={"widths": [16, 32, 64], "blocks": [1, 1, 1]}),
)
"""What an outlier detector tells apart, and its network, which need not be that of the classes."""


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
        prior: joint prior of the inferred parameters, in whose normal scores the network works; or that of a class, of votes, of labels.
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
        prior: AnyPrior,
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
        index = self.layout.survey_index.tolist()
        self.encoder = ScalarEncoder(kinds, index, size.width, size.summary, len(self.layout.surveys), size.octaves)
        self.images = ImageTokens(self.layout.surveys, size.images, size.width, size.summary) if self.layout.cameras else None
        self.fusion = MaskedTransformer(
            size.width, size.context, size.layers, size.heads, size.summary, size.blocks, dropout=size.dropout, gated=size.gated
        )
        self.told = told(prior, size, 1 + len(self.layout.surveys) + len(kinds), len(kinds))
        """Where in the row that the head is told of an object what stands."""
        self.head = head_of(prior, size, len(kinds), self.told)
        self.adapter: RealBranch | None = None
        self.adapt(adapter)
        self.recalibration: Recalibration | None = None
        """Of the posteriors of real objects."""
        self.population: tuple[float, ...] | None = None
        """Class fractions of real objects, which their posteriors assume; None: those of the training."""
        self.normality: Normality | None = None
        """How far from its classes a simulated object lies, to tell anomalies by; classifiers have it once they are trained."""
        self.detectors = nn.ModuleDict()
        """Of outliers, by survey with images: estimators of the class :data:`BLEND`; see :mod:`sbi_da.outlier_exposure`."""

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
        self.adapter = RealBranch(parts, index, size.width, size.summary, size.context, surveys=len(self.surveys)) if parts else None

    def detect(self, surveys: Sequence[str], sizes: NetworkConfig = DETECTOR) -> None:
        """Put fresh outlier detectors in place for the images of these surveys, instead of those there are."""
        cards = {survey.name: survey for survey in self.layout.surveys}
        self.detectors = nn.ModuleDict({name: Estimator([cards[name]], BLEND, {}, sizes) for name in surveys})

    def detector(self, survey: str) -> "Estimator":
        """The outlier detector of a survey's images."""
        found = self.detectors[survey]
        assert isinstance(found, Estimator)
        return found

    @property
    def target(self) -> Literal["density"] | Target:
        """What is inferred: the density of continuous parameters, a class, votes on questions, or labels."""
        kinds: dict[type, Literal["density"] | Target] = {Prior: "density", VotePrior: "votes", LabelPrior: "labels"}
        return kinds.get(type(self.prior), "class")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes where a class is inferred; empty otherwise."""
        return self.prior.classes if isinstance(self.prior, ClassPrior) else ()

    def assumed_fractions(self, corrected: bool) -> np.ndarray:
        """Class fractions that probabilities assume, shape ``(class,)``: those of the training, or with class weights not undone theirs."""
        counts = self.class_counts
        weighed = counts if corrected else counts * self.network.classifier.class_weights(counts)
        return weighed / weighed.sum()

    def withhold_measured(self, withheld: bool) -> None:
        """Whether what is measured of images is withheld from the network until this is called again."""
        if self.images is not None:
            self.images.blind = withheld

    def fit(self, observed: Observations, z: np.ndarray | None = None) -> None:
        """Take the centres and scales of the encoders from a sample; with normal scores ``(object, parameter)`` what heads take too."""
        sample = measurements(observed)
        self.encoder.fit(sample["value"], sample["error"], sample["state"])
        if z is not None and isinstance(self.head, FlowMatchingHead):
            scores = torch.from_numpy(z).float()
            usable = torch.isfinite(scores).all(1)
            scaled = self.encoder.scaled(sample["value"], sample["error"], sample["state"])
            self.head.fit(scores[usable], scaled[usable], (sample["state"] == OBSERVED)[usable])
        if self.images is not None:
            self.images.fit(pictures(measurements(observed, slice(0, FITTED))))

    def anomaly(self, observed: Observations, context: Tensor) -> np.ndarray:
        """The share of simulated objects that are less unlike the others, for objects and their contexts; NaN where not learned."""
        return np.full(len(context), np.nan) if self.normality is None else self.normality(views(self, observed, context))

    def answer(self, context: Tensor, ids: np.ndarray, real: bool = False) -> ClassPosterior | VotePosterior | LabelPosterior:
        """Posteriors of classes, votes or labels from contexts ``(object, context)``.

        Raises:
            SbiDaError: continuous parameters are inferred.
        """
        with torch.inference_mode():
            if isinstance(self.head, VoteHead) and isinstance(self.prior, VotePrior):
                alpha = self.prior.by_question(self.head.concentrations(context).double().numpy())
                return VotePosterior(ids, self.prior.questions, alpha)
            if isinstance(self.head, LabelHead):
                return LabelPosterior(ids, tuple(self.prior.names), self.head.logits(context).double().numpy())
        return self.classify(context, ids, real)

    def classify(self, context: Tensor, ids: np.ndarray, real: bool = False) -> ClassPosterior:
        """Posteriors of classes from contexts ``(object, context)``."""
        if not isinstance(self.head, CategoricalHead) or not isinstance(self.prior, ClassPrior):
            raise SbiDaError("this estimator infers no class")
        with torch.inference_mode():
            log_p = self.head.log_probabilities(context).double().numpy()
        posterior = ClassPosterior(ids, self.prior.classes, log_p, self.assumed_fractions(self.network.classifier.correct), self.prior.name)
        return posterior.under(np.array(self.population)) if real and self.population else posterior

    @property
    def density(self) -> tuple[Prior, DensityHead]:
        """Prior and head where continuous parameters are inferred.

        Raises:
            SbiDaError: a class, votes or labels are inferred.
        """
        if not isinstance(self.prior, Prior) or not isinstance(self.head, DensityHead):
            raise SbiDaError(f"this estimator infers the {self.target} {', '.join(self.prior.names)}: it has no density over parameters")
        return self.prior, self.head

    @property
    def class_counts(self) -> np.ndarray:
        """Training objects of each class, shape ``(class,)``; of a simulator, whose number is not bounded, per ten thousand."""
        if not isinstance(self.prior, ClassPrior):
            raise SbiDaError("this estimator infers no class")
        return self.prior.counts

    def features(
        self, value: Tensor, error: Tensor, state: Tensor, real: Tensor | None = None, images: Pictures | None = None
    ) -> Features:
        """Encode laid-out measurements.

        Args:
            value: shape ``(object, channel)``; whatever stands in absent entries is never read.
            error: same shape.
            state: same shape.
            real: which objects are real and pass the adapter, boolean, shape ``(object,)``; None: none.
            images: by survey; surveys that are missing are absent.
        """
        adapter = self.adapter if real is not None else None
        if adapter is not None and real is not None:
            seen = state != ABSENT
            shift = adapter.shift(self.encoder.colours(value, error, state), seen) * self.encoder.scale[1]
            value = torch.where(seen & real[:, None], value + shift, value)
        tokens, present, summary = self.encoder(value, error, state)
        if self.images is not None and images:
            seen_tokens, held, added = self.images(images, len(state), real)
            surveys = slice(1, 1 + len(self.surveys))
            kept = torch.where(present[:, surveys, None], tokens[:, surveys], 0.0)
            tokens = torch.cat([tokens[:, :1], kept + seen_tokens, tokens[:, surveys.stop :]], dim=1)
            present = torch.cat([present[:, :1], present[:, surveys] | held, present[:, surveys.stop :]], dim=1)
            summary = summary + added
        if adapter is not None and real is not None:
            adapted, moved = adapter.tokens(tokens, summary)
            tokens = torch.where(real[:, None, None], adapted, tokens)
            summary = torch.where(real[:, None], moved, summary)
        context, states = self.fusion(tokens, present, summary, self.told.tokens > 0)
        if adapter is not None and real is not None:
            context = torch.where(real[:, None], adapter.context(context), context)
        surveys = slice(1, 1 + len(self.surveys))
        more = [] if states is None else [states.flatten(1), present.to(states.dtype)]
        if self.told.channels:
            seen = state == OBSERVED
            more += [torch.where(seen, self.encoder.scaled(value, error, state), 0.0), seen.to(context.dtype)]
        return Features(context, tokens[:, surveys], present[:, surveys], torch.cat(more, dim=1) if more else None)

    def context(
        self, value: Tensor, error: Tensor, state: Tensor, real: Tensor | None = None, images: Pictures | None = None
    ) -> Tensor:
        """What the head is told of laid-out measurements, shape ``(object, told)``; arguments as of :meth:`features`."""
        return self.features(value, error, state, real, images).told

    def encode(self, observed: Observations, batch: int | None = None, real: bool = False) -> Tensor:
        """What the head is told of measurements, of real objects or not, without gradients, in evaluation mode; ``(object, told)``."""
        training = self.training
        self.eval()
        batch = batch or (4096 if self.images is None else 256)
        pieces = [torch.zeros(0, self.told.size)]
        device = next(self.parameters()).device
        with torch.inference_mode():
            for start in range(0, len(observed), batch):
                part = {name: value.to(device) for name, value in measurements(observed, slice(start, start + batch)).items()}
                side = torch.full((len(part["state"]),), True, device=device) if real else None
                pieces.append(self.context(part["value"], part["error"], part["state"], side, pictures(part)).cpu())
        self.train(training)
        return torch.cat(pieces)

    def forward(self, records: Records) -> Any:
        """Posteriors of ``records``; surveys they lack are absent, surveys the estimator does not know are not read.

        Returns:
            A :class:`~sbi_da.posteriors.Posterior`, or as :meth:`answer` gives them.
        """
        unread = [s for s in records.surveys if s not in self.surveys]
        if unread and len(unread) == len(records.surveys):
            raise SbiDaError(f"the estimator reads {', '.join(self.surveys)}; the records hold only {', '.join(unread)}")
        real = records.attrs.get("domain") == "real"
        observed = self.layout.read(records)
        context = self.encode(observed, real=real)
        if self.target != "density":
            return self.answer(context, records.ids, real)
        return self.posterior(context, observed, records.ids, real)

    def posterior(self, context: Tensor, observed: Observations, ids: np.ndarray, real: bool = False) -> Posterior:
        """Posteriors of continuous parameters from contexts ``(object, told)`` of what was observed; real objects' may be recalibrated."""
        prior, head = self.density
        return Posterior(
            RecalibratedHead(head, self.recalibration) if real and self.recalibration else head,
            context,
            prior,
            ids,
            units={k: p.unit for k, p in self.parameters_info.items()},
            derive=self._derive if self.derived else None,
            derived=self.derived,
            predicted=self._predicted(observed) if isinstance(head, FlowMatchingHead) and head.variables > head.parameters_count else None,
        )

    def _predicted(self, observed: Observations) -> Predicted:
        """Channels that the head can predict of objects."""
        index, channels = self.layout.survey_index, self.layout.channels
        names = tuple(f"{self.surveys[k]}.{channel.name}" for k, channel in zip(index, channels, strict=True))
        return Predicted(names, tuple(channel.unit for channel in channels), self.encoder.unscaled, observed.state != ABSENT)

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
        """Write the artefact folder; replaces an earlier artefact."""
        weights, network = {k: v.contiguous() for k, v in self.state_dict().items()}, self.network
        if self.images is not None:
            images, exported = self.images.portable(network.images)
            network = network.model_copy(update={"images": images})
            weights |= {f"{EXPORTED}{k}": v.contiguous() for k, v in exported.items()}
        if self.normality is not None:
            weights |= {f"{NORMALITY}{k}": torch.from_numpy(v) for k, v in self.normality.arrays().items()}
        detectors = [{"survey": name, "network": self.detector(name).network.model_dump(mode="json")} for name in self.detectors]
        content = {
            "surveys": [survey.model_dump(mode="json") for survey in self.layout.surveys],
            "parameters": [asdict(p) for p in self.parameters_info.values()],
            "prior": self.prior.to_dict(),
            "network": network.model_dump(mode="json"),
            "derived": list(self.derived),
            "simulator": self.simulator.model_dump(mode="json") if self.simulator else None,
            "adapter": list(self.adapter.parts) if self.adapter else [],
            "detectors": detectors,
            "recalibration": self.recalibration.to_dict() if self.recalibration else None,
            "population": self.population,
            "metadata": self.metadata,
        }
        return write_artefact(path, content, weights)

    @classmethod
    def load(cls, path: str | Path) -> "Estimator":
        """Read an artefact, or the ``estimator`` folder of a training run.

        Raises:
            ArtefactError: missing, truncated, altered, or of another schema version; the message says what to do.
        """
        path = Path(path)
        if (path / "estimator").is_dir():
            path = path / "estimator"
        content, weights = read_artefact(path)
        try:
            network = NetworkConfig.model_validate(content["network"])
            images, exported = runnable(network.images)
            network = network.model_copy(update={"images": images})
            estimator = cls(
                [Survey.model_validate(s) for s in content["surveys"]],
                prior_from_dict(content["prior"]),
                {p["name"]: _parameter(p) for p in content["parameters"]},
                network,
                content["derived"],
                SimulatorSpec.model_validate(content["simulator"]) if content["simulator"] else None,
                content["metadata"],
                content.get("adapter", []),
            )
            if content.get("detectors"):
                sizes = NetworkConfig.model_validate(content["detectors"][0]["network"])  # they are all of one kind
                estimator.detect([each["survey"] for each in content["detectors"]], sizes)
            tensors = load_file(weights)
            arrays = {k.removeprefix(NORMALITY): v.numpy() for k, v in tensors.items() if k.startswith(NORMALITY)}
            estimator.normality = Normality.from_arrays(arrays) if arrays else None
            plain = {k: v for k, v in tensors.items() if not k.startswith((NORMALITY, EXPORTED))}
            if exported:
                kept = {k: v for k, v in plain.items() if not k.startswith("images.encoders.")}
                plain = kept | {k.removeprefix(EXPORTED): v for k, v in tensors.items() if k.startswith(EXPORTED)}
            estimator.load_state_dict(plain)
            if content.get("recalibration"):
                estimator.recalibration = Recalibration.from_dict(content["recalibration"])
            if content.get("population"):
                estimator.population = tuple(content["population"])
        except (KeyError, TypeError, ValidationError, SafetensorError, RuntimeError) as error:
            raise ArtefactError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}): train it again") from error
        return estimator.eval()


def _parameter(content: Mapping[str, Any]) -> Parameter:
    return Parameter(**{**content, "bounds": tuple(content["bounds"]), "classes": tuple(content.get("classes", ()))})

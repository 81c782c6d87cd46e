"""Sizes of a network and kinds of its parts, as a config states them."""

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sbi_da.encoders.images import ImageConfig
from sbi_da.posteriors.class_losses import effective_number_weights, inverse_frequency_weights

__all__ = ["ClassifierConfig", "FewStepConfig", "MatchingConfig", "NetworkConfig", "Target"]

Target = Literal["class", "votes", "labels"]


class ClassifierConfig(BaseModel):
    """The posterior of what is no number, and the loss it is trained with.

    Attributes:
        target: one class of several (the parameter is a class); votes of volunteers (the parameters are questions); or labels of which an
            object may have any number (the parameters are the labels). All below from ``logit_scale`` to ``correct`` is of classes.
        hidden: widths of hidden layers; none: logits are linear in the context.
        dropout: share of the hidden layer that is dropped in training.
        logit_scale: a factor on the logits of every class is learned.
        focal: exponent of the focal loss; 0: the cross-entropy.
        weights: of the classes in the loss: none, by effective numbers, or inverse to the class's frequency.
        beta: of the effective numbers.
        smoothing: share of a label that is spread over all classes.
        correct: undo, after training, what the weights and the focal loss did to the probabilities.
        calibrate: fit a temperature (of votes, the strength of their concentrations) to the held-out labelled simulations.
    """

    model_config = ConfigDict(extra="forbid")
    target: Target = "class"
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = ()
    dropout: float = Field(0.0, ge=0, lt=1)
    logit_scale: bool = False
    focal: float = Field(0.0, ge=0)
    weights: Literal["none", "effective", "inverse"] = "none"
    beta: float = Field(0.9999, gt=0, lt=1)
    smoothing: float = Field(0.0, ge=0, lt=1)
    correct: bool = True
    calibrate: bool = True

    @model_validator(mode="after")
    def _check(self) -> "ClassifierConfig":
        if self.target != "class":
            for key in ("logit_scale", "focal", "weights", "beta", "smoothing"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is of target class: leave it out where the target is {self.target}")
        return self

    def class_weights(self, counts: np.ndarray) -> np.ndarray:
        """Weights of the classes in the loss for training counts, both of shape ``(class,)``."""
        if self.weights == "effective":
            return effective_number_weights(counts, self.beta)
        return inverse_frequency_weights(counts) if self.weights == "inverse" else np.ones(len(counts))


class MatchingConfig(BaseModel):
    """A flow-matching head.

    Attributes:
        width: of its tokens.
        layers: of the velocity transformer.
        heads: of attention.
        tokens: that the fused context is read as.
        measurements: whether it attends the tokens of measurements too, and combines their values. What one says of a parameter may
            depend on others (how far it is off, in units of a spread that is inferred too), which no fused context can hold for all their
            values.
        dropout: share of what its layers add that is dropped in training.
        gaussian: in whose units it works: of a Gaussian learned from the ``context``, which posteriors far narrower than the prior need,
            but which is the first to know a small set of simulations by heart; of that whose mean is ``linear`` in the scalar measurements,
            taken from simulations and not trained; or ``none``.
        questions: what it learns to answer: ``none``, the posterior of all parameters; ``parameters``, any of them given any others;
            ``channels``, scalar channels that were not measured too.
        time_exponent: a of the law of times, of density proportional to t^a; above 0 times near the data are more frequent.
        late: share of the times for which what is left of the noise is log-uniform instead, from 1 to 0.005, as narrow modes need.
        sigma_min: width that is left of the noise at the end of a path.
        repeats: times and noises per training object and step.
        solver: ``midpoint`` or ``rk4`` with fixed steps; or ``dopri5``, whose steps, and draws within its tolerance, depend on the batch.
        steps: of the solvers with fixed steps.
    """

    model_config = ConfigDict(extra="forbid")
    width: int = Field(64, ge=4)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    tokens: int = Field(4, ge=1)
    measurements: bool = True
    dropout: float = Field(0.0, ge=0, lt=1)
    gaussian: Literal["context", "linear", "none"] = "context"
    questions: Literal["none", "parameters", "channels"] = "parameters"
    time_exponent: float = Field(0.0, gt=-1)
    late: float = Field(0.5, ge=0, le=1)
    sigma_min: float = Field(1e-3, ge=0, lt=1)
    repeats: int = Field(2, ge=1)
    solver: Literal["midpoint", "rk4", "dopri5"] = "midpoint"
    steps: int = Field(16, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "MatchingConfig":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


class FewStepConfig(BaseModel):
    """A head that draws in a few evaluations.

    Attributes:
        steps: network evaluations per draw.
        width: of the hidden layers.
        teacher: head that it was distilled from; it is told what that one is.
    """

    model_config = ConfigDict(extra="forbid")
    teacher: Literal["spline", "flow_matching"] = "spline"
    steps: int = Field(4, ge=1, le=4)
    width: int = Field(128, ge=4)


class NetworkConfig(BaseModel):
    """Sizes of the network.

    Attributes:
        width: token width.
        layers: layers of the fusion transformer.
        heads: attention heads.
        summary: width of the encoder's sum over channels and of the perceptrons that follow.
        blocks: residual perceptrons after the transformer.
        context: width of the fused context.
        dropout: in the fusion, in training; for small sets of simulations.
        gated: whether the hidden units of fusion and flow matching are products, as second moments of few measurements need.
        octaves: of the sines and cosines in which values are expanded; fewer resolve less and need less data.
        head: of continuous parameters: a ``spline`` flow, ``flow_matching``, or a ``mixture`` of Gaussians; ``few_step`` heads
            are distilled from trained ones.
        transforms: coupling transforms of the spline flow.
        bins: spline bins.
        components: of the mixture.
        hidden: widths of the conditioners of spline flow and mixture.
        matching: of flow matching.
        few_step: of a distilled head.
        images: how images are encoded.
        classifier: the head, where what is inferred is a class.
    """

    model_config = ConfigDict(extra="forbid")
    width: int = Field(64, ge=4)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    summary: int = Field(256, ge=4)
    blocks: int = Field(3, ge=0)
    context: int = Field(128, ge=4)
    dropout: float = Field(0.0, ge=0, lt=1)
    gated: bool = False
    octaves: int = Field(7, ge=0)
    head: Literal["spline", "flow_matching", "mixture", "few_step"] = "spline"
    transforms: int = Field(5, ge=1)
    bins: int = Field(12, ge=2)
    components: int = Field(8, ge=1)
    hidden: tuple[int, ...] = (128, 128)
    matching: MatchingConfig = MatchingConfig()
    few_step: FewStepConfig = FewStepConfig()
    images: ImageConfig = ImageConfig()
    classifier: ClassifierConfig = ClassifierConfig()

    @model_validator(mode="after")
    def _check(self) -> "NetworkConfig":
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be one or more widths of at least 1, not {list(self.hidden)}")
        return self

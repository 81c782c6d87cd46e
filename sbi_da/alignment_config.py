"""What a config says of alignment, and the losses built from it."""

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sbi_da.alignment.adapter import PARTS
from sbi_da.alignment.pairs import PairTerm
from sbi_da.alignment.placed import Place, PlacedTerm
from sbi_da.alignment.registry import PAIR_TERMS, TERMS
from sbi_da.alignment.term import Term
from sbi_da.augmentation import Augmentation
from sbi_da.class_alignment_config import ClassAlignment
from sbi_da.errors import UnknownNameError
from sbi_da.optimiser import OptimiserKind
from sbi_da.schema import build
from sbi_da.weighting import Weighting

__all__ = ["AlignmentConfig", "MixtureSpec", "PairSpec", "TermSpec", "Weighting"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TermSpec(_Strict):
    """A term between the features of simulated and real objects.

    Attributes:
        kind: name of the term.
        on: the fused context, the tokens of each survey, or both.
        strata: compare objects with the same surveys only, or all together.
        weight: its schedule.
        options: arguments of the term.
    """

    kind: str
    on: Place = "context"
    strata: Literal["pattern", "none"] = "pattern"
    weight: Weighting = Weighting()
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known(self) -> "TermSpec":
        _find(self.kind, TERMS)
        if self.options.get("joint"):
            raise ValueError("joint: an alignment has no joint cost to give; use the term from Python")
        with torch.random.fork_rng(devices=[]):
            self.term(8)
        return self

    def term(self, width: int) -> Term:
        """The term for features of a width."""
        return build(_find(self.kind, TERMS), self.options, f"term {self.kind!r}", {"width": width})

    def build(self, context: int, token: int, surveys: int) -> PlacedTerm:
        """The term at each of its places.

        Args:
            context: width of the fused context.
            token: width of a survey's token.
            surveys: how many there are.
        """
        return PlacedTerm(
            None if self.on == "surveys" else self.term(context),
            [] if self.on == "context" else [self.term(token) for _ in range(surveys)], self.strata,
        )


class PairSpec(_Strict):
    """A term between the contexts of labelled real objects and of their simulated twins.

    Attributes:
        kind: name of the term.
        weight: its schedule.
        options: arguments of the term.
    """

    kind: str
    weight: Weighting = Weighting()
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known(self) -> "PairSpec":
        self.build()
        return self

    def build(self) -> PairTerm:
        """The term."""
        return build(_find(self.kind, PAIR_TERMS), self.options, f"pair term {self.kind!r}")


class MixtureSpec(_Strict):
    """Posteriors of real objects as mixtures over simulations they are coupled to.

    Attributes:
        gamma: entropic regularisation of the plan, as a fraction of the mean cost.
        tau: from 0 (each object alone) to 1 (real objects have the population of the bank).
        bank: number of simulations.
    """

    gamma: float = Field(0.5, gt=0)
    tau: float = Field(1.0, ge=0, le=1)
    bank: int = Field(2000, ge=10)


class AlignmentConfig(_Strict):
    """How an estimator is aligned with real objects.

    Attributes:
        correction: learn the simulator's discrepancy from labelled real objects and train on the corrected simulator.
        adapter: parts of a branch for real objects.
        train: the whole network, or the adapter alone (the rest, and so every simulated posterior, stays as it is).
        terms: between simulated and unlabelled real objects.
        pairs: between labelled real objects and their simulated twins.
        labelled: weight of the posterior loss on labelled real objects.
        mixture: once aligned, go on training on draws from mixture posteriors of the unlabelled real objects, for a reality that carries
            less information than the simulator; None: do not.
        learned: learn the weights of the posterior loss and of all others (Kendall et al. 2018); their schedules then open and close them.
        population: of real objects, by which ``terms`` weigh simulated ones: ``same`` as that of the simulations; of the ``labels``;
            estimated from ``posteriors`` of the unlabelled objects; or a table that has a column for every inferred parameter.
        deploy: make that population the prior of the posterior too; otherwise it stays under the prior it was trained with, and can
            be reweighted later.
        held_out: share of the labelled objects that judge, before they too are learned from for half as many epochs. Where it is
            too small a number, halves learn and judge in turn.
        recalibrate: move and widen posteriors of real objects where held-out labelled ones, all of whose parameters are known, gain by it.
            Labelled objects must then have the population of the prior: another one would be learned with the shift.
        epochs: number of epochs.
        steps_per_epoch: optimiser steps per epoch.
        batch: simulated objects per step, and as many real ones at most.
        learning_rate: peak of the schedule.
        optimiser: as in training.
        weight_decay: None: as in training.
        augmentation: how images of both sides are transformed; None: as in training.
        classes: what is done beside, where a class is inferred; of what stands above, correction, pairs, labelled, mixture, population,
            deploy, held_out and recalibrate then have no part.
    """

    correction: bool = True
    adapter: list[Literal["instrument", "film", "residual"]] = []
    train: Literal["all", "adapter"] = "all"
    terms: list[TermSpec] = []
    pairs: list[PairSpec] = []
    labelled: Weighting | None = None
    mixture: MixtureSpec | None = None
    learned: bool = False
    population: str = "same"
    deploy: bool = False
    held_out: float = Field(0.2, gt=0, lt=1)
    recalibrate: bool = False
    epochs: int = Field(6, ge=1)
    steps_per_epoch: int = Field(200, ge=1)
    batch: int = Field(512, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    optimiser: OptimiserKind | None = None
    weight_decay: float | None = Field(None, ge=0)
    augmentation: Augmentation | None = None
    classes: ClassAlignment = ClassAlignment()

    @model_validator(mode="after")
    def _consistent(self) -> "AlignmentConfig":
        if self.train == "adapter" and not self.adapter:
            raise ValueError(f"train: adapter needs an adapter: name one or more of {', '.join(PARTS)}")
        anew = self.classes.restage is not None or (self.classes.refine is not None and self.classes.refine.rounds > 0)
        if self.train == "adapter" and anew:
            raise ValueError("train: adapter keeps the network, and classes.restage and classes.refine.rounds start a new one: choose one")
        if self.train == "adapter" and self.classes.outliers is not None:
            raise ValueError("train: adapter keeps anomaly scores as they are, and classes.outliers changes them: choose one")
        if self.deploy and self.population == "same":
            raise ValueError("deploy: needs a population: labels, posteriors or a table")
        if self.learned and not (self.terms or self.pairs or self.labelled):
            raise ValueError("learned: there is no weight to learn without terms, pairs or labelled")
        if self.mixture and not self.adapter:
            raise ValueError(f"mixture: needs an adapter, or it would ruin simulated posteriors: name one or more of {', '.join(PARTS)}")
        return self

    @property
    def needs_real(self) -> bool:
        """Whether unlabelled real objects are needed."""
        return bool(self.terms or self.mixture) or self.population == "posteriors"

    @property
    def needs_pairs(self) -> bool:
        """Whether labelled real objects with simulated twins are of use."""
        return bool(self.pairs) or self.labelled is not None or any("matches" in TERMS[t.kind].uses for t in self.terms)


def _find(kind: str, known: dict[str, Any]) -> Any:
    if kind not in known:
        raise ValueError(str(UnknownNameError("term", kind, list(known))))
    return known[kind]

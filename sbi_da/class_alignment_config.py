"""What a config says of the alignment of a classifier."""

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sbi_da.alignment.class_registry import CLASS_TERMS
from sbi_da.alignment.class_term import ClassTerm
from sbi_da.blending import Blending
from sbi_da.errors import UnknownNameError
from sbi_da.restaging import Restaging
from sbi_da.schema import build
from sbi_da.weighting import Weighting

__all__ = ["ClassAlignment", "ClassTermSpec", "OutlierExposure", "Refinement", "Selection"]

Selection = Literal["last", "entropy", "iwv", "dev", "snd"]


class ClassTermSpec(BaseModel):
    """A term that sees the class outputs of simulated and real objects.

    Attributes:
        kind: name of the term.
        weight: its schedule.
        options: arguments of the term.
    """

    model_config = ConfigDict(extra="forbid")
    kind: str
    weight: Weighting = Weighting(kind="fixed", value=0.1)
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known(self) -> "ClassTermSpec":
        if self.kind not in CLASS_TERMS:
            raise ValueError(str(UnknownNameError("class term", self.kind, list(CLASS_TERMS))))
        with torch.random.fork_rng(devices=[]):
            self.build()
        return self

    def build(self) -> ClassTerm:
        """The term."""
        return build(CLASS_TERMS[self.kind], self.options, f"class term {self.kind!r}")


class Refinement(BaseModel):
    """Classes of real objects by a regression on what is measured of them, and a network that learns it: see :mod:`sbi_da.class_refining`.

    Attributes:
        rounds: of co-training with networks that start anew and see images alone, before the one that sees everything; 0: the network goes
            on from where it stands. Rounds mend a network that is far off, and let class fractions drift towards equal ones.
        epochs: of each.
        weight: of the real objects' loss, that of the simulations being ``supervised``.
        supervised: weight of the simulations in these rounds.
        share: of the real objects that are taken as sure at first.
        even: how alike the classes are in number at first: 1 equal, 0 as the network counts them.
        summaries: which measurements serve, by name; colours always do.
    """

    model_config = ConfigDict(extra="forbid")
    rounds: int = Field(0, ge=0)
    epochs: int = Field(8, ge=1)
    weight: float = Field(1.0, gt=0)
    supervised: float = Field(0.3, ge=0)
    share: float = Field(0.45, gt=0, lt=1)
    even: float = Field(0.5, ge=0, le=1)
    summaries: tuple[str, ...] = ("log_radius", "axis_ratio", "concentration", "asymmetry", "surface_brightness")


class OutlierExposure(BaseModel):
    """How outlier detectors are trained: see :mod:`sbi_da.outlier_exposure`.

    Attributes:
        simulations: galaxies that are shown once alone and once with another laid over them.
        epochs: number of epochs.
        steps_per_epoch: optimiser steps per epoch.
        batch: images per step.
        learning_rate: peak of the schedule.
        blending: how galaxies are laid over each other.
    """

    model_config = ConfigDict(extra="forbid")
    simulations: int = Field(6000, ge=100)
    epochs: int = Field(30, ge=1)
    steps_per_epoch: int = Field(40, ge=1)
    batch: int = Field(64, ge=2)
    learning_rate: float = Field(2e-3, gt=0)
    blending: Blending = Blending()


class ClassAlignment(BaseModel):
    """What is done to a classifier beside the terms that know nothing of classes.

    Attributes:
        terms: that see class outputs.
        fractions: how the class fractions of the real objects are estimated: ``source`` takes those of the simulations.
        reweight: simulated objects count in the distribution terms as the fractions of the real objects demand.
        select: which epoch is kept: the last, or the best by a label-free score.
        supervised: weight of the loss on labelled simulations.
        teacher: weight of the loss on real objects whose class an average of the weights so far is sure of; 0: there is no teacher.
        threshold: how sure the teacher must be.
        averaged: what is kept in the end is a running average of the weights, as it is with a teacher.
        momentum: of the average.
        restage: simulated images are first made to look like the target's.
        refine: afterwards real objects are classified by what is measured of them too, which the network then learns.
        outliers: detectors of overlapping galaxies join the anomaly score; images are made to look like the target's as ``restage`` says,
            if it is there.
    """

    model_config = ConfigDict(extra="forbid")
    terms: list[ClassTermSpec] = []
    fractions: Literal["source", "em", "bbse"] = "em"
    reweight: bool = False
    select: Selection = "last"
    supervised: float = Field(1.0, gt=0)
    teacher: float = Field(0.0, ge=0)
    threshold: float = Field(0.9, gt=0, le=1)
    averaged: bool = False
    momentum: float = Field(0.995, ge=0, lt=1)
    restage: Restaging | None = None
    refine: Refinement | None = None
    outliers: OutlierExposure | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ClassAlignment":
        if self.select != "last" and (self.averaged or self.teacher):
            raise ValueError("select: an average of the weights (averaged, teacher) belongs to no epoch: choose select: last or no average")
        return self

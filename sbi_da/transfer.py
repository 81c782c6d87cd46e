"""Starting a training from the weights of an earlier artefact, where names and shapes agree and mean the same.

Rows that belong to a channel or a survey mean the same only where these are the same, in the same order; the weights of a head only where
it answers the same question. What undoes an earlier training, or calibrates it, is never taken: the end of the new training sets it anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor

from sbi_da.any_prior import AnyPrior
from sbi_da.class_prior import ClassPrior
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.prior import Prior
from sbi_da.vote_prior import VotePrior

__all__ = ["Transfer", "Transferred", "transfer"]

BY_CHANNEL = ("encoder.center", "encoder.scale", "encoder.embed", "encoder.wide", "encoder.identity")
BY_SURVEY = ("encoder.survey_identity",)
NORMALISATIONS = ("center_", "scale_", "summary_center_", "summary_scale_")


class Transfer(BaseModel):
    """What of an earlier artefact a training starts from.

    Attributes:
        encoders: encoders and fusion.
        head: the head, if it answers the same question.
    """

    model_config = ConfigDict(extra="forbid")
    encoders: bool = True
    head: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Transfer":
        if not (self.encoders or self.head):
            raise ValueError("encoders and head are both false: nothing is left to take, leave training.start out instead")
        return self


@dataclass(frozen=True)
class Transferred:
    """What was taken and what was not.

    Attributes:
        taken: names of the weights.
        left: why each of the others was not, by name.
    """

    taken: tuple[str, ...]
    left: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts: dict[str, int] = {}
        for name in self.taken:
            parts[_part(name)] = parts.get(_part(name), 0) + 1
        reasons: dict[tuple[str, str], int] = {}
        for name, why in self.left.items():
            reasons[_part(name), why] = reasons.get((_part(name), why), 0) + 1
        taken = ", ".join(f"{part} ({count})" for part, count in parts.items())
        left = ", ".join(f"{part} ({count}: {why})" for (part, why), count in reasons.items())
        return f"weights taken: {taken or 'none'}; not taken: {left or 'none'}"


def transfer(estimator: Estimator, earlier: Estimator, what: Transfer | None = None, where: str = "the earlier artefact") -> Transferred:
    """Overwrite weights of an estimator by those of an earlier one.

    Args:
        estimator: that is to be trained; what is not taken stays as it is.
        earlier: where they come from.
        what: which parts.
        where: its name, for messages.

    Raises:
        SbiDaError: not one weight fits.
    """
    what = what or Transfer()
    own, held = estimator.state_dict(), earlier.state_dict()
    trained = {name for name, _ in estimator.named_parameters()}
    left = {name: why for name in own if (why := _refused(name, own, held, estimator, earlier, what, trained))}
    whole = {_layer(name): why for name, why in left.items() if _layer(name)}
    left |= {name: whole[_layer(name)] for name in own if _layer(name) in whole}
    for name in own:  # normalisations go with the encoder that was trained under them
        camera = _camera(name) if name.count(".") == 1 else ""
        if camera and name not in left and any(other.startswith(f"images.encoders.{camera}.") for other in left):
            left[name] = "of an encoder that was not taken"
    taken = [name for name in own if name not in left and own[name].numel()]
    if not taken:
        raise SbiDaError(f"training.start: not one weight of {where} fits: {Transferred((), left)}")
    with torch.no_grad():
        for name in taken:
            own[name].copy_(held[name])
    return Transferred(tuple(taken), left)


def _refused(
    name: str, own: Mapping[str, Tensor], held: Mapping[str, Tensor], estimator: Estimator, earlier: Estimator, what: Transfer,
    trained: set[str],
) -> str:
    """Why a weight is not taken; empty if it is."""
    if name.startswith("head."):
        if not what.head:
            return "not asked for"
        if _question(estimator.prior) != _question(earlier.prior):
            return "answers another question"
        if name not in trained and name.count(".") == 1:  # deeper ones are the make of a flow
            return "calibration, set anew"
    elif not what.encoders:
        return "not asked for"
    if name not in held:
        return "not there"
    if own[name].shape != held[name].shape:
        return "of another shape"
    if name in BY_CHANNEL and _channels(estimator) != _channels(earlier):
        return "other channels"
    if name in BY_SURVEY and estimator.surveys != earlier.surveys:
        return "other surveys"
    camera = _camera(name)
    if camera and estimator.layout.cameras[camera].band_names != earlier.layout.cameras[camera].band_names:
        return "other bands"
    return ""


def _question(prior: AnyPrior) -> object:
    """What a head answers: heads that answer the same may exchange weights."""
    if isinstance(prior, ClassPrior):
        return prior.name, prior.classes
    if isinstance(prior, VotePrior):
        return dict(prior.questions)
    return prior.to_dict() if isinstance(prior, Prior) else ("labels", *prior.names)


def _channels(estimator: Estimator) -> list[tuple[str, str, str]]:
    layout = estimator.layout
    return [
        (layout.surveys[k].name, channel.name, channel.unit)
        for k, channel in zip(layout.survey_index.tolist(), layout.channels, strict=True)
    ]


def _camera(name: str) -> str:
    """The survey whose images a weight is for; empty for all else."""
    pieces = name.split(".")
    if pieces[0] != "images":
        return ""
    if len(pieces) > 2:
        return pieces[2]
    return next((pieces[1].removeprefix(prefix) for prefix in NORMALISATIONS if pieces[1].startswith(prefix)), "")


def _layer(name: str) -> str:
    """What is taken as a whole or not at all: a layer, and of a head all layers; empty for what stands alone."""
    pieces = name.split(".")
    return "" if len(pieces) < 3 else "head" if pieces[0] == "head" else ".".join(pieces[:-1])


def _part(name: str) -> str:
    pieces = name.split(".")
    return ".".join(pieces[:3] if pieces[0] == "images" and len(pieces) > 3 else pieces[:1])

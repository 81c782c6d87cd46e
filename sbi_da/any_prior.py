"""The priors an estimator may be trained under: of continuous parameters, a class, votes, labels."""

from collections.abc import Mapping
from typing import Any

from sbi_da.class_prior import ClassPrior
from sbi_da.label_prior import LabelPrior
from sbi_da.prior import Prior
from sbi_da.vote_prior import VotePrior

__all__ = ["AnyPrior", "prior_from_dict"]

AnyPrior = Prior | ClassPrior | VotePrior | LabelPrior


def prior_from_dict(content: Mapping[str, Any]) -> AnyPrior:
    """A prior from plain content."""
    for key, kind in (("classes", ClassPrior), ("questions", VotePrior), ("rates", LabelPrior)):
        if key in content:
            found: AnyPrior = kind.from_dict(content)
            return found
    return Prior.from_dict(content)

"""The answer to a question about some rows, as columns of a table."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sbi_da
from sbi_da.artefact import fingerprint
from sbi_da.catalog.flags import Flag
from sbi_da.catalog.question import Question
from sbi_da.catalog.rows import Rows
from sbi_da.catalog.steady import steady_features, steady_statistics
from sbi_da.catalog.summaries import summaries
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.importance import low_ess
from sbi_da.inference import summary_units
from sbi_da.posteriors.exact import alone
from sbi_da.posteriors.few_step import FewStepHead
from sbi_da.refinement import Refinement
from sbi_da.trust import Reference
from sbi_da.trust.reference import PLACE

__all__ = ["SCHEMA", "Answerer", "described"]

STRANGE = 1e-3
"""p-value below which an object is flagged."""

SCHEMA = 1
"""Of the columns of an answer."""


@dataclass(frozen=True)
class Answerer:
    """Who answers.

    Attributes:
        estimator: of posteriors of continuous parameters, in evaluation mode.
        reference: what simulated objects look like; None: nothing is said of how strange objects are.
    """

    estimator: Estimator
    reference: Reference | None = None

    @classmethod
    def load(cls, run: Path, device: str = "cpu") -> "Answerer":
        """From an artefact, or the run that made it, to compute on a device."""
        estimator = Estimator.load(run)
        return cls(estimator, Reference.load(run, estimator)).to(device)

    @classmethod
    def kept(cls, run: Path, device: str = "cpu") -> "Answerer":
        """Loaded once by each process, and again when the artefact is another one."""
        return _kept(run, device, fingerprint(run), fingerprint(run / PLACE, PLACE) if (run / PLACE).is_dir() else "")

    def to(self, device: str | torch.device) -> "Answerer":
        """Compute on a device."""
        self.estimator.to(device)
        if self.reference is not None:
            self.reference.to(device)
        return self

    def check(self, question: Question) -> None:
        """Refuse what this estimator cannot be asked.

        Raises:
            SbiDaError: summaries without draws that need them.
        """
        prior, head = self.estimator.density
        closed = alone(head, prior)
        drawn = [name for name in (*prior.names, *self.estimator.derived) if name not in closed]
        if drawn and not question.draws:
            why = "closed forms are of mixtures (network.head=mixture)" if not closed else "they depend on other parameters, or are derived"
            raise SbiDaError(f"no draws: the summaries of {', '.join(drawn)} need some: {why}")
        if question.refine and isinstance(head, FewStepHead):
            raise SbiDaError("refine: a few_step head draws and has no density: ask the estimator that it was distilled from")
        self._refinement(question)

    def _refinement(self, question: Question) -> Refinement | None:
        return Refinement.of(self.estimator, question.refine) if question.refine else None

    def __call__(self, rows: Rows, question: Question) -> dict[str, Any]:
        """Columns of the answer, each of shape ``(object,)``, draws and correlations with a second dimension; see docs/scale.md."""
        observed = self.estimator.layout.read(rows.records)
        features = steady_features(self.estimator, observed, real=True, bf16=question.bf16)
        strange: dict[str, np.ndarray] = {}
        if self.reference and len(observed):
            found = steady_statistics(self.reference, self.estimator, features, observed)
            strange = {name: p.astype(np.float32) for name, p in self.reference.p_values(found).items()}
        elif self.reference:
            strange = {name: np.empty(0, np.float32) for name in self.reference.columns}
        posterior = self.estimator.posterior(features.told, observed, rows.ids, real=True)
        columns = summaries(posterior, observed, question, self._refinement(question))
        columns |= {f"p_{name}": p for name, p in strange.items()}
        flags = rows.flags.copy()
        for flag, column, least in ((Flag.STRANGE, "p_all", STRANGE), (Flag.LOW_ESS, "ess", low_ess(question.draws))):
            if column in columns:
                flags |= np.where(columns[column] < least, int(flag), 0).astype(np.int32)
        kept = {name: np.ma.MaskedArray(c.values, c.missing) for name, c in rows.kept.items()}
        first = {"id": rows.ids, "surveys": rows.records.pattern(), "flags": flags}
        clash = [name for name in kept if name in {**first, **columns}]
        if clash:
            raise SbiDaError(f"column {clash[0]!r} cannot be kept: the answer has one of that name; rename it")
        return {"id": first.pop("id"), **kept, **first, **columns}


@lru_cache(maxsize=2)
def _kept(run: Path, device: str, estimator: str, trust: str) -> Answerer:
    return Answerer.load(run, device)


def described(estimator: Estimator, question: Question) -> tuple[Mapping[str, str], dict[bytes, bytes]]:
    """Units by column, and what a file says of itself: version of the columns, flags, question."""
    units = {name.replace("_mean", "_map"): unit for name, unit in summary_units(estimator).items() if name.endswith("_mean")}
    said = {
        "schema": SCHEMA, "sbi_da": sbi_da.__version__, "flags": {str(int(flag)): flag.meaning for flag in Flag},
        "quantities": [*estimator.parameter_names, *estimator.derived], "question": question.model_dump(mode="json"),
    }
    longest = len("+".join(estimator.surveys))  # astropy wants to know how much room a text takes
    return {**summary_units(estimator), **units}, {b"sbi_da": json.dumps(said).encode(), b"table::len::surveys": b"%d" % max(4, longest)}

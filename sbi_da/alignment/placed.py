"""Where a term acts: on the fused context, on the tokens of each survey, and within strata of like objects."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sbi_da.alignment.features import Features
from sbi_da.alignment.term import Term, nothing

__all__ = ["FEWEST", "Place", "PlacedTerm", "within_strata"]

FEWEST = 8
"""A stratum with fewer rows on either side is left out."""
Place = Literal["context", "surveys", "both"]


class PlacedTerm(nn.Module):
    """A distribution term on the features of two batches.

    On survey tokens only objects that have the survey take part. Strata by pattern compare objects with the same surveys only:
    without them a term would also align the laws of what is missing.

    Args:
        context: compares fused contexts; None: they are left alone.
        surveys: compares the tokens of each survey, in the order of the features; none: they are left alone. Their mean is taken.
        strata: compare within the patterns of surveys, or all together.
    """

    def __init__(
        self, context: Term | None = None, surveys: Sequence[Term] = (), strata: Literal["pattern", "none"] = "pattern"
    ) -> None:
        super().__init__()
        self.context, self.surveys, self.strata = context, nn.ModuleList(surveys), strata

    @property
    def terms(self) -> list[Term]:
        """The term at each of its places."""
        return [term for term in (self.context, *self.surveys) if isinstance(term, Term)]

    @property
    def uses(self) -> frozenset[str]:
        """Which of ``weight``, ``matches``, ``cost`` it makes use of."""
        return frozenset().union(*(term.uses for term in self.terms))

    def set_progress(self, progress: float) -> None:
        """Say how far the training is, from 0 to 1."""
        for term in self.terms:
            term.progress = progress

    def forward(
        self,
        simulated: Features,
        real: Features,
        *,
        weight: Tensor | None = None,
        matches: Tensor | None = None,
        cost: Tensor | None = None,
        classes: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The term; arguments as of :class:`~sbi_da.alignment.term.Term`.

        Args:
            simulated: features of the simulated batch.
            real: features of the real batch.
            weight: of the simulated objects.
            matches: row pairs known to belong together.
            cost: further cost of matching.
            classes: further strata of the simulated and the real objects, integers, such as predicted classes.
        """
        total = nothing(simulated.context, real.context)
        if self.context is not None:
            groups = self._groups(simulated, real, classes)
            total = total + within_strata(self.context, simulated.context, real.context, *groups, weight, matches, cost)
        for k, term in enumerate(self.surveys):
            rows, columns = simulated.present[:, k].nonzero()[:, 0], real.present[:, k].nonzero()[:, 0]
            s, r = simulated[rows], real[columns]
            some = None if classes is None else (classes[0][rows], classes[1][columns])
            total = total + within_strata(
                term, s.surveys[:, k], r.surveys[:, k], *self._groups(s, r, some),
                None if weight is None else weight[rows],
                None if matches is None else _renumbered(matches, rows, columns, len(simulated), len(real)),
                None if cost is None else cost[rows][:, columns],
            ) / len(self.surveys)
        return total

    def _groups(
        self, simulated: Features, real: Features, classes: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        groups = [torch.zeros_like(side.pattern) if self.strata == "none" else side.pattern for side in (simulated, real)]
        if classes is not None:
            size = 1 + max((int(g.max()) for g in groups if len(g)), default=0)
            groups = [group + size * own.long() for group, own in zip(groups, classes, strict=True)]
        return groups[0], groups[1]


def within_strata(
    term: nn.Module,
    simulated: Tensor,
    real: Tensor,
    group_simulated: Tensor,
    group_real: Tensor,
    weight: Tensor | None = None,
    matches: Tensor | None = None,
    cost: Tensor | None = None,
) -> Tensor:
    """A term within each group present on both sides, averaged by the groups' numbers of real rows.

    Args:
        term: compares two sets of rows.
        simulated: shape ``(n, width)``.
        real: shape ``(m, width)``.
        group_simulated: integers, shape ``(n,)``.
        group_real: integers, shape ``(m,)``.
        weight: of simulated rows.
        matches: row pairs; those across groups are dropped.
        cost: shape ``(n, m)``.
    """
    total, rows_used = nothing(simulated, real), 0
    for group in group_real.unique():
        rows, columns = (group_simulated == group).nonzero()[:, 0], (group_real == group).nonzero()[:, 0]
        if min(len(rows), len(columns)) < FEWEST:
            continue
        value: Tensor = term(
            simulated[rows], real[columns],
            weight=None if weight is None else weight[rows],
            matches=None if matches is None else _renumbered(matches, rows, columns, len(simulated), len(real)),
            cost=None if cost is None else cost[rows][:, columns],
        )
        total, rows_used = total + len(columns) * value, rows_used + len(columns)
    return total / max(1, rows_used)


def _renumbered(matches: Tensor, rows: Tensor, columns: Tensor, n: int, m: int) -> Tensor:
    """Matches among some of the rows, numbered within them."""
    new = []
    for side, (kept, size) in enumerate(((rows, n), (columns, m))):
        number = matches.new_full((size,), -1)
        number[kept.to(matches.device)] = torch.arange(len(kept), device=matches.device)
        new.append(number[matches[:, side]])
    both = torch.stack(new, 1)
    return both[(both >= 0).all(1)]

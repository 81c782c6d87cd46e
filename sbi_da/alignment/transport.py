r"""Terms by optimal transport: the cost of moving simulated features onto real ones.

With a plan :math:`P` of the costs :math:`C_{ij} = \|z_i - z_j\|^2 / d`, held fixed (by the envelope theorem the gradient of
the transport problem's value is that of :math:`\langle P, C \rangle` at fixed :math:`P`), ``OptimalTransport`` is

.. math:: \langle P_{so}, C_{so} \rangle - \tfrac12 \langle P_{ss}, C_{ss} \rangle - \tfrac12 \langle P_{oo}, C_{oo} \rangle,

s simulated, o real. The self-terms undo the blur of an entropic plan, which else pulls both clouds onto their barycentres
(Feydy et al. 2019, arXiv:1810.08278; unbalanced: Séjourné et al. 2019, arXiv:1910.12958). Exact and partial plans move a
cloud onto itself at no cost and have none. A further cost of matching, such as :math:`-\log q(\theta_s \,|\, z_o)`, makes
the joint cost of DeepJDOT and JUMBOT (Damodaran et al. 2018, arXiv:1803.10081; Fatras et al. 2021, arXiv:2103.03606).
Alone, self-plans know nothing of that cost: they are blurrier than the plan and push the clouds apart. They are then taken
as the polar factors of the plan: with :math:`P = R^{1/2} U S V^T K^{1/2}`, R and K its marginals, the self-plans are
:math:`R^{1/2} U S U^T R^{1/2}` and :math:`K^{1/2} V S V^T K^{1/2}`, and the features' part of the term is a square.

``SoftMatching`` is the composite of galaxy-da (arXiv:2511.18590). It is not debiased, and shrinks what nothing else holds.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from sbi_da.alignment.plan import entropic_plan, exact_plan, partial_plan
from sbi_da.alignment.term import Term, normalised, nothing, squared_distances
from sbi_da.errors import SbiDaError, UnknownNameError

__all__ = ["OptimalTransport", "SoftMatching"]

Plan = Literal["entropic", "unbalanced", "partial", "exact"]


class OptimalTransport(Term):
    """Cost of the plan between the two sides, less half the costs of the plans of each with itself.

    Args:
        plan: ``entropic``; ``unbalanced``: entropic, with marginals held by a Kullback-Leibler divergence, so that what
            is too far is left out; ``partial``: the cheapest part of the mass, sharp; ``exact``: all of it, sharp.
        epsilon: blur of the entropic plans, as a fraction of the mean cost between the sides.
        rho: strength of the marginals of ``unbalanced``, as a fraction of that cost.
        mass: fraction that ``partial`` moves.
        joint: weight of the further ``cost``; 0 ignores it.
        debias: subtract the self-terms.
        iterations: most iterations of an entropic plan.
    """

    kind = "transport"
    uses: frozenset[str] = frozenset({"weight", "cost"})

    def __init__(
        self,
        plan: Plan = "entropic",
        epsilon: float = 0.05,
        rho: float = 1.0,
        mass: float = 0.9,
        joint: float = 0.0,
        debias: bool = True,
        iterations: int = 200,
    ) -> None:
        super().__init__()
        if plan not in get_args(Plan):
            raise UnknownNameError("plan", plan, list(get_args(Plan)))
        if not (epsilon > 0 and rho > 0 and 0 < mass <= 1 and joint >= 0):
            raise SbiDaError(
                f"transport: epsilon and rho are positive, mass in (0, 1], joint not negative; got {epsilon=}, {rho=}, "
                f"{mass=}, {joint=}"
            )
        if not joint:
            self.uses = frozenset({"weight"})  # spares the caller a density per pair of rows
        self.plan: Plan = plan
        self.epsilon, self.rho, self.mass, self.joint, self.debias = epsilon, rho, mass, joint, debias
        self.iterations = iterations

    def forward(
        self,
        simulated: Tensor,
        real: Tensor,
        *,
        weight: Tensor | None = None,
        matches: Tensor | None = None,
        cost: Tensor | None = None,
    ) -> Tensor:
        """The term; see :class:`Term`. Gradients also reach ``cost``, unless it comes detached."""
        if incomparable(simulated, real, weight):
            return nothing(simulated, real)
        a, b = normalised(weight, simulated).detach().to(simulated), normalised(None, real)
        total = squared_distances(simulated, real)
        joint = cost is not None and self.joint > 0
        if cost is not None and joint:
            total = total + self.joint * cost
        # Log-densities may be negative and their zero means nothing: soft marginals and epsilon need costs from zero up.
        moved = total.detach() - total.detach().min() if joint else total.detach()
        scale = mean_cost(moved, a, b)
        plan = self._solve(moved, a, b, scale)
        loss = (plan * total).sum()
        if not self.debias or self.plan in ("partial", "exact"):
            return loss
        within, without = squared_distances(simulated, simulated), squared_distances(real, real)
        if joint:
            own, other = _polar(plan)
        else:
            own, other = self._solve(within, a, a, scale), self._solve(without, b, b, scale)
        return loss - 0.5 * (own * within).sum() - 0.5 * (other * without).sum()

    def _solve(self, cost: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        if self.plan == "exact":
            return exact_plan(cost, a, b)
        if self.plan == "partial":
            return partial_plan(cost, a, b, self.mass)
        rho = self.rho * scale if self.plan == "unbalanced" else None
        return entropic_plan(cost, a, b, self.epsilon * scale, self.iterations, rho_a=rho, rho_b=rho)


class SoftMatching(Term):
    r"""Plan cost, distance to the matched barycentre, and the worst unmatched rows.

    .. math:: s \left(w_1 \langle P, C \rangle + w_2\, \mathrm{MSE}(z_s, n P z_o) + w_3\, \mathrm{mean}_k \min_j C_{ij}\right),

    the last mean over the k rows farthest from any real one. Weighted rows count by their weight throughout: the
    last mean is then over the farthest k/n of the weight. The plan is held fixed.

    Args:
        transport: :math:`w_1`.
        barycentre: :math:`w_2`.
        worst: :math:`w_3`.
        scale: s.
        epsilon: blur of the plan, as a fraction of the mean cost.
        k: number of worst rows.
        published: as in galaxy-da: distances not divided by the width, and ``epsilon`` in their units.
        iterations: most iterations of the plan.
    """

    kind = "soft_matching"

    def __init__(
        self,
        transport: float = 0.25,
        barycentre: float = 0.5,
        worst: float = 0.05,
        scale: float = 0.5,
        epsilon: float = 0.05,
        k: int = 5,
        published: bool = False,
        iterations: int = 200,
    ) -> None:
        super().__init__()
        if not (epsilon > 0 and k >= 1):
            raise SbiDaError(f"soft_matching: epsilon is positive and k at least 1, got {epsilon=}, {k=}")
        self.transport, self.barycentre, self.worst, self.scale = transport, barycentre, worst, scale
        self.epsilon, self.k, self.published, self.iterations = epsilon, k, published, iterations

    def forward(
        self,
        simulated: Tensor,
        real: Tensor,
        *,
        weight: Tensor | None = None,
        matches: Tensor | None = None,
        cost: Tensor | None = None,
    ) -> Tensor:
        """The term; see :class:`Term`."""
        if incomparable(simulated, real, weight):
            return nothing(simulated, real)
        a, b = normalised(weight, simulated).detach().to(simulated), normalised(None, real)
        distance = squared_distances(simulated, real)
        if self.published:
            distance = distance * simulated.shape[-1]
        unit = 1.0 if self.published else mean_cost(distance.detach(), a, b)
        plan = entropic_plan(distance, a, b, self.epsilon * unit, self.iterations)
        target = plan.to(real) @ real / a.clamp_min(torch.finfo(a.dtype).tiny)[:, None]
        barycentre = a @ (simulated - target).square().mean(-1)
        nearest, order = distance.min(1).values.sort(descending=True)
        share = min(1.0, self.k / len(simulated))
        taken = a[order].cumsum(0).clamp_max(share).diff(prepend=a.new_zeros(1))
        worst = (taken * nearest).sum() / share
        terms = self.transport * (plan * distance).sum() + self.barycentre * barycentre + self.worst * worst
        return self.scale * terms


def incomparable(simulated: Tensor, real: Tensor, weight: Tensor | None) -> bool:
    """Whether a side is empty, or the simulated one without weight."""
    return not (len(simulated) and len(real)) or (weight is not None and not bool((weight > 0).any()))


def mean_cost(cost: Tensor, a: Tensor, b: Tensor) -> float:
    """Mean cost under independent masses: the unit of epsilon and rho. Positive, also where all rows coincide."""
    return max(torch.finfo(torch.float32).tiny, float(a @ cost @ b))


def _polar(plan: Tensor) -> tuple[Tensor, Tensor]:
    """The self-plans of either side that are as blurred as the plan; their marginals are the plan's."""
    rows, columns = plan.sum(1).sqrt(), plan.sum(0).sqrt()
    tiny = torch.finfo(plan.dtype).tiny
    u, s, vt = torch.linalg.svd(plan / (rows[:, None] * columns).clamp_min(tiny), full_matrices=False)
    u, v = rows[:, None] * u, columns[:, None] * vt.T
    return (u * s) @ u.T, (v * s) @ v.T

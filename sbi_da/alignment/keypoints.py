r"""Keypoint-guided transport: a few known pairs steer the matching of all other rows (KPG-RL, Gu et al. 2022, arXiv:2303.13102).

With pairs :math:`(i_u, j_u)` known, a mask sends every keypoint to its partner, and free rows to free rows only. A row is
described by its relation to the keypoints of its own side, from the distances within that side over their maximum,

.. math:: R^s_{iu} = \mathrm{softmax}_u (-2 C^s_{i i_u} / \tau), \qquad R^t_{ju} = \mathrm{softmax}_u (-2 C^t_{j j_u} / \tau),

and the guiding cost :math:`G_{ij}` is the Jensen-Shannon divergence of :math:`R^s_i` and :math:`R^t_j`. The plan minimises
:math:`\langle P, \alpha C + (1 - \alpha) G \rangle` over masked couplings, C the cost over its maximum. At α = 0 no simulated
row is ever compared with a real one, so that their spaces may differ; where a region has no keypoint of its own, that is a
risk which the mixed cost does not run. The Gromov-Wasserstein form, for different spaces, replaces the first part by
:math:`\alpha \sum |C^s_{ik} - C^t_{jl}|^2 P_{ij} P_{kl}` and is minimised by conditional gradient with exact steps.

Masses of a pair must agree for the mask to admit a plan: each pair is given the geometric mean of its two masses, and free
rows share the remainder in proportion to theirs.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from sbi_da.alignment.plan import entropic_plan, exact_plan
from sbi_da.alignment.term import Term, normalised, nothing, squared_distances
from sbi_da.alignment.transport import OptimalTransport, incomparable, mean_cost
from sbi_da.errors import SbiDaError, UnknownNameError

__all__ = [
    "KeypointTransport", "guiding_cost", "keypoint_gromov_plan", "keypoint_mask", "keypoint_masses", "keypoint_plan",
    "relations",
]

Solver = Literal["entropic", "exact"]


def keypoint_mask(n: int, m: int, matches: Tensor) -> Tensor:
    """True where mass may go, shape ``(n, m)``: from a keypoint to its partner, from a free row to a free row.

    Args:
        n: simulated rows.
        m: real rows.
        matches: row pairs, integer, shape ``(k, 2)``; no row twice.

    Raises:
        SbiDaError: rows that do not exist or come twice.
    """
    i, j = _pairs(n, m, matches)
    mask = torch.ones(n, m, dtype=torch.bool, device=matches.device)
    mask[i, :] = False
    mask[:, j] = False
    mask[i, j] = True
    return mask


def relations(within: Tensor, keypoints: Tensor, tau: float = 0.1) -> Tensor:
    """Relation of every row to the keypoints of its side, shape ``(n, k)``; rows sum to one.

    Args:
        within: distances of the rows of one side, shape ``(n, n)``; their scale is of no account.
        keypoints: rows that are keypoints, integer, shape ``(k,)``.
        tau: temperature, as a fraction of the largest distance.
    """
    largest = within.max().clamp_min(torch.finfo(within.dtype).tiny)
    return torch.softmax(-2.0 * within[:, keypoints] / largest / tau, dim=1)


def guiding_cost(simulated: Tensor, real: Tensor) -> Tensor:
    """Jensen-Shannon divergences, shape ``(n, m)``, in nats, of relations ``(n, k)`` and ``(m, k)``."""
    rows = max(1, 2**18 // max(1, real.numel()))  # of what the cache holds
    half = 0.5 * real
    mixed = torch.cat([_entropy(0.5 * part[:, None] + half) for part in simulated.split(rows)])
    return (mixed - 0.5 * (_entropy(simulated)[:, None] + _entropy(real))).clamp_min(0.0)


def keypoint_masses(a: Tensor, b: Tensor, matches: Tensor) -> tuple[Tensor, Tensor]:
    """Masses under which both rows of a pair weigh the same; each side sums to one.

    Args:
        a: masses of the simulated rows, shape ``(n,)``.
        b: masses of the real rows, shape ``(m,)``.
        matches: row pairs, shape ``(k, 2)``. Where they use up a side, free rows of the other get nothing.
    """
    i, j = _pairs(len(a), len(b), matches)
    a, b = a / a.sum(), b / b.sum()
    pairs = (a[i] * b[j]).sqrt()
    free_a, free_b = a.index_fill(0, i, 0.0), b.index_fill(0, j, 0.0)
    if not (free_a.any() and free_b.any()):
        pairs = pairs / pairs.sum()
    rest = (1.0 - pairs.sum()).clamp_min(0.0)
    tiny = torch.finfo(a.dtype).tiny
    free_a, free_b = (free * (rest / free.sum().clamp_min(tiny)) for free in (free_a, free_b))
    return free_a.index_copy(0, i, pairs), free_b.index_copy(0, j, pairs)


def keypoint_plan(
    cost: Tensor | None,
    within_simulated: Tensor,
    within_real: Tensor,
    matches: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    alpha: float = 0.5,
    tau: float = 0.1,
    plan: Solver = "exact",
    epsilon: float = 0.05,
) -> Tensor:
    """The keypoint-guided plan.

    Args:
        cost: squared distances between the sides, shape ``(n, m)``; None: features of different spaces, alpha is 0.
        within_simulated: squared distances among simulated rows, shape ``(n, n)``.
        within_real: squared distances among real rows, shape ``(m, m)``.
        matches: row pairs, integer, shape ``(k, 2)``.
        a: masses of the simulated rows; None: all alike.
        b: masses of the real rows; None: all alike.
        alpha: share of the cost over its maximum; the rest is the guiding cost.
        tau: temperature of the relations.
        plan: ``exact``, by linear programming, or ``entropic``.
        epsilon: blur of the entropic plan, as a fraction of the mean mixed cost.

    Returns:
        The plan, shape ``(n, m)``, of mass one.
    """
    a, b, guide = _guided(within_simulated, within_real, matches, a, b, tau)
    mixed = guide if cost is None else alpha * _scaled(cost) + (1 - alpha) * guide
    return _masked_plan(mixed, a, b, matches, plan, epsilon * mean_cost(mixed, a, b))


def keypoint_gromov_plan(
    within_simulated: Tensor,
    within_real: Tensor,
    matches: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    alpha: float = 0.5,
    tau: float = 0.1,
    plan: Solver = "exact",
    epsilon: float = 0.05,
    iterations: int = 50,
    tolerance: float = 1e-6,
) -> Tensor:
    """The keypoint-guided Gromov-Wasserstein plan, from the plan of the guiding cost downhill to a local minimum.

    Args:
        within_simulated: squared distances among simulated rows, shape ``(n, n)``.
        within_real: squared distances among real rows, shape ``(m, m)``, of the same space or another.
        matches: row pairs, integer, shape ``(k, 2)``.
        a: masses of the simulated rows; None: all alike.
        b: masses of the real rows; None: all alike.
        alpha: share of the Gromov-Wasserstein part.
        tau: temperature of the relations.
        plan: solver of the linear steps.
        epsilon: blur of entropic steps, as a fraction of the mean of the linear cost above its least value.
        iterations: most conditional gradient steps.
        tolerance: least relative gain that a step is worth.

    Returns:
        The plan, shape ``(n, m)``, of mass one.
    """
    a, b, guide = _guided(within_simulated, within_real, matches, a, b, tau)
    x, y = _scaled(within_simulated).to(guide), _scaled(within_real).to(guide)

    def distortion(p: Tensor) -> Tensor:
        return (x.square() @ p.sum(1))[:, None] + y.square() @ p.sum(0) - 2 * x @ p @ y

    def solved(linear: Tensor) -> Tensor:
        return _masked_plan(linear, a, b, matches, plan, epsilon * mean_cost(linear, a, b))

    current = solved(guide)
    for _ in range(iterations):
        slope = 2 * alpha * distortion(current) + (1 - alpha) * guide
        step = solved(slope - slope.min()) - current
        linear, square = float((slope * step).sum()), float(alpha * (distortion(step) * step).sum())
        length = min(1.0, -0.5 * linear / square) if square > 0 else float(linear + square < 0)
        gain = -length * (linear + length * square)
        if length <= 0 or gain <= tolerance * float((slope * current).sum().abs()):
            break
        current = current + length * step
    return current


class KeypointTransport(Term):
    """Cost of the keypoint-guided plan between the sides, less half the costs of the plans of each with itself.

    The self-plans are guided by the same keypoints, so that on equal clouds all three plans are one. The guiding cost
    chooses the plan and is not itself part of the term. Pairs that repeat a row, have no weight, or come after the first
    B/2 of a batch of B rows (of the smaller side) count as free rows; without pairs this is the entropic (or exact)
    :class:`~sbi_da.alignment.transport.OptimalTransport`.

    Args:
        alpha: share of the distances in the cost of the plan; the rest is guidance.
        tau: temperature of the relations.
        plan: ``entropic`` or ``exact``.
        epsilon: blur of the entropic plans, as a fraction of the mean cost between the sides.
        debias: subtract the self-terms; an exact plan has none.
        iterations: most iterations of an entropic plan.
    """

    kind = "keypoints"
    uses: frozenset[str] = frozenset({"weight", "matches"})

    def __init__(
        self,
        alpha: float = 0.5,
        tau: float = 0.1,
        plan: Solver = "entropic",
        epsilon: float = 0.05,
        debias: bool = True,
        iterations: int = 200,
    ) -> None:
        super().__init__()
        if plan not in get_args(Solver):
            raise UnknownNameError("plan", plan, list(get_args(Solver)))
        if not (0 <= alpha <= 1 and tau > 0 and epsilon > 0):
            raise SbiDaError(f"keypoints: alpha in [0, 1], tau and epsilon positive; got {alpha=}, {tau=}, {epsilon=}")
        self.alpha, self.tau, self.plan, self.epsilon = alpha, tau, plan, epsilon
        self.debias, self.iterations = debias, iterations
        self.unguided = OptimalTransport(plan, epsilon, debias=debias, iterations=iterations)

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
        matches = torch.zeros(0, 2, dtype=torch.long, device=real.device) if matches is None else _one_to_one(matches)
        _pairs(len(simulated), len(real), matches)
        if weight is not None:
            kept = weight > 0
            matches = matches[kept[matches[:, 0]]]
            matches = torch.stack([kept.cumsum(0)[matches[:, 0]] - 1, matches[:, 1]], dim=1)
            simulated, weight = simulated[kept], weight[kept]
        matches = matches[: min(len(simulated), len(real)) // 2]
        if not len(matches):
            return self.unguided(simulated, real, weight=weight)
        a = normalised(weight, simulated).detach().to(simulated)
        a, b = keypoint_masses(a, normalised(None, real), matches)
        (i, j), between = matches.T, squared_distances(simulated, real)
        within_s, within_t = squared_distances(simulated, simulated), squared_distances(real, real)
        known_s, known_t = relations(within_s.detach(), i, self.tau), relations(within_t.detach(), j, self.tau)
        largest = between.detach().max().clamp_min(torch.finfo(between.dtype).tiny)

        def mixed(distance: Tensor, p: Tensor, q: Tensor) -> Tensor:
            return self.alpha * distance.detach() / largest + (1 - self.alpha) * guiding_cost(p, q)

        total = mixed(between, known_s, known_t)
        epsilon = self.epsilon * mean_cost(total, a, b)
        loss = (_masked_plan(total, a, b, matches, self.plan, epsilon, self.iterations) * between).sum()
        if self.debias and self.plan == "entropic":
            for distance, known, mass, rows in ((within_s, known_s, a, i), (within_t, known_t, b, j)):
                pairs = torch.stack([rows, rows], dim=1)
                own = _masked_plan(
                    mixed(distance, known, known), mass, mass, pairs, self.plan, epsilon, self.iterations
                )
                loss = loss - 0.5 * (own * distance).sum()
        return loss


def _pairs(n: int, m: int, matches: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pairs, checked."""
    if matches.ndim != 2 or matches.shape[1] != 2 or (len(matches) and matches.is_floating_point()):
        raise SbiDaError(f"matches are integer row pairs of shape (k, 2), got {matches.dtype} {tuple(matches.shape)}")
    for rows, size, side in ((matches[:, 0], n, "simulated"), (matches[:, 1], m, "real")):
        if len(rows) and not (0 <= rows.min() and rows.max() < size):
            raise SbiDaError(f"matches name {side} row {int(rows.min())} to {int(rows.max())}, there are {size} rows")
        if len(rows.unique()) < len(rows):
            raise SbiDaError(f"matches name a {side} row twice: keep one pair per row")
    return matches[:, 0].long(), matches[:, 1].long()


def _one_to_one(matches: Tensor) -> Tensor:
    """The pairs without those that repeat a row of an earlier one."""
    left: set[int] = set()
    right: set[int] = set()
    keep = []
    for place, (i, j) in enumerate(matches.tolist()):
        if i not in left and j not in right:
            left.add(i)
            right.add(j)
            keep.append(place)
    return matches[keep]


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1)  # many times as fast as torch.special.entr


def _scaled(cost: Tensor) -> Tensor:
    return cost.detach() / cost.detach().max().clamp_min(torch.finfo(cost.dtype).tiny)


def _guided(
    within_simulated: Tensor, within_real: Tensor, matches: Tensor, a: Tensor | None, b: Tensor | None, tau: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Masses of either side, and the guiding cost."""
    a, b = keypoint_masses(normalised(a, within_simulated), normalised(b, within_real), matches)
    related = [relations(c.detach(), i, tau) for c, i in zip((within_simulated, within_real), matches.T, strict=True)]
    return a, b, guiding_cost(*related)


def _masked_plan(
    cost: Tensor, a: Tensor, b: Tensor, matches: Tensor, plan: Solver, epsilon: float, iterations: int = 1000
) -> Tensor:
    mask = keypoint_mask(len(a), len(b), matches)
    return exact_plan(cost, a, b, mask) if plan == "exact" else entropic_plan(cost, a, b, epsilon, iterations, mask=mask)

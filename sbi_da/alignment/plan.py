r"""Transport plans between two weighted sets: entropic, balanced or not, masked or not; partial; exact.

The entropic plan of the costs :math:`C` and masses :math:`a, b` (Cuturi 2013, arXiv:1306.0895; Chizat et al. 2018,
arXiv:1607.05816) is

.. math:: P = \arg\min_{P \ge 0} \langle P, C \rangle + \epsilon\, \mathrm{KL}(P \,|\, a b^T)
          + \rho_a \mathrm{KL}(P 1 \,|\, a) + \rho_b \mathrm{KL}(P^T 1 \,|\, b),

where an infinite :math:`\rho` makes a marginal exact. Its potentials follow, in the logarithm, from
:math:`f_i = -\tau_a \epsilon \log \sum_j b_j e^{(g_j - C_{ij})/\epsilon}`, :math:`\tau_a = \rho_a / (\rho_a + \epsilon)`,
and likewise :math:`g`. ε starts at the largest cost and falls to its value in steps (Schmitzer 2019, arXiv:1610.06519). At first
both are averaged with their updates, which between clouds alike converges in a few iterations (Feydy et al. 2019,
arXiv:1810.08278) where taking turns needs hundreds; then they take turns, which is better between clouds apart.
Exact marginals are restored at the end by scaling down and filling up (Altschuler et al. 2017, arXiv:1705.09634), so that
no mass is lost however few the iterations or large the costs. Plans carry no gradient.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from types import ModuleType

import torch
from torch import Tensor

from sbi_da.errors import SbiDaError

__all__ = ["entropic_plan", "exact_plan", "partial_plan"]

STEP, STAGE, ROUGHER = 4.0, 10, 10.0
"""On the way to ε: from one to the next, most iterations at each, and how much rougher they may end."""
AVERAGED = 12
"""Iterations, at most, that average; the rest take turns."""


@torch.no_grad()
def entropic_plan(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    iterations: int = 1000,
    tolerance: float = 1e-3,
    rho_a: float | None = None,
    rho_b: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The entropic plan.

    Args:
        cost: shape ``(n, m)``.
        a: masses of the rows, shape ``(n,)``; may hold zeros.
        b: masses of the columns, shape ``(m,)``.
        epsilon: blur, in the units of the cost; raised to what the precision of ``cost`` resolves where it is below.
        iterations: most iterations at the final epsilon.
        tolerance: on the relative error of the marginals (of the potentials in units of epsilon where they are soft).
        rho_a: strength of the row marginal, in the units of the cost; None: exact.
        rho_b: the same of the columns.
        mask: True where mass may go, shape ``(n, m)``.

    Returns:
        The plan, shape ``(n, m)``. With both marginals exact it carries the lesser of the two masses, after leaving out
        rows and columns that have no open cell. With one exact, that one holds. Where a mask admits no plan with both
        marginals, the rows hold.

    Raises:
        SbiDaError: sizes that do not fit, strengths that are not positive, costs that are not finite.
    """
    if not all(value is None or value > 0 for value in (epsilon, rho_a, rho_b)):
        raise SbiDaError(f"an entropic plan needs positive epsilon, rho_a, rho_b, got {epsilon}, {rho_a}, {rho_b}")
    if rho_b is None and rho_a is not None:
        return entropic_plan(
            cost.T, b, a, epsilon, iterations, tolerance, None, rho_a, None if mask is None else mask.T
        ).T
    cost, a, b, opened = _prepared(cost, a, b, mask)
    if not opened.any():
        return torch.zeros_like(cost)
    balanced = rho_a is None and rho_b is None
    if balanced:
        common = torch.minimum(a.sum(), b.sum())
        a, b = a * (common / a.sum()), b * (common / b.sum())
    if rho_a is None:
        cost = cost - cost[opened].min()
    largest = cost[opened].abs().max().item()
    epsilon = max(float(epsilon), 16 * torch.finfo(cost.dtype).eps * largest, torch.finfo(cost.dtype).tiny)
    stages = math.ceil(math.log(largest / epsilon, STEP)) if largest > epsilon else 0
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    for stage in range(stages, -1, -1):
        blur = epsilon * STEP**stage
        kernel = (-cost / blur).masked_fill(~opened, -torch.inf)
        soft = [1.0 if rho is None else rho / (rho + blur) for rho in (rho_a, rho_b)]
        most, near = (STAGE, ROUGHER * tolerance) if stage else (max(1, iterations), tolerance)
        f, g = _potentials(kernel, f / blur, g / blur, a, b, soft, most, near)
        f, g = blur * f, blur * g
    plan = (kernel + (f / blur + a.log())[:, None] + (g / blur + b.log())).exp()
    if balanced:
        plan = _filled(plan, a, b, opened)
    return _rows(plan, a) if rho_a is None else plan


def exact_plan(cost: Tensor, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """The plan of least cost, by the network simplex of POT (``ot.emd``) on the CPU.

    Args:
        cost: shape ``(n, m)``.
        a: masses of the rows, shape ``(n,)``.
        b: masses of the columns, shape ``(m,)``; scaled to the lesser mass if the sums differ.
        mask: True where mass may go; closed cells cost more than any way round them, and what would have to go through
            one all the same stays behind.

    Returns:
        The plan, shape ``(n, m)``.

    Raises:
        SbiDaError: sizes that do not fit, costs that are not finite.
    """
    cost, a, b, opened = _prepared(cost, a, b, mask)
    if not opened.any():
        return torch.zeros_like(cost)
    unit = _unit(cost, opened).masked_fill(~opened, 2.0 * (len(a) + len(b)))
    rows, columns = a.double() / a.double().sum(), b.double() / b.double().sum()
    plan = _pot().emd(rows.cpu().numpy(), columns.cpu().numpy(), unit.cpu().numpy(), numItermax=1_000_000)
    return torch.minimum(a.sum(), b.sum()) * torch.from_numpy(plan).to(cost) * opened


def partial_plan(cost: Tensor, a: Tensor, b: Tensor, mass: float) -> Tensor:
    """The plan of least cost that moves a part of the mass only (Chapel et al. 2020, arXiv:2002.08276), by POT.

    Args:
        cost: shape ``(n, m)``.
        a: masses of the rows, shape ``(n,)``.
        b: masses of the columns, shape ``(m,)``.
        mass: fraction of the lesser mass to move, in (0, 1].

    Returns:
        The plan, shape ``(n, m)``; its marginals are nowhere above ``a`` and ``b``.

    Raises:
        SbiDaError: a fraction outside (0, 1], sizes that do not fit, costs that are not finite.
    """
    if not 0 < mass <= 1:
        raise SbiDaError(f"a partial plan moves a fraction of the mass in (0, 1], got {mass}")
    if mass == 1:
        return exact_plan(cost, a, b)
    cost, a, b, opened = _prepared(cost, a, b, None)
    if not opened.any():
        return torch.zeros_like(cost)
    common = torch.minimum(a.sum(), b.sum()).double()
    # The constant leaves the plan alone; without it POT, which weighs idleness by the largest cost, may move too little.
    plan = _pot().partial.partial_wasserstein(
        (a.double() / common).cpu().numpy(), (b.double() / common).cpu().numpy(),
        1.0 + _unit(cost, opened).cpu().numpy(), m=mass, numItermax=1_000_000,
    )
    return common.to(cost) * torch.from_numpy(plan).to(cost)


def _pot() -> ModuleType:
    """POT, imported where it is used: it takes seconds."""
    try:
        return importlib.import_module("ot")
    except ImportError as error:
        raise SbiDaError("exact and partial transport plans need POT: pip install POT") from error


def _prepared(cost: Tensor, a: Tensor, b: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Detached costs of at least single precision, masses of rows and columns that can send any, open cells."""
    if cost.shape != (len(a), len(b)) or (mask is not None and mask.shape != cost.shape):
        shapes = f"cost {tuple(cost.shape)}, masses {len(a)} and {len(b)}"
        raise SbiDaError(f"a plan's cost and mask have a row per mass a and a column per mass b, got {shapes}")
    cost = cost.detach().to(torch.promote_types(cost.dtype, torch.float32))
    a, b = a.detach().to(cost), b.detach().to(cost)
    opened = (a > 0)[:, None] & (b > 0)
    if mask is not None:
        opened = opened & mask
    if not cost[opened].isfinite().all():
        raise SbiDaError("a transport cost is not finite: look for NaN or infinite features or log-densities")
    return cost, a * opened.any(1), b * opened.any(0), opened


def _potentials(
    kernel: Tensor, f: Tensor, g: Tensor, a: Tensor, b: Tensor, soft: Sequence[float], most: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Potentials in units of the blur, from a start; ``soft`` are the τ. Those of rows and columns without mass are zero."""
    log_a, log_b, live_a, live_b = a.log(), b.log(), a > 0, b > 0

    def of_rows(g: Tensor) -> Tensor:
        return torch.where(live_a, -soft[0] * (kernel + (g + log_b)).logsumexp(1), 0.0)

    def of_columns(f: Tensor) -> Tensor:
        return torch.where(live_b, -soft[1] * (kernel + (f + log_a)[:, None]).logsumexp(0), 0.0)

    done = 0
    while done < most:
        rows, columns = of_rows(g), of_columns(f)
        change = torch.maximum((rows - f).abs().max(), (columns - g).abs().max())
        f, g = (0.5 * (f + rows), 0.5 * (g + columns)) if done < AVERAGED else (of_rows(columns), columns)
        done += 1
        if done == most or change < tolerance:
            break
        f, g, swept, converged = _swept(kernel, f, g, a, b, soft, range(done, most), tolerance)
        if converged:
            break
        done += swept
    return f, g


def _swept(
    kernel: Tensor, f: Tensor, g: Tensor, a: Tensor, b: Tensor, soft: Sequence[float], iterations: range, tolerance: float
) -> tuple[Tensor, Tensor, int, bool]:
    r"""Potentials after as many iterations outside the logarithm as their change allows, how many these were, whether they converged.

    The density of the plan, :math:`e^{(f_i + g_j - C_{ij}) / \epsilon}`, is formed once, and an iteration is two products with it
    (Schmitzer 2019). Cells below the square root of the least number stay out: no change within bounds makes them count.
    """
    least = 0.5 * math.log(torch.finfo(kernel.dtype).tiny)
    bound = math.exp(-0.25 * least)
    live_a, live_b = a > 0, b > 0
    density = kernel + f[:, None] + g
    density = torch.where(density > least, density, -torch.inf).exp()
    density = torch.where(live_a[:, None] & live_b, density, 1.0)  # those without mass: of no weight, and of no infinite potential
    of_rows = _scaling(density * b, f, soft[0])
    of_columns = _scaling((density * a[:, None]).T.contiguous(), g, soft[1])
    u, v = torch.ones_like(f), torch.ones_like(g)
    swept, converged = 0, True
    for done in iterations:
        if done < AVERAGED:
            next_u, next_v = (u * of_rows(v)).sqrt(), (v * of_columns(u)).sqrt()
        else:
            next_v = of_columns(u)
            next_u = of_rows(next_v)
        low, high = torch.cat([next_u, next_v]).aminmax()
        if not (low > 1 / bound and high < bound):
            converged = False
            break
        change = torch.cat([next_u / u, next_v / v]).log().abs().max()
        u, v, swept = next_u, next_v, swept + 1
        if change < tolerance * (0.5 if done < AVERAGED else 1.0):
            break
    return torch.where(live_a, f + u.log(), 0.0), torch.where(live_b, g + v.log(), 0.0), swept, converged


def _scaling(density: Tensor, potential: Tensor, soft: float) -> Callable[[Tensor], Tensor]:
    """What the factors of the other side make of the factors of this one."""
    if soft == 1.0:
        return lambda other: (density @ other).reciprocal()
    own = (-(1.0 - soft) * potential).exp()
    return lambda other: own * (density @ other).pow(-soft)


def _rows(plan: Tensor, a: Tensor) -> Tensor:
    """The plan with its rows scaled to their masses."""
    return plan * (a / plan.sum(1).clamp_min(torch.finfo(plan.dtype).tiny))[:, None]


def _filled(plan: Tensor, a: Tensor, b: Tensor, opened: Tensor) -> Tensor:
    """Rows and columns scaled down where they carry too much, then what is missing spread over the open cells."""
    tiny = torch.finfo(plan.dtype).tiny
    plan = plan * (a / plan.sum(1).clamp_min(tiny)).clamp_max(1.0)[:, None]
    plan = plan * (b / plan.sum(0).clamp_min(tiny)).clamp_max(1.0)
    rows, columns = (a - plan.sum(1)).clamp_min(0.0), (b - plan.sum(0)).clamp_min(0.0)
    return plan + rows[:, None] * (columns / columns.sum().clamp_min(tiny)) * opened


def _unit(cost: Tensor, opened: Tensor) -> Tensor:
    """Costs moved and scaled so that those of open cells lie in [0, 1], in double precision."""
    values = cost[opened].double()
    spread = values.max() - values.min()
    return (cost.double() - values.min()) / spread.clamp_min(torch.finfo(torch.float64).tiny)

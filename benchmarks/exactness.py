r"""How far the network is from the exact posterior, and how far that is from the labels.

``python -m benchmarks.exactness RUN TABLE [--stars 300]`` computes exact posteriors of real stars under the simulator and the field
prior by population Monte Carlo (Cappe et al. 2004, J. Comput. Graph. Stat. 13, 907): the network's draws come first, mixtures of
Student kernels about the best ones propose again, weighted with the likelihood that the survey cards define. What stays
random in the simulator has to be left out for that: the exact posteriors are those of single stars without discs; calibration
jitter is added to the variances. Printed are, by quantity, the half 16-84 % range of the network over the exact one and the robust
scatter of the difference of medians, which need no labels; then bias and scatter of both against the labels of the
same stars. The exact ones are what this simulator can reach with these surveys. Stars whose exact posterior has an effective
sample size below 30 are counted and left out of the first two figures.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import gammaln, log_ndtr, logsumexp
from scipy.stats import bootstrap, median_abs_deviation, norm

from benchmarks.real_stars import FIELD, SURVEYS, labelled_stars
from benchmarks.result import table, write
from sbi_da.estimator import Estimator
from sbi_da.records import ABSENT, OBSERVED, Records
from sbi_da.simulators import Sky, get_simulator

QUANTITIES = ("teff", "logg", "feh", "av", "distance")
DRAWS, ROUNDS, KERNELS, DEGREES, LEAST = 6000, 7, 300, 5.0, 30
QUOTED = 0.005
"""Magnitude errors at or above this [mag] have a systematic part in them (as in ``sbi_da.simulation.observe``)."""


def log_likelihood(sky: Sky, estimator: Estimator, star: Records, jitter: float) -> np.ndarray:
    """Of one star, for each parameter vector of ``sky``."""
    total: Any = 0.0
    for survey in estimator.layout.surveys:
        if survey.name not in SURVEYS or survey.name not in star.surveys:
            continue
        m = star.survey(survey.name)
        for k, channel in enumerate(survey.channels):
            state, value, error = int(m.state[0, k]), m.value[0, k], m.error[0, k]
            if state == ABSENT:
                continue
            magnitude = channel.kind == "magnitude"
            whole = max(error, channel.noise.floor) if magnitude and error >= QUOTED else np.hypot(error, channel.noise.floor)
            sd = np.hypot(whole, jitter if magnitude else 0.0)
            signal = sky.signal(channel)
            total = total + (norm.logpdf(value, signal, sd) if state == OBSERVED else log_ndtr((signal - value) / sd))
    return np.asarray(total)


def kernels(z: np.ndarray, log_weight: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the next proposal and the Cholesky factor of its kernels' covariance."""
    weight = np.exp(log_weight - logsumexp(log_weight))
    tempered = weight ** min(1.0, np.log(20.0) / max(1e-9, np.log(weight.max() * len(weight))))
    tempered /= tempered.sum()
    centres = z[rng.choice(len(z), KERNELS, p=tempered)]
    spread = z - tempered @ z
    covariance = (spread * tempered[:, None]).T @ spread
    return centres, np.linalg.cholesky(0.15 * covariance + 1e-8 * np.eye(z.shape[1]))


def log_mixture(z: np.ndarray, centres: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Log-density of the mixture of Student kernels."""
    size = z.shape[1]
    inverse = np.linalg.inv(root).T
    a, b = z @ inverse, centres @ inverse
    square = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0)
    constant = gammaln((DEGREES + size) / 2) - gammaln(DEGREES / 2) - size / 2 * np.log(DEGREES * np.pi)
    log_kernel = constant - np.log(np.diag(root)).sum() - (DEGREES + size) / 2 * np.log1p(square / DEGREES)
    return np.asarray(logsumexp(log_kernel, axis=1)) - np.log(len(centres))


def exact(
    simulator: Any, estimator: Estimator, star: Records, start: np.ndarray, jitter: float, seed: int
) -> tuple[np.ndarray, float]:
    """16, 50 and 84 % quantiles of each quantity, shape ``(quantity, 3)``, and the effective sample size."""
    rng = np.random.default_rng(seed)
    prior = simulator.prior

    def log_joint(z: np.ndarray) -> np.ndarray:
        inside = np.abs(z).max(1) < 7.5
        sky = simulator.at(prior.from_normal(np.where(inside[:, None], z, 0.0)), rng)
        return np.where(inside, log_likelihood(sky, estimator, star, jitter) + norm.logpdf(z).sum(1), -np.inf)

    z = np.clip(start, -7, 7)
    log_weight = log_joint(z)
    for _ in range(ROUNDS):
        centres, root = kernels(z, log_weight, rng)
        student = rng.standard_normal((DRAWS, z.shape[1])) / np.sqrt(rng.chisquare(DEGREES, (DRAWS, 1)) / DEGREES)
        z = centres[rng.integers(KERNELS, size=DRAWS)] + student @ root.T
        log_weight = log_joint(z) - log_mixture(z, centres, root)
    weight = np.exp(log_weight - logsumexp(log_weight))
    theta = prior.from_normal(z)
    values = {**theta, **simulator.derive(theta)}
    found = [np.quantile(values[q], (0.16, 0.5, 0.84), weights=weight, method="inverted_cdf") for q in QUANTITIES]
    return np.array(found), float(1 / (weight**2).sum())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--stars", type=int, default=300)
    arguments = parser.parse_args()
    estimator = Estimator.load(arguments.run)
    assert estimator.simulator is not None
    options = estimator.simulator.options
    shaken: Any = get_simulator(estimator.simulator.name, **options)
    laws = {**options.get("prior", {}), **FIELD}
    single = {**options, "prior": laws, "companion_fraction": 0.0, "disc": False, "zero_point_jitter": 0.0}
    simulator: Any = get_simulator(estimator.simulator.name, **single)
    stars = labelled_stars(estimator, arguments.table)
    stars = stars.isel(np.sort(np.random.default_rng(5).permutation(len(stars))[: arguments.stars])).select(SURVEYS)
    posterior = estimator(stars)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        drawn = posterior.under(**FIELD).marginal(QUANTITIES).sample(400)
    network = np.stack([np.quantile(drawn[q], (0.16, 0.5, 0.84), axis=1).T for q in QUANTITIES], 1)
    own = posterior.normal_scores(DRAWS)
    reference, size = np.empty_like(network), np.empty(len(stars))
    for k in range(len(stars)):
        scores = simulator.prior.to_normal(estimator.density[0].from_normal(own[k].astype(float)))
        start = np.where(np.isfinite(scores), scores, 0.0)
        reference[k], size[k] = exact(simulator, estimator, stars.isel(slice(k, k + 1)), start, shaken.zero_point_jitter, k)
    report(estimator, stars, network, reference, size)


def report(estimator: Estimator, stars: Records, network: np.ndarray, reference: np.ndarray, size: np.ndarray) -> None:
    """Print the figures and write them."""
    good = size >= LEAST
    print(f"{(~good).sum()} of {len(stars)} stars: effective sample size of the exact posterior below {LEAST}")
    figures: dict[str, Any] = {"left_out": int((~good).sum()), "median_effective_sample_size": float(np.median(size))}
    rows, shown = [], []
    for i, name in enumerate(QUANTITIES):
        half = [(q[good, i, 2] - q[good, i, 0]) / 2 for q in (network, reference)]
        figures[f"width_ratio_{name}"] = interval(half[0] / half[1], np.median)
        figures[f"difference_{name}"] = interval((network - reference)[good, i, 1], robust_scatter)
        row: dict[str, Any] = {"quantity": name}
        row |= {"exact_half_width": float(np.median(half[1])), "network_half_width": float(np.median(half[0]))}
        rows.append(row)
        widths = (f"{row[k]:.3g}" for k in ("exact_half_width", "network_half_width"))
        shown.append([name, *widths, *(cell(figures[f"{f}_{name}"]) for f in ("width_ratio", "difference"))])
    print(table(["quantity", "exact", "network", "ratio", "scatter of the difference"], shown))
    truth = stars.parameters["teff"]
    for name, medians in (("exact", reference), ("network", network)):
        error = medians[:, 0, 1] - truth
        figures[f"teff_bias_{name}"], figures[f"teff_scatter_{name}"] = interval(error, np.median), interval(error, robust_scatter)
        print(f"Teff against labels, {name}: bias {cell(figures[f'teff_bias_{name}'])}, scatter {cell(figures[f'teff_scatter_{name}'])} K")
    print(write("exactness", rows, figures, [estimator.metadata["config"]["seed"]], stars=len(stars)))


def interval(x: np.ndarray, statistic: Callable[..., Any]) -> dict[str, float]:
    """A statistic with its 95 % percentile bootstrap interval."""
    resampled = bootstrap((x,), statistic, n_resamples=1000, method="percentile", rng=np.random.default_rng(0))
    low, high = resampled.confidence_interval
    return {"value": float(statistic(x)), "low": float(low), "high": float(high)}


def robust_scatter(x: np.ndarray, axis: int = -1) -> Any:
    """1.48 median absolute deviations."""
    return median_abs_deviation(x, axis=axis, scale="normal")


def cell(figure: dict[str, float]) -> str:
    """A figure with its interval."""
    return f"{figure['value']:.3g} ({figure['low']:.3g} to {figure['high']:.3g})"


if __name__ == "__main__":
    main()

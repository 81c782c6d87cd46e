"""Heads against exact answers, on the linear-Gaussian toy.

``python -m benchmarks.heads --runs DIR [--heads spline,flow_matching,mixture,few_step] [--seeds 0]`` trains config ``toy`` with every head;
``few_step`` is distilled from flow matching. Under each of the 16 patterns of missing modalities: by how many nats the log-density of the
true parameters falls short of the exact one, and C2ST of draws. Of heads that answer questions also the same of two parameters given the
third, of one parameter alone, and what is drawn of a modality that was not measured, against its exact predictive law.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import figure, named, table, write
from sbi_da.config import load_config
from sbi_da.diagnostics import c2st_many
from sbi_da.distillation import Distillation, distil
from sbi_da.estimator import Estimator
from sbi_da.posteriors import Posterior
from sbi_da.records import Records
from sbi_da.runs import build, sources_of, train
from sbi_da.simulation import simulate

HEADS = ("spline", "flow_matching", "mixture", "few_step")
OBJECTS, DRAWS, PREDICTED = 1600, 4000, "modality_d"
MATCHED = [
    "network.matching.questions=channels", "network.matching.gaussian=linear", "network.matching.width=48", "network.matching.steps=8",
    "training.averaging=0.998", "training.epochs=6",
]


def log_normal(away: np.ndarray, covariance: np.ndarray) -> float:
    """Log-density of a normal law, ``away`` from its mean."""
    return float(-0.5 * away @ np.linalg.solve(covariance, away) - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1])


class Judge:
    """Objects with exact posteriors under every pattern.

    Args:
        seed: of the objects.
    """

    def __init__(self, seed: int) -> None:
        simulator, surveys, _ = build(load_config("toy"))
        built: Any = simulator
        self.simulator = built
        self.names, self.seed = list(built.prior.names), seed
        self.records = simulate(built, surveys, OBJECTS, 1000 + seed)
        self.truth = np.stack([self.records.parameters[n] for n in self.names], -1)
        self.patterns = list(self.simulator.patterns())

    def of(self, estimator: Estimator) -> dict[str, float]:
        """Figures of one estimator."""
        asked = estimator.network.head in ("flow_matching", "mixture")
        joint: list[float] = []
        given: list[float] = []
        alone: list[float] = []
        reference, own = [], []
        for k, shown in enumerate(self.patterns):
            rows = np.arange(k, OBJECTS, len(self.patterns))
            some, truth = self._shown(rows, shown), self.truth[rows]
            laws = [self.exact(int(row), shown) for row in rows]
            posterior: Posterior = estimator(some)
            one = estimator(some.isel(slice(0, 1))).sample(DRAWS, self.seed)
            own.append(np.stack([one[n].values[0] for n in self.names], -1))
            reference.append(np.random.default_rng(self.seed + k).multivariate_normal(*laws[0], DRAWS))
            if estimator.network.head == "few_step":
                continue
            theta = {n: truth[:, i] for i, n in enumerate(self.names)}
            right = [log_normal(t - mean, c) for t, (mean, c) in zip(truth, laws, strict=True)]
            joint += list(right - posterior.log_prob(theta).values)
            if not asked:
                continue
            first, *rest = self.names
            conditional = posterior.given(**{first: truth[:, 0]}).log_prob({n: theta[n] for n in rest}).values
            single = [log_normal(t[:1] - mean[:1], c[:1, :1]) for t, (mean, c) in zip(truth, laws, strict=True)]
            given += list(np.array(right) - np.array(single) - conditional)
            alone += list(single - posterior.marginal([first]).log_prob({first: theta[first]}).values)
        accuracy, _ = c2st_many(reference, own, seed=self.seed)
        found = {"c2st": float(accuracy.mean()), "c2st_worst_pattern": float(accuracy.max())}
        found |= {k: float(np.mean(v)) for k, v in (("nats", joint), ("nats_given_one", given), ("nats_of_one", alone)) if v}
        return found | (self.predicted(estimator) if estimator(self.records.isel(slice(0, 1))).predicted else {})

    def predicted(self, estimator: Estimator) -> dict[str, float]:
        """How the draws of a modality compare with its exact predictive law: shift in its widths, and ratio of widths."""
        shown = tuple(n for n in self.simulator.matrices if n != PREDICTED)
        rows = np.arange(200)
        names = [f"{PREDICTED}.{channel.name}" for s in estimator.layout.surveys if s.name == PREDICTED for channel in s.channels]
        drawn = estimator(self._shown(rows, shown)).marginal(names).sample(1000, self.seed)
        matrix, noise = self.simulator.matrices[PREDICTED], self.simulator.noise
        shifts, ratios = [], []
        for row in rows:
            mean, covariance = self.exact(int(row), shown)
            centre, width = matrix @ mean, np.sqrt(np.diag(matrix @ covariance @ matrix.T) + noise**2)
            own = np.stack([drawn[n].values[row] for n in names], -1)
            shifts.append((own.mean(0) - centre) / width)
            ratios.append(own.std(0) / width)
        return {"predicted_shift": float(np.sqrt(np.mean(np.square(shifts)))), "predicted_width": float(np.mean(ratios))}

    def _shown(self, rows: np.ndarray, shown: tuple[str, ...]) -> Records:
        some = self.records.isel(rows)
        return some.with_measurements({
            name: some.survey(name).where(np.full((len(rows), 2), name in shown)) for name in self.simulator.matrices
        })

    def exact(self, row: int, shown: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the posterior of one object."""
        seen = {name: self.records.survey(name).value[row] for name in shown}
        mean, covariance = self.simulator.exact_posterior(seen)
        return np.asarray(mean), np.asarray(covariance)


def trained(head: str, seed: int, runs: Path) -> Estimator:
    """An estimator, or the one that is kept of an earlier run."""
    if head != "few_step":
        more = MATCHED if head == "flow_matching" else []
        return train(load_config("toy", [f"seed={seed}", f"network.head={head}", *more]), runs / f"{head}_{seed}", progress=False)
    place = runs / f"few_step_{seed}"
    if not place.is_dir():
        teacher = trained("flow_matching", seed, runs)
        distil(teacher, sources_of(teacher), Distillation(objects=50_000, steps=2000), seed=seed).save(place)
    return Estimator.load(place)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--heads", default="all")
    parser.add_argument("--seeds", default="0")
    arguments = parser.parse_args()
    seeds = [int(s) for s in arguments.seeds.split(",")]
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        judge = Judge(seed)
        for head in named(parser, arguments.heads, HEADS):
            rows.append({"head": head, "seed": seed, **judge.of(trained(head, seed, arguments.runs))})
            print(rows[-1], flush=True)
    keys = list(dict.fromkeys(k for row in rows for k in row if k not in ("head", "seed")))
    values = {(r["head"], k): [float(s[k]) for s in rows if s["head"] == r["head"]] for r in rows for k in keys if k in r}
    heads = list(dict.fromkeys(str(r["head"]) for r in rows))
    print(table(["head", *keys], [[h, *(float(np.mean(values[h, k])) if (h, k) in values else "" for k in keys)] for h in heads]))
    print(write("heads", rows, {f"{k}_{h}": figure(v) for (h, k), v in values.items()}, seeds))


if __name__ == "__main__":
    main()

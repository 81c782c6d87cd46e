"""Real stars with spectroscopic labels: bias, scatter and coverage for every subset of four surveys.

``python -m benchmarks.real_stars RUN TABLE`` reads a table such as that of Green et al. 2020 (columns ``label_teff``,
``label_logg``, ``label_feh`` and ``label_cov_*``), infers it with each subset of {gaia, panstarrs, twomass, wise}, and compares
with the labels of stars of 4000-7000 K: under the training prior, and under one for field stars (constant star formation)
by reweighting the draws. Subsets other than the full set are judged on 1,000 stars drawn at random. Labels are
read after the posteriors are drawn and train, stop and choose nothing. Coverage counts central intervals of the posterior
convolved with the label's error. Intervals are 95 % bootstrap over stars; ``low_ess`` is the share of stars whose effective
sample size under the prior is below half the draws.

``--labelled 200 --clusters TABLE`` aligns the run with 200 of the labelled stars first and judges before and after on all others, and on
the ages of open clusters (``benchmarks/clusters.py``), which are also dated after alignment with 200 members of other clusters
(``calibrated``); in ``results/real_stars_aligned.json``.
"""

import argparse
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.clusters import bias_and_scatter, calibrated_ages, cluster_ages
from benchmarks.result import table, write
from sbi_da.alignment_config import AlignmentConfig
from sbi_da.alignment_run import align
from sbi_da.config import read_mapping
from sbi_da.diagnostics import coverage_error, point_errors
from sbi_da.estimator import Estimator
from sbi_da.inference import read_objects
from sbi_da.labels import label_log_score
from sbi_da.records import Records

SURVEYS = ("gaia", "panstarrs", "twomass", "wise")
LABELS = ("teff", "logg", "feh")
TEFF_RANGE = (4000.0, 7000.0)
DRAWS = 100
SUBSAMPLE = 1000
FIELD = read_mapping(Path(__file__).parents[1] / "examples" / "field_prior.yaml")
SHOWN = ("bias", "scatter", "coverage_68", "coverage_90")
STEPS = AlignmentConfig(epochs=3, learning_rate=5e-4, population="labels", deploy=True)
"""A long-trained network is moved gently; the labelled stars also give the population, which becomes the prior."""
CLUSTER_STEPS = STEPS.model_copy(update={"population": "same", "deploy": False})
"""Young clusters are not of the population of field stars."""
PRIORS: dict[str, dict[str, Any]] = {"training": {}, "field": FIELD}


def draw(estimator: Estimator, stars: Records, prior: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the labelled quantities under a prior, ``(star, draw, label)``, and effective sample sizes ``(star,)``."""
    pieces, sizes = [], []
    for start in range(0, len(stars), 1000):
        posterior = estimator(stars.isel(slice(start, start + 1000)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # low effective sample sizes, which are counted below
            sample = (posterior.under(**prior) if prior else posterior).marginal(LABELS).sample(DRAWS)
        pieces.append(np.stack([sample[name].values for name in LABELS], -1))
        sizes.append(sample["effective_sample_size"].values if prior else np.full(len(posterior), float(DRAWS)))
    return np.concatenate(pieces), np.concatenate(sizes)


def labelled_stars(estimator: Estimator, path: Path) -> Records:
    """Stars of a table whose Teff label lies in the range."""
    columns = {k: (f"label_{k}", f"label_{k}_error") for k in LABELS}
    stars = read_objects(estimator, with_label_errors(path), parameters=columns)
    teff = stars.parameters["teff"]
    return stars.isel((teff >= TEFF_RANGE[0]) & (teff <= TEFF_RANGE[1]))


def labels(stars: Records) -> tuple[np.ndarray, np.ndarray]:
    """Labels and their errors, each of shape ``(star, label)``."""
    known = stars.parameters
    return np.stack([known[n] for n in LABELS], 1), np.stack([known[f"{n}_error"] for n in LABELS], 1)


def run(estimator: Estimator, stars: Records) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """One row per prior, subset and parameter, and by prior the draws with all surveys; ``stars`` are in the Teff range."""
    few = stars.isel(np.sort(np.random.default_rng(0).permutation(len(stars))[:SUBSAMPLE]))
    rows: list[dict[str, Any]] = []
    kept: dict[str, np.ndarray] = {}
    for prior, laws in PRIORS.items():
        for size in range(len(SURVEYS), 0, -1):
            for subset in combinations(SURVEYS, size):
                seen = (stars if size == len(SURVEYS) else few).select(subset)
                drawn, sizes = draw(estimator, seen, laws)
                kept.setdefault(prior, drawn)
                some = (seen.pattern() != "none") & (sizes > 0)
                truth, errors = labels(seen)
                found = point_errors(drawn[some].astype(float), truth[some], LABELS, errors[some])
                few_effective = float((sizes[some] < DRAWS / 2).mean())
                rows += [
                    {"prior": prior, "surveys": "+".join(subset), "parameter": name, "low_ess": few_effective, **found[name]}
                    for name in LABELS
                ]
    return rows, kept


def split(stars: Records, count: int) -> tuple[Records, Records]:
    """Stars to learn from and stars to judge by."""
    order = np.random.default_rng(0).permutation(len(stars))
    return stars.isel(np.sort(order[:count])), stars.isel(np.sort(order[count:]))


def judge(estimator: Estimator, stars: Records, tail: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows by label, and figures whose names end in ``tail``."""
    truth, errors = labels(stars)
    drawn = draw(estimator, stars, {})[0]
    each = point_errors(drawn.astype(float), truth, LABELS, errors)
    error = coverage_error(drawn + errors[:, None] * np.random.default_rng(1).standard_normal(drawn.shape), truth)
    score = label_log_score(estimator, stars.isel(slice(0, 1000)))
    spread = 1.96 * score.std() / np.sqrt(len(score))
    figures: dict[str, Any] = {f"{n}_{s}_{tail}": each[n][s] for n in LABELS for s in SHOWN}
    figures[f"coverage_error_{tail}"] = {k: float(error[k]) for k in ("value", "low", "high")}
    figures[f"label_nll_{tail}"] = {
        "value": float(-score.mean()), "low": float(-score.mean() - spread), "high": float(-score.mean() + spread)
    }
    return [{"estimator": tail, "parameter": n, **each[n]} for n in LABELS], figures


def aligned_figures(estimator: Estimator, stars: Records, count: int, clusters: Path | None) -> None:
    """Align with some of the stars, judge before and after on the others, and write both."""
    taught, judged = split(stars, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the gate's verdict, which is printed
        found = align(estimator, taught, config=STEPS, threads=torch.get_num_threads())
    print(found.verdict.reason)
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    for tail, which in (("none", estimator), ("adapted", found.candidate)):
        more, its = judge(which, judged, tail)
        rows, figures = rows + more, figures | its
    if clusters:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            plain = align(estimator, taught, config=CLUSTER_STEPS, threads=torch.get_num_threads())
        calibrated, reasons = calibrated_ages(estimator, clusters, count, threads=torch.get_num_threads())
        print("\n".join(reasons))
        for tail, of in (
            ("none", cluster_ages(estimator, clusters)), ("adapted", cluster_ages(plain.candidate, clusters)), ("calibrated", calibrated)
        ):
            rows += [{"estimator": tail, **row} for row in of]
            for by, name in (("hierarchical", "cluster_age"), ("product", "cluster_age_product")):
                figures |= {f"{name}_{k}_{tail}": v for k, v in bias_and_scatter(of, by).items()}
    for name, value in figures.items():
        print(f"{name:<28} {value['value']:+.4g} ({value['low']:+.4g} to {value['high']:+.4g})")
    kept = {"verdict": found.verdict.to_dict(), "labelled": count}
    print(write("real_stars_aligned", rows, figures, [estimator.metadata["config"]["seed"]], **kept))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--labelled", type=int, default=0, help="align with so many labelled stars and judge both on the others")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clusters", type=Path, help="table of cluster members with published ages")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    estimator = Estimator.load(arguments.run)
    stars = labelled_stars(estimator, arguments.table)
    if arguments.labelled:
        aligned_figures(estimator, stars, arguments.labelled, arguments.clusters)
        return
    rows, drawn = run(estimator, stars)
    shown = [
        [r["prior"], r["surveys"], r["parameter"], r["n"],
         *(f"{r[k]['value']:+.3g}" if k == "bias" else f"{r[k]['value']:.3g}" for k in SHOWN), f"{r['posterior_sd']:.3g}"]
        for r in rows
    ]
    print(table(["prior", "surveys", "parameter", "stars", "bias", "scatter", "68 %", "90 %", "posterior sd"], shown))
    truth, errors = labels(stars)
    figures: dict[str, Any] = {}
    for prior in PRIORS:
        full = {r["parameter"]: r for r in rows if r["surveys"] == "+".join(SURVEYS) and r["prior"] == prior}
        tail = "none" if prior == "training" else f"none_{prior}_prior"
        figures |= {f"{n}_{s}_{tail}": full[n][s] for n in LABELS for s in SHOWN}
        noisy = drawn[prior] + errors[:, None] * np.random.default_rng(1).standard_normal(drawn[prior].shape)
        error = coverage_error(noisy, truth)
        figures[f"coverage_error_{tail}"] = {k: float(error[k]) for k in ("value", "low", "high")}
        print(f"{prior} prior, all surveys: coverage error {error['value']:.3f} ({error['low']:.3f} to {error['high']:.3f})")
    print(write("real_stars", rows, figures, [estimator.metadata["config"]["seed"]], field_prior=FIELD))


def with_label_errors(path: Path) -> Path:
    """A copy of the table, in a temporary folder, with label standard deviations beside the covariances."""
    import tempfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pq.read_table(path)
    for name in LABELS:
        sd = np.sqrt(content[f"label_cov_{name}_{name}"].to_numpy())
        content = content.append_column(f"label_{name}_error", pa.array(sd))
    copy = Path(tempfile.mkdtemp()) / path.name
    pq.write_table(content, copy)
    return copy


if __name__ == "__main__":
    main()

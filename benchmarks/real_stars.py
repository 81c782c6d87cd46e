"""Real stars with spectroscopic labels: bias, scatter and coverage for every subset of four surveys.

``python -m benchmarks.real_stars RUN TABLE`` reads a table such as that of Green et al. 2020 (columns ``label_teff``, ``label_logg``,
``label_feh`` and ``label_cov_*``), infers it with each subset of {gaia, panstarrs, twomass, wise}, and compares with the labels of stars
of 4000-7000 K. Labels are read after the posteriors are drawn and train, stop and choose nothing. Coverage counts central
intervals of the posterior convolved with the label's error. Intervals are 95 % bootstrap over stars.
"""

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import table, write
from sbi_da.diagnostics import coverage_error
from sbi_da.estimator import Estimator
from sbi_da.evaluation import draw
from sbi_da.inference import read_objects
from sbi_da.records import Records

SURVEYS = ("gaia", "panstarrs", "twomass", "wise")
LABELS = ("teff", "logg", "feh")
TEFF_RANGE = (4000.0, 7000.0)
DRAWS = 200


def bootstrap(statistic: Any, *arrays: np.ndarray, replicates: int = 300, seed: int = 0) -> tuple[float, float, float]:
    """Value and 95 % interval over resampled stars."""
    rng = np.random.default_rng(seed)
    n = len(arrays[0])
    resampled = [statistic(*(a[rows] for a in arrays)) for rows in rng.integers(0, n, (replicates, n))]
    return float(statistic(*arrays)), *(float(q) for q in np.quantile(resampled, [0.025, 0.975]))


def mad(x: np.ndarray) -> float:
    """Robust scatter, 1.48 times the median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(x - np.median(x))))


def judge(drawn: np.ndarray, label: np.ndarray, label_error: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Figures of one parameter; ``drawn`` has shape ``(star, draw)``."""
    rng = np.random.default_rng(seed)
    noisy = drawn + label_error[:, None] * rng.standard_normal(drawn.shape)
    u = (noisy < label[:, None]).mean(1)
    residual = np.median(drawn, 1) - label
    out: dict[str, Any] = {"sd": float(np.median(drawn.std(1)))}
    for name, statistic, data in (
        ("bias", np.median, residual), ("scatter", mad, residual),
        ("cover68", lambda x: np.mean(np.abs(x - 0.5) < 0.34), u), ("cover90", lambda x: np.mean(np.abs(x - 0.5) < 0.45), u),
    ):
        value, low, high = bootstrap(statistic, data)
        out[name] = {"value": value, "low": low, "high": high}
    return out


def run(estimator: Estimator, stars: Records) -> tuple[list[dict[str, Any]], np.ndarray]:
    """One row per subset and parameter, and the draws with all surveys."""
    labels = stars.parameters
    keep = (labels["teff"] >= TEFF_RANGE[0]) & (labels["teff"] <= TEFF_RANGE[1])
    stars = stars.isel(keep)
    rows = []
    for size in range(1, len(SURVEYS) + 1):
        for subset in combinations(SURVEYS, size):
            seen = stars.select(subset)
            drawn = draw(estimator, seen, list(LABELS), DRAWS, seed=0)
            some = seen.pattern() != "none"
            for k, name in enumerate(LABELS):
                error = stars.parameters[f"{name}_error"]
                rows.append({
                    "surveys": "+".join(subset), "parameter": name, "stars": int(some.sum()),
                    **judge(drawn[some][:, :, k].astype(float), stars.parameters[name][some], error[some]),
                })
    return rows, drawn


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    estimator = Estimator.load(arguments.run)
    columns = {k: (f"label_{k}", f"label_{k}_error") for k in LABELS}
    stars = read_objects(estimator, with_label_errors(arguments.table), parameters=columns)
    rows, drawn = run(estimator, stars)
    shown = [
        [r["surveys"], r["parameter"], r["stars"], *(f"{r[k]['value']:+.3g}" if k == "bias" else f"{r[k]['value']:.3g}"
         for k in ("bias", "scatter", "cover68", "cover90")), f"{r['sd']:.3g}"]
        for r in rows
    ]
    print(table(["surveys", "parameter", "stars", "bias", "scatter", "68 %", "90 %", "posterior sd"], shown))
    full = {r["parameter"]: r for r in rows if r["surveys"] == "+".join(SURVEYS)}
    kept = stars.parameters
    inside = (kept["teff"] >= TEFF_RANGE[0]) & (kept["teff"] <= TEFF_RANGE[1])
    truth = np.stack([kept[n][inside] for n in LABELS], 1)
    errors = np.stack([kept[f"{n}_error"][inside] for n in LABELS], 1)
    noisy = drawn + errors[:, None] * np.random.default_rng(1).standard_normal(drawn.shape)
    error = coverage_error(noisy, truth)
    figures = {f"{n}_{s}_none": full[n][s] for n in LABELS for s in ("bias", "scatter", "cover68", "cover90")}
    figures["coverage_error_none"] = {k: float(error[k]) for k in ("value", "low", "high")}
    print(f"coverage error with all surveys: {error['value']:.3f} ({error['low']:.3f} to {error['high']:.3f})")
    print(write("real_stars", rows, figures, [estimator.metadata["config"]["seed"]]))


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

"""Train on 50,000 simulated stars, evaluate on held-out ones, infer 500 real stars with fewer and fewer surveys, report."""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from sbi_da import plots
from sbi_da.config import load_config
from sbi_da.evaluation import evaluate, write_evaluation
from sbi_da.inference import query, read_objects
from sbi_da.records import write_table
from sbi_da.report import Report
from sbi_da.runs import build, train
from sbi_da.simulation import simulate

HERE = Path(__file__).resolve().parent
VIEWS: dict[str, list[str] | None] = {"all surveys": None, "Gaia + WISE": ["gaia", "wise"], "Gaia only": ["gaia"]}
SHOWN = ["teff", "logg", "feh", "av", "distance"]
LABELS = {"teff": "label_teff", "logg": "label_logg", "feh": "label_feh"}


def views(held: list[str]) -> dict[str, list[str] | None]:
    """The views whose surveys a table holds."""
    return {name: chosen for name, chosen in VIEWS.items() if chosen is None or set(chosen) <= set(held)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-results"))
    parser.add_argument("--table", type=Path, default=HERE / "green2020_sample.parquet")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the config demo")
    arguments = parser.parse_args()
    out, started = arguments.out, time.perf_counter()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    config = load_config("demo", arguments.overrides)
    run = out / "run"
    if run.exists() and not (run / "estimator").exists():
        print(f"going on with the interrupted training in {run}")

    print(f"1/3  training on {config.training.simulations:,} simulated stars")
    estimator = train(config, run)
    trained = time.perf_counter()

    print("2/3  evaluating on 5,000 held-out simulated stars")
    simulator, surveys, _ = build(config)
    held_out = simulate(simulator, surveys, 5000, seed=config.seed + 77, missing=config.missing)
    metrics, figures = evaluate(estimator, held_out, draws=300)
    write_evaluation(metrics, figures, out / "evaluation")

    print("3/3  inferring 500 real stars (Green et al. 2020)")
    stars = read_objects(estimator, arguments.table, parameters={k: (v, None) for k, v in LABELS.items()})
    widths, errors, one = {}, {}, {}
    for name, chosen in views(stars.surveys).items():
        seen = stars if chosen is None else stars.select(chosen)
        columns = query(estimator, seen, draws=500)
        write_table(out / f"stars_{name.lower().replace(' + ', '_').replace(' ', '_')}.parquet", columns)
        widths[name] = np.stack([(columns[f"{p}_q84"] - columns[f"{p}_q16"]) / 2 for p in SHOWN], axis=1)
        errors[name] = columns["teff_q50"] - stars.parameters["teff"]

    counts = np.array([p.count("+") for p in stars.pattern()])
    full = np.flatnonzero(counts == counts.max())
    typical = int(full[np.argsort(widths["all surveys"][full, 0])[len(full) // 2]])
    for name, chosen in views(stars.surveys).items():
        seen = stars if chosen is None else stars.select(chosen)
        drawn = estimator(seen.isel([typical])).marginal(SHOWN).sample(2000)
        one[name] = np.stack([drawn[p].values[0] for p in SHOWN], axis=1)

    units = {p: estimator.parameter(p).unit for p in SHOWN}
    width_figure = plots.posterior_widths(widths, SHOWN, units, "half 16-84 % range")
    truth = [float(stars.parameters[p][typical]) if p in LABELS else float("nan") for p in SHOWN]
    corner_figure = plots.corner(one, SHOWN, units, truth)
    residual_figure = plots.residual_histogram(errors, "teff", "K")
    rows = [
        [name, *(f"{np.median(width[:, k]):.3g}" for k in range(len(SHOWN))),
         f"{np.median(errors[name]):+.0f}", f"{1.4826 * np.median(np.abs(errors[name] - np.median(errors[name]))):.0f}"]
        for name, width in widths.items()
    ]
    headers = ["surveys", *(f"± {p}" for p in SHOWN), "Teff bias", "Teff scatter"]
    under = ["", *(units[p].split("(")[0] for p in SHOWN), "K", "K"]
    report = Report("Posteriors of 500 real stars, with fewer and fewer surveys")
    report.text(
        f"An estimator trained for {(trained - started) / 60:.1f} minutes on {config.training.simulations:,} simulated stars. The same "
        "network answers every combination of surveys; nothing is imputed. Labels are spectroscopic and were never used in training. "
        "The prior is one for field stars. The simulator does not match reality exactly: residuals "
        "against the labels include that gap."
    )
    report.table([f"{h} [{u}]" if u else h for h, u in zip(headers, under, strict=True)], rows)
    report.figure(width_figure, "Half the 16-84 % range of the posteriors of 500 real stars: what is lost with each survey.")
    report.figure(corner_figure, "One star, of median width in Teff among those that all surveys see; lines: its spectroscopic labels.")
    report.figure(residual_figure, "Posterior median minus spectroscopic label.")
    error = metrics["overall"]["coverage"]["error"]
    report.text(
        f"On 5,000 held-out simulated stars the coverage error is {error['value']:.3f} "
        f"({error['low']:.3f} to {error['high']:.3f}); details are in evaluation/report.html."
    )
    report.write(out / "report.html")
    (out / "figures").mkdir(exist_ok=True)
    for name, picture in {"widths": width_figure, "corner": corner_figure, "residuals": residual_figure}.items():
        picture.savefig(out / "figures" / f"{name}.png", dpi=150)
    (out / "summary.json").write_text(json.dumps({"headers": headers, "rows": rows}, indent=1))

    print()
    layout = "{:<13}" + "{:>12}" * len(SHOWN) + "{:>12}{:>14}"
    print("Half the 16-84 % range of the posteriors (medians over 500 real stars), and residuals against spectroscopic Teff")
    for row in (headers, under, *rows):
        print(layout.format(*row))
    print(f"\nCoverage error on held-out simulated stars: {error['value']:.3f}")
    print(f"Took {(time.perf_counter() - started) / 60:.1f} minutes. Open {out / 'report.html'} and {out / 'evaluation' / 'report.html'}")


if __name__ == "__main__":
    main()

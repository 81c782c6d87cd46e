"""Catalogues: stars per second from Parquet to Parquet, memory as rows grow, and whether killed or spread runs give the same bytes.

``python -m benchmarks.catalogues HEAD=RUN [HEAD=RUN ...] --work DIR [--parts speed,trust,workers,refined,rows,kills,dask]``.

Tables are simulated stars of config ``demo``, with data missing as in training. ``speed``: 20,000 stars for each run, by as many workers as
there are cores; beside it the package sbi, whose default spline flow learns the same stars briefly and is asked star by star, and for all
stars at once. ``trust``: the first run on 100,000 stars with and without its columns of trust, in turn. ``workers``: the first run on
100,000 stars by one worker and by as many as there are cores. ``refined``: on 2,000, weighted by the likelihood, and how well that went.
``rows``: on tables of growing length, with time and the peak memory of the largest process. ``kills``: on 100,000 stars, killed (SIGKILL)
at random times and taken up again, by 1, 2 and 4 workers, and with its files in another order, against an undisturbed one, byte by byte.
``dask``: the same by a Dask cluster of two workers, of which one is killed.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import named, table, with_earlier, write
from benchmarks.speed import DRAWS, PEER_EPOCHS, PEER_SIMULATIONS
from sbi_da.config import load_config
from sbi_da.records import ABSENT, LIMIT, OBSERVED, Records, write_table
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.surveys import Survey

STARS, BLOCK, PEER_STARS, REFINED = 20_000, 100_000, 200, 2_000
KILLED, FILE = 100_000, 2_500
ROWS = (10_000, 100_000, 1_000_000)


def columns_of(records: Records, surveys: list[Survey], start: int) -> dict[str, np.ndarray]:
    """A public table of these records."""
    columns = {"source_id": 10**15 + 7919 * (start + np.arange(len(records)))}
    for survey in surveys:
        held = records.survey(survey.name)
        for k, channel in enumerate(survey.channels):
            absent = held.state[:, k] == ABSENT
            columns[channel.column] = np.where(absent, np.nan, held.value[:, k]).astype(np.float32)
            columns[channel.error_column] = np.where(absent | (held.state[:, k] == LIMIT), np.nan, held.error[:, k]).astype(np.float32)
    return columns


def make(path: Path, count: int, rows: int | None = None) -> Path:
    """A table of so many simulated stars, or a folder of tables of so many rows, if it is not there yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.exists():
        return path
    config = load_config("demo")
    simulator, surveys, _ = build(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for start in range(0, count, BLOCK):
        records = simulate(simulator, surveys, min(BLOCK, count - start), 5000 + start // BLOCK, config.missing)
        part = columns_of(records, list(surveys), start)
        if rows is not None:
            path.mkdir(exist_ok=True)
            for k in range(0, len(records), rows):
                write_table(path / f"{(start + k) // rows:05d}.parquet", {n: v[k : k + rows] for n, v in part.items()})
            continue
        block = pa.table(part)
        writer = writer or pq.ParquetWriter(path, block.schema)
        writer.write_table(block)
    if writer is not None:
        writer.close()
    return path


def command(run: Path, catalogue: Path, out: Path, workers: int, *more: str) -> list[str]:
    place = [str(run), str(catalogue), "--out", str(out)]
    return [sys.executable, "-m", "sbi_da.cli", "infer", *place, "--draws", str(DRAWS), "--workers", str(workers), "--quiet", *more]


def timed(run: Path, catalogue: Path, out: Path, workers: int, *more: str) -> tuple[float, float]:
    """Seconds, and peak memory of the largest process in MiB, of an inference from its start to its end."""
    shutil.rmtree(out, ignore_errors=True)
    watch = "import resource,subprocess,sys; subprocess.run(sys.argv[1:], check=True, stdout=2); " \
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    start = time.perf_counter()
    asked = command(run, catalogue, out, workers, *more)
    said = subprocess.run([sys.executable, "-c", watch, *asked], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, int(said.stdout) / (1024 if sys.platform != "darwin" else 1024**2)


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def speed(runs: dict[str, Path], work: Path, repeat: int, workers: int) -> list[dict[str, Any]]:
    """Stars per second of each run, start of the processes included and left out, and of the peer."""
    few, many = make(work / "few.parquet", 2), make(work / f"{STARS}.parquet", STARS)
    rows = []
    for name, run in runs.items():
        rates, starts = [], []
        for _ in range(repeat):
            begun = timed(run, few, work / "out", workers)[0]
            whole = timed(run, many, work / "out", workers)[0]
            starts.append(begun)
            rates.append((STARS / whole, STARS / (whole - begun)))
        ends, inner = np.median(rates, axis=0)
        rows.append({"part": "speed", "of": name, "stars_per_s": inner, "with_start": ends, "start_s": float(np.median(starts))})
    return [*rows, *peer(repeat)]


def peer(repeat: int) -> list[dict[str, Any]]:
    """The package sbi: its posterior asked star by star, and for all stars in one call."""
    import sbi.inference
    from sbi.utils import BoxUniform

    config = load_config("demo")
    simulator, surveys, estimator = build(config)
    records = simulate(simulator, surveys, PEER_SIMULATIONS, 2, config.missing)
    seen = estimator.layout.read(records)
    x = torch.from_numpy(np.where(seen.state == OBSERVED, seen.value, 0.0)).float()
    theta = torch.from_numpy(np.stack([records.parameters[n] for n in estimator.parameter_names], -1)).float()
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        box = BoxUniform(theta.min(0).values - 1e-3, theta.max(0).values + 1e-3)
        trainer = sbi.inference.NPE(prior=box, density_estimator="zuko_nsf", show_progress_bars=False)
        trainer.append_simulations(theta, x).train(max_num_epochs=PEER_EPOCHS)
        posterior = trainer.build_posterior()
        for name in ("looped", "batched"):
            rates = []
            for k in range(repeat):
                some = x[PEER_STARS * k : PEER_STARS * (k + 1)]
                start = time.perf_counter()
                if name == "batched":
                    posterior.sample_batched((DRAWS,), x=some, show_progress_bars=False)
                else:
                    for row in some[: PEER_STARS // 4]:
                        posterior.sample((DRAWS,), x=row[None], show_progress_bars=False)
                rates.append((PEER_STARS if name == "batched" else PEER_STARS // 4) / (time.perf_counter() - start))
            rows.append({"part": "speed", "of": f"sbi NSF, {name}", "stars_per_s": float(np.median(rates))})
    return rows


def trust_cost(run: Path, work: Path, repeat: int, workers: int) -> list[dict[str, Any]]:
    """Seconds with and without the columns of trust."""
    bare, many = work / "bare", make(work / f"{KILLED}.parquet", KILLED)
    shutil.rmtree(bare, ignore_errors=True)
    shutil.copytree(run / "estimator", bare / "estimator")
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(repeat):
        for name, asked in (("with", run), ("without", bare)):
            seconds[name].append(timed(asked, many, work / "out", workers)[0])
    cost = float(np.median(seconds["with"]) / np.median(seconds["without"])) - 1
    return [{"part": "trust", "of": "seconds", **seconds, "cost": cost}]


def by_workers(run: Path, work: Path, repeat: int, workers: int) -> list[dict[str, Any]]:
    """Stars per second of one worker and of all, without their start."""
    few, many = make(work / "few.parquet", 2), make(work / "killed", KILLED, FILE)
    rates: dict[int, list[float]] = {1: [], workers: []}
    for _ in range(repeat):
        for count in rates:
            start = timed(run, few, work / "out", count)[0]
            rates[count].append(KILLED / (timed(run, many, work / "out", count)[0] - start))
    return [{"part": "workers", "of": f"{count}", "stars_per_s": float(np.median(rate)), "range": [min(rate), max(rate)]}
            for count, rate in rates.items()]


def refined(run: Path, work: Path, workers: int) -> list[dict[str, Any]]:
    """Stars per second with weights by the likelihood, and their effective sample sizes."""
    import pyarrow.parquet as pq

    few, many = make(work / "few.parquet", 2), make(work / f"{REFINED}.parquet", REFINED)
    start = timed(run, few, work / "out", workers, "--refine")[0]
    seconds = timed(run, many, work / "out", workers, "--refine")[0] - start
    ess = pq.read_table(work / "out" / "objects", columns=["ess"])["ess"].to_numpy()
    found = {"median_ess": float(np.median(ess)), "share_below_half": float((ess < DRAWS / 2).mean()), "lost": int((ess == 0).sum())}
    return [{"part": "refined", "of": f"{REFINED}", "stars_per_s": REFINED / seconds, **found}]


def growth(run: Path, work: Path, workers: int, lengths: list[int]) -> list[dict[str, Any]]:
    """Time and memory as rows grow."""
    rows = []
    for count in lengths:
        seconds, memory = timed(run, make(work / f"{count}.parquet", count), work / "out", workers)
        rows.append({"part": "rows", "of": f"{count}", "seconds": seconds, "peak_mib": memory, "stars_per_s": count / seconds})
        print(rows[-1], flush=True)
    return rows


def kills(run: Path, work: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Whether the bytes are those of an undisturbed run."""
    catalogue, rng = make(work / "killed", KILLED, FILE), np.random.default_rng(seed)
    length = timed(run, catalogue, work / "whole", 1)[0]
    whole, rows = contents(work / "whole"), []
    for workers in (2, 4):
        timed(run, catalogue, work / "out", workers)
        rows.append({"part": "kills", "of": f"{workers} workers", "same": contents(work / "out") == whole})
    shutil.rmtree(work / "out", ignore_errors=True)
    done = 0
    for _ in range(count):
        process = subprocess.Popen(command(run, catalogue, work / "out", 2), stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(rng.uniform(0.02, 1.0) * max(8.0, length / 6))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += 1
        process.wait()
        if (work / "out" / "manifest.json").exists():
            rows.append({"part": "kills", "of": f"finished after {done} kills", "same": contents(work / "out") == whole})
            shutil.rmtree(work / "out")
    subprocess.run(command(run, catalogue, work / "out", 2), check=True, stdout=subprocess.DEVNULL)
    rows.append({"part": "kills", "of": f"{done} kills in all", "same": contents(work / "out") == whole})
    shuffled, names = work / "shuffled", sorted(p.name for p in catalogue.iterdir())
    shutil.rmtree(shuffled, ignore_errors=True)
    shuffled.mkdir()
    order = rng.permutation(len(names))
    for k, name in zip(order, names, strict=True):
        os.link(catalogue / name, shuffled / f"{k:05d}.parquet")
    timed(run, shuffled, work / "out", 2)
    found = {f"objects/{names[j]}": (work / "out" / "objects" / f"{k:05d}.parquet").read_bytes() for j, k in enumerate(order)}
    same = found == {name: content for name, content in whole.items() if name.startswith("objects/")}
    return [*rows, {"part": "kills", "of": "shuffled partitions", "same": same}]


def on_dask(run: Path, work: Path) -> list[dict[str, Any]]:
    """Whether a cluster of two workers, of which one is killed, gives the bytes of one undisturbed process."""
    from distributed import LocalCluster

    catalogue = make(work / "killed", KILLED, FILE)
    length = timed(run, catalogue, work / "whole", 1)[0]
    shutil.rmtree(work / "out", ignore_errors=True)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        process = subprocess.Popen(command(run, catalogue, work / "out", 1, "--dask", cluster.scheduler_address), stdout=subprocess.DEVNULL)
        time.sleep(length / 4)
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        code = process.wait()
    same = code == 0 and contents(work / "out") == contents(work / "whole")
    return [{"part": "kills", "of": "Dask, two workers, one killed", "same": same}]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="HEAD=RUN")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", default="all")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.set_num_threads(a.workers)
    runs = {name: Path(path) for name, _, path in (item.partition("=") for item in a.runs)}
    first = next(iter(runs.values()))
    rows: list[dict[str, Any]] = []
    for part in named(parser, a.parts, ["speed", "trust", "workers", "refined", "rows", "kills", "dask"]):
        if part == "speed":
            rows += speed(runs, a.work, a.repeat, a.workers)
        elif part == "trust":
            rows += trust_cost(first, a.work, a.repeat, a.workers)
        elif part == "workers":
            rows += by_workers(first, a.work, a.repeat, a.workers)
        elif part == "refined":
            rows += refined(first, a.work, a.workers)
        elif part == "rows":
            rows += growth(first, a.work, a.workers, [int(n) for n in a.rows.split(",")])
        elif part == "dask":
            rows += on_dask(first, a.work)
        else:
            rows += kills(first, a.work, a.kills, a.seed)
        print(json.dumps(rows[-6:], indent=0, default=float), flush=True)
    rows = with_earlier("catalogues", rows, ["part", "of"])
    fast = {r["of"].replace(", ", "_").replace(" ", "_"): r["stars_per_s"] for r in rows if r["part"] == "speed"}
    figures: dict[str, Any] = {f"stars_per_s_{name}": {"value": value} for name, value in fast.items()}
    if "sbi_NSF_batched" in fast:
        figures |= {f"ratio_to_sbi_nsf_{name}": {"value": v / fast["sbi_NSF_batched"]} for name, v in fast.items() if "sbi" not in name}
    if kept := [r["same"] for r in rows if r["part"] == "kills"]:
        figures["share_of_same_bytes"] = {"value": float(np.mean(kept))}
    if cost := [r["cost"] for r in rows if r["part"] == "trust"]:
        figures["cost_of_trust"] = {"value": cost[0]}
    memory = {r["of"]: r["peak_mib"] for r in rows if r["part"] == "rows"}
    if {"10000", "1000000"} <= set(memory):
        figures["memory_ratio_1e6_to_1e4"] = {"value": memory["1000000"] / memory["10000"]}
    print(table(["figure", "value"], [[k, float(v["value"])] for k, v in figures.items()]))
    print(write("catalogues", rows, figures, [a.seed], workers=a.workers))


if __name__ == "__main__":
    main()

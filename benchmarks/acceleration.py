"""What torch.compile and bfloat16 would give catalogues: time per star, and by how much answers change beside sampling noise.

``python -m benchmarks.acceleration HEAD=RUN [HEAD=RUN ...] [--stars 4096]``. Simulated stars of config ``demo``, one thread, a hundred
draws each. Contexts and draws as they are, compiled (with the seconds that compiling takes), with bfloat16 in the encoder, and in the
head too. Change: root mean square of the shift of means in standard deviations; with other noise it is 0.14, that of two means of a
hundred draws.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.result import table, write
from sbi_da.alignment.features import Features
from sbi_da.catalog.steady import chunks, steady_features
from sbi_da.config import load_config
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.posteriors import Posterior
from sbi_da.runs import build
from sbi_da.simulation import simulate

DRAWS, REPEAT = 100, 5


@dataclass(frozen=True)
class Compiled:
    """A head whose draws are compiled."""

    noise_size: int
    transform: Callable[[Tensor, Tensor], Tensor]
    log_prob: Callable[[Tensor, Tensor], Tensor]


def scores(posterior: Posterior, seed: int = 0, rough: bool = False) -> np.ndarray:
    """Draws as a catalogue makes them."""
    with torch.autocast("cpu", torch.bfloat16) if rough else nullcontext():
        return np.concatenate([part.normal_scores(DRAWS, seed)[: some.stop - some.start] for some, part in chunks(posterior, DRAWS)])


def timed(work: Callable[[], Any], count: int) -> tuple[float, Any]:
    """Microseconds per star, median, and the result; the first call is not timed."""
    found, seconds = work(), []
    for _ in range(REPEAT):
        start = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / count * 1e6, found


def compare(estimator: Estimator, observed: Observations) -> list[Mapping[str, Any]]:
    """Rows of the table for one estimator."""
    count, ids = len(observed), np.arange(len(observed))

    def posterior(features: Features) -> Posterior:
        return estimator.posterior(features.told, observed, ids)

    def encode(bf16: bool = False) -> Features:
        return steady_features(estimator, observed, bf16=bf16)

    context_time, features = timed(encode, count)
    plain = posterior(features)
    draw_time, z = timed(lambda: scores(plain), count)

    def change(other: np.ndarray) -> float:
        return float(np.sqrt((((other.mean(1) - z.mean(1)) / z.std(1)) ** 2).mean()))

    rows: list[Mapping[str, Any]] = [{"what": "as it is", "contexts": context_time, "draws": draw_time, "change": 0.0, "seconds": 0.0}]
    rows.append({**rows[0], "what": "other noise", "change": change(scores(plain, 1))})
    rough_time, rough = timed(lambda: encode(True), count)
    rows.append({**rows[0], "what": "bfloat16 encoder", "contexts": rough_time, "change": change(scores(posterior(rough)))})
    try:
        rough_draws, low = timed(lambda: scores(plain, rough=True), count)
        rows.append({**rows[0], "what": "bfloat16 head", "draws": rough_draws, "change": change(low)})
    except NotImplementedError:  # no triangular solve of this type
        pass
    inner, begun = estimator.features, time.perf_counter()
    vars(estimator)["features"] = torch.compile(inner)
    head = plain.head
    fast = replace(plain, head=Compiled(getattr(head, "noise_size", z.shape[-1]), torch.compile(head.transform), head.log_prob))
    encode()
    scores(fast)
    seconds = time.perf_counter() - begun
    compiled_context = timed(encode, count)[0]
    compiled_draws, again = timed(lambda: scores(fast), count)
    del vars(estimator)["features"]
    compiled = {"contexts": compiled_context, "draws": compiled_draws, "change": change(again), "seconds": seconds}
    return [*rows, {"what": "torch.compile", **compiled}]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="HEAD=RUN")
    parser.add_argument("--stars", type=int, default=4096)
    a = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config("demo")
    simulator, surveys, _ = build(config)
    records = simulate(simulator, surveys, a.stars, 7, config.missing)
    rows: list[dict[str, Any]] = []
    for name, _, path in (item.partition("=") for item in a.runs):
        estimator = Estimator.load(Path(path))
        rows += [{"head": name, **row} for row in compare(estimator, estimator.layout.read(records))]
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    of = {(row["head"], row["what"]): row for row in rows}
    figures: dict[str, Any] = {}
    for head, what in of:
        plain, other = of[head, "as it is"], of[head, what]
        ratio = (plain["contexts"] + plain["draws"]) / (other["contexts"] + other["draws"])
        figures[f"{head}_{what.replace(' ', '_')}"] = {"value": ratio, "change": other["change"]}
    print(write("acceleration", rows, figures, [7]))


if __name__ == "__main__":
    main()

"""Speed: stars simulated, trained and inferred per second, by head, beside the package sbi on the same machine in the same run.

``python -m benchmarks.speed [RUN] [--repeat 5] [--threads 2]``. Inference is end to end, from records to 100 draws of five parameters per
star, in the parameters' units. Heads are of the sizes of the run's config (without a run: of ``stars``), untrained but for the spline of
a run: training changes none of these times. Where the time goes is printed by part of the network. sbi's neural posterior estimation with
its default spline flow (``zuko_nsf``) learns the same stars, briefly, from the values of all channels, and is asked star by star, which is
how its posterior is sampled at its defaults.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import table, write
from sbi_da.config import Config, load_config
from sbi_da.distillation import fast_copy
from sbi_da.estimator import Estimator
from sbi_da.posteriors.noise import object_noise
from sbi_da.records import OBSERVED, Records
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.sources import SimulatorSource
from sbi_da.training import TrainingModule, tensors

DRAWS, STARS, CHUNK = 100, 2000, 2000
PEER_STARS, PEER_SIMULATIONS, PEER_EPOCHS = 40, 5000, 5
HEADS = ("spline", "mixture", "few_step", "flow_matching")


def rate(count: int, what: Callable[[], object], repeat: int) -> dict[str, float]:
    """Objects per second: median, lowest and highest over repetitions, after one that does not count."""
    what()
    rates = []
    for _ in range(repeat):
        start = time.perf_counter()
        what()
        rates.append(count / (time.perf_counter() - start))
    return {"value": float(np.median(rates)), "low": float(min(rates)), "high": float(max(rates))}


def heads(config: Config, trained: Estimator | None) -> dict[str, Estimator]:
    """An estimator with each head, of the sizes of the config."""
    content = config.model_dump()
    made: dict[str, Estimator] = {}
    for name in HEADS:
        if name == "spline" and trained is not None:
            made[name] = trained
        elif name == "few_step":
            made[name] = fast_copy(made["spline"]).eval()
        else:
            network = {**content["network"], "head": name}
            made[name] = build(Config.model_validate({**content, "network": network}))[2].eval()
    return made


def parts(estimator: Estimator, records: Records, repeat: int) -> dict[str, float]:
    """Milliseconds per star of what an answer consists of."""
    prior, head = estimator.density
    observed = estimator.layout.read(records)
    context = estimator.encode(observed)
    size = getattr(head, "noise_size", len(prior.names))
    noise = torch.from_numpy(object_noise(records.ids, DRAWS, size, 0))
    step = 4096 // DRAWS

    def draw() -> None:
        with torch.inference_mode():
            for start in range(0, len(noise), step):
                head.transform(noise[start : start + step], context[start : start + step, None])

    z = estimator(records).normal_scores(DRAWS)
    steps: dict[str, Callable[[], object]] = {
        "layout": lambda: estimator.layout.read(records), "encoders and fusion": lambda: estimator.encode(observed),
        "noise": lambda: object_noise(records.ids, DRAWS, size, 0), "head": draw, "prior": lambda: prior.from_normal(z),
    }
    return {name: 1000 / rate(len(records), what, repeat)["value"] for name, what in steps.items()}


def peer(records: Records, training: Records, estimator: Estimator, repeat: int) -> dict[str, float]:
    """Stars per second of sbi's posterior of the same parameters, asked star by star."""
    import sbi.inference
    from sbi.utils import BoxUniform

    names = estimator.parameter_names

    def vector(some: Records) -> torch.Tensor:
        seen = estimator.layout.read(some)
        return torch.from_numpy(np.where(seen.state == OBSERVED, seen.value, 0.0)).float()

    theta = torch.from_numpy(np.stack([training.parameters[n] for n in names], -1)).float()
    low, high = theta.min(0).values, theta.max(0).values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = sbi.inference.NPE(prior=BoxUniform(low - 1e-3, high + 1e-3), density_estimator="zuko_nsf", show_progress_bars=False)
        trainer.append_simulations(theta, vector(training)).train(max_num_epochs=PEER_EPOCHS)
        posterior = trainer.build_posterior()
        x = vector(records)

        def ask() -> None:
            for row in x:
                posterior.sample((DRAWS,), x=row[None], show_progress_bars=False)

        return rate(len(x), ask, repeat)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trained = Estimator.load(arguments.run) if arguments.run else None
    config = Config.model_validate(trained.metadata["config"]) if trained else load_config("stars")
    simulator, surveys, fresh = build(config)
    records = simulate(simulator, surveys, STARS, 1, config.missing)
    source = SimulatorSource(simulator, surveys, fresh.prior, config.missing, config.proposal)
    module = TrainingModule(fresh, config.training, config.proposal is not None)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    batch = tensors(source.examples(config.training.batch, 0))
    optimiser = torch.optim.AdamW(module.parameters(), 1e-4)

    def step() -> None:
        optimiser.zero_grad()
        module.training_step({"simulated": batch}, 0).backward()
        optimiser.step()

    made = heads(config, trained)
    repeat = arguments.repeat
    few = records.isel(slice(0, PEER_STARS))
    figures: dict[str, Any] = {
        "simulate_stars_per_s": rate(50_000, lambda: source.examples(50_000, 1), repeat),
        "train_objects_per_s": rate(len(batch["z"]), step, repeat),
    }
    for name, estimator in made.items():
        asked = estimator.parameter_names
        some = records.isel(slice(0, 200)) if name == "flow_matching" else records

        def ask(estimator: Estimator = estimator, some: Records = some, asked: list[str] = asked) -> None:
            estimator(some).marginal(asked).sample(DRAWS)

        figures[f"stars_per_s_{name}"] = rate(len(some), ask, repeat)
    figures["stars_per_s_spline_with_derived"] = rate(len(records), lambda: made["spline"](records).sample(DRAWS), repeat)
    known = simulate(simulator, surveys, PEER_SIMULATIONS, 2, config.missing)
    figures["stars_per_s_sbi_nsf"] = rate_of_peer = peer(few, known, fresh, max(1, repeat // 2))
    figures |= {
        f"ratio_to_sbi_nsf{'' if name == 'mixture' else '_' + name}": {
            "value": figures[f"stars_per_s_{name}"]["value"] / rate_of_peer["value"],
            "low": figures[f"stars_per_s_{name}"]["low"] / rate_of_peer["high"],
            "high": figures[f"stars_per_s_{name}"]["high"] / rate_of_peer["low"],
        }
        for name in HEADS
    }
    print(table(["figure", "median", "lowest", "highest"], [[k, *map(float, v.values())] for k, v in figures.items()]))
    shares = {name: parts(estimator, records.isel(slice(0, 200)), repeat) for name, estimator in made.items()}
    print("\nmilliseconds per star\n" + table(["head", *shares["spline"]], [[name, *of.values()] for name, of in shares.items()]))
    rows = [{"head": name, **of} for name, of in shares.items()]
    print(write("speed", rows, figures, [1], repetitions=repeat, threads=arguments.threads))


if __name__ == "__main__":
    main()

"""An sbi simulator and prior, trained here for any missing data, and judged by sbi's own diagnostics. Needs `pip install sbi-da[sbi]`."""

import sys

import torch
from sbi.analysis import pairplot
from sbi.diagnostics import check_tarp, run_sbc, run_tarp
from sbi.diagnostics.sbc import check_uniformity_frequentist
from sbi.utils import BoxUniform

from sbi_da.config import TrainingConfig
from sbi_da.estimator import NetworkConfig
from sbi_da.from_sbi import SbiSimulator
from sbi_da.learning import estimator_of, learn
from sbi_da.records import UniformMissing
from sbi_da.sources import SimulatorSource
from sbi_da.to_sbi import SbiPosterior

PRIOR = BoxUniform(-2 * torch.ones(2), 2 * torch.ones(2))


def simulate(theta):
    """Two instruments: one sees the sum and the difference of the parameters, the other the square of the first."""
    a, b = theta.T
    x = torch.stack([a + b, a - b, a**2], dim=1)
    return x + torch.tensor([0.3, 1.0, 0.2]) * torch.randn_like(x)


def main(picture="with_sbi.png", steps=200):
    torch.manual_seed(0)
    simulator = SbiSimulator(simulate, PRIOR, names=["a", "b"], channels={"camera": ["sum", "difference"], "meter": ["square"]})
    network = NetworkConfig(width=16, layers=1, heads=2, summary=64, context=32, transforms=2, hidden=(64,))
    estimator = estimator_of(simulator, network=network)
    source = SimulatorSource(simulator, simulator.surveys(), estimator.prior, UniformMissing())
    learn(estimator, source, TrainingConfig(epochs=5, steps_per_epoch=steps, batch=256, learning_rate=5e-3, warmup=50))

    posterior = SbiPosterior(estimator)
    theta = PRIOR.sample((300,))
    everything = simulate(theta)
    without_meter = everything.clone()
    without_meter[:, 2] = posterior.missing  # NaN says the same, but sbi's diagnostics drop rows with NaN
    for name, x in (("camera and meter", everything), ("camera alone", without_meter)):
        ranks, _ = run_sbc(theta, x, posterior, num_posterior_samples=300, show_progress_bar=False)
        p = check_uniformity_frequentist(ranks, 300)
        area, _ = check_tarp(*run_tarp(theta, x, posterior, num_posterior_samples=300, show_progress_bar=False))
        print(f"{name}: Kolmogorov-Smirnov p of the ranks {p[0]:.2f}, {p[1]:.2f}; TARP area {area:+.3f}")

    draws = [posterior.sample((2000,), [0.5, float("nan"), 1.0]), posterior.sample((2000,), [0.5, 1.5, 1.0])]
    figure, _ = pairplot(draws, labels=posterior.parameters, limits=[[-2, 2], [-2, 2]], upper="scatter", figsize=(5, 5))
    figure.savefig(picture)


if __name__ == "__main__":
    main(*sys.argv[1:])

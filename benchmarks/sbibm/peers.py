"""Methods of the package sbi, at its defaults.

Neural posterior estimation with the spline and the masked autoregressive flow of zuko (five transforms, 50 hidden features, 10 bins),
flow matching and score matching (multilayer perceptron of five layers of 100; the score's process is variance-exploding). All are
trained by Adam at 5e-4 in batches of 200, a tenth of the simulations held out, until 20 epochs bring nothing. Flow matching is sampled
by its ordinary differential equation, score matching by 500 steps of its stochastic one; draws outside the prior are rejected. None of
this is set here but the names of the methods.
"""

from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.sbibm.method import Methods
from benchmarks.sbibm.tasks import Task
from sbi_da.errors import SbiDaError

__all__ = ["PEERS", "VERSION", "Peer"]

VERSION = "0.27.0"


class Peer:
    """A method of sbi.

    Args:
        kind: class of ``sbi.inference``.
        options: of that class.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        self.kind, self.options = kind, options

    def fit(self, task: Task, theta: np.ndarray, x: np.ndarray, seed: int) -> "FittedPeer":
        """Train at the defaults.

        Raises:
            SbiDaError: sbi is not installed.
        """
        try:
            import sbi.inference
        except ImportError as error:
            raise SbiDaError(f"{self.kind} needs the package sbi: pip install sbi=={VERSION} ({error})") from error
        if sbi.__version__ != VERSION:
            raise SbiDaError(f"the benchmark compares with sbi {VERSION}, whose defaults are known, and {sbi.__version__} is installed")
        torch.manual_seed(seed)
        trainer = getattr(sbi.inference, self.kind)(
            prior=task.prior.distribution(), show_progress_bars=False, tracker=Silent(), **self.options
        )
        trainer.append_simulations(torch.from_numpy(theta), torch.from_numpy(x)).train()
        return FittedPeer(trainer.build_posterior())


class FittedPeer:
    """A posterior of sbi."""

    def __init__(self, posterior: Any) -> None:
        self.posterior = posterior

    def sample(self, x: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws of one observation."""
        torch.manual_seed(seed)
        observed = torch.from_numpy(np.asarray(x, np.float32))[None]
        return self.posterior.sample((n,), x=observed, show_progress_bars=False).numpy()


class Silent:
    """Keeps no log of the training."""

    log_dir = None

    def log_metric(self, name: str, value: float, step: int | None = None) -> None:
        """Nothing."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Nothing."""

    def log_params(self, params: dict[str, Any]) -> None:
        """Nothing."""

    def add_figure(self, name: str, figure: Any, step: int | None = None) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


PEERS: Methods = {
    "sbi_nsf": partial(Peer, "NPE", density_estimator="zuko_nsf"),
    "sbi_maf": partial(Peer, "NPE", density_estimator="zuko_maf"),
    "sbi_fmpe": partial(Peer, "FMPE"),
    "sbi_npse": partial(Peer, "NPSE"),
}

"""Training in a few lines of Python, without a config or a run folder: a simulator or records at hand, whatever they are called."""

from collections.abc import Sequence
from tempfile import TemporaryDirectory

import torch

from sbi_da.config import TrainingConfig
from sbi_da.early_stopping import fit_best
from sbi_da.estimator import Estimator
from sbi_da.fitting import fit
from sbi_da.inference_prior import inference_prior
from sbi_da.network import NetworkConfig
from sbi_da.simulators import Simulator
from sbi_da.sources import Source
from sbi_da.surveys import Survey
from sbi_da.training import StreamModule, TrainingModule

__all__ = ["estimator_of", "learn"]

FIRST_EPOCH = 2**31 + 1
"""Of the examples that settle centres and scales, beyond those of any training."""
FITTED = 20_000


def estimator_of(
    simulator: Simulator, surveys: Sequence[Survey] | None = None, parameters: Sequence[str] | None = None,
    network: NetworkConfig | None = None, seed: int = 0,
) -> Estimator:
    """An untrained estimator of a simulator, which needs no name: the artefact keeps surveys and prior, and loads without it.

    Args:
        simulator: prior and surveys.
        surveys: who looks; None: those the simulator brings.
        parameters: what is inferred; None: all parameters of its prior. Quantities derived from draws need a simulator with a name.
        network: sizes.
        seed: of the weights.

    Raises:
        SbiDaError: unknown parameters, or no survey.
    """
    prior = inference_prior(simulator, list(parameters or simulator.prior.names), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        described = {name: simulator.parameter(name) for name in prior.names}
        metadata = {"simulator": type(simulator).__name__, "seed": seed}
        return Estimator(simulator.surveys() if surveys is None else surveys, prior, described, network, metadata=metadata).eval()


def learn(
    estimator: Estimator, source: Source, settings: TrainingConfig | None = None, seed: int = 0, progress: bool = False,
    validation: Source | None = None,
) -> Estimator:
    """Train an estimator of a density and return it.

    Nothing is written: save it with :meth:`~sbi_da.estimator.Estimator.save`, judge it on simulations of its own. For classes,
    checkpoints and resuming there are configs and :func:`sbi_da.runs.train`.

    Args:
        estimator: untrained, or trained before; it is changed.
        source: examples, such as ``SimulatorSource(simulator, simulator.surveys(), estimator.prior)``, or a ``RecordsSource``.
        settings: schedule; of its files nothing is read.
        seed: of the training.
        progress: show a progress bar.
        validation: held-out examples, by which the best epoch is chosen and the training stopped early; None: it goes to its last step.

    Raises:
        SbiDaError: the estimator infers no density.
    """
    _ = estimator.density
    settings = settings or TrainingConfig()
    sample = source.examples(min(FITTED, settings.batch * settings.steps_per_epoch), FIRST_EPOCH)
    estimator.fit(sample.observed, sample.z)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = TrainingModule(estimator, settings, weighted=source.weighted)
        streams = StreamModule(source, validation or source, settings, seed)
        if validation is None:
            fit(module, streams, settings, progress=progress)
        else:
            with TemporaryDirectory() as folder:
                fit_best(module, streams, settings, folder, progress=progress, records=False)
    return estimator.eval()

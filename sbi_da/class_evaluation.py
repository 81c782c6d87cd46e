"""Evaluating a classifier: from records to what the diagnostics of classes take."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sbi_da.classifier_evaluation import evaluate_classifier
from sbi_da.config import Config
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.records import ABSENT, Images, Records
from sbi_da.restaged import restaged, restaging_of
from sbi_da.runs import sources
from sbi_da.surveys import Imaging

__all__ = ["evaluate_class_records", "open_labels"]

COMPARED = 1000
"""Simulated objects, at most, whose features are compared with those of the objects evaluated."""
EPOCH = 2**31 + 5
UNKNOWN = -1


def open_labels(records: Records, name: str, classes: Sequence[str]) -> np.ndarray:
    """Codes of the labels of records, sealed ones included, shape ``(object,)``.

    Returns:
        Positions in ``classes``; -1 for a class that is not among them; NaN where nothing is known.

    Raises:
        SbiDaError: no such label.
    """
    known = records.opened().parameters
    if name not in known:
        raise SbiDaError(f"the records hold no {name!r} to judge by; they hold {', '.join(known) or 'no labels'}")
    own = records.attrs.get(f"classes_{name}", list(classes))
    codes = known[name]
    if not np.isin(codes[np.isfinite(codes)], np.arange(len(own))).all():
        raise SbiDaError(f"{name}: codes must be whole numbers from 0 to {len(own) - 1}, the positions of {', '.join(own)}")
    place = np.array([list(classes).index(c) if c in classes else UNKNOWN for c in own], float)
    return np.where(np.isfinite(codes), place[np.nan_to_num(codes).astype(int)], np.nan)


class _Shown:
    """Images as pictures, ``(object, y, x, 3)`` from 0 to 1, made when they are indexed by a list of rows."""

    def __init__(self, images: Images, camera: Imaging) -> None:
        self.images, self.camera = images, camera

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> np.ndarray:
        part = self.images.take(np.atleast_1d(np.asarray(rows)))
        pixels = np.where((part.state != ABSENT)[..., None, None], np.asarray(part.pixels), 0)
        if pixels.dtype == np.uint8:
            pixels = pixels / 255.0
        elif self.camera.display is None:
            noise = np.array([band.noise or 1.0 for band in self.camera.bands])[:, None, None]
            pixels = np.arcsinh(np.nan_to_num(pixels) / noise / 3)
            top = np.maximum(np.percentile(pixels, 99.8, axis=(1, 2, 3), keepdims=True), 1e-6)
            pixels = pixels / top
        order = np.argsort([-band.wavelength for band in self.camera.bands])  # red first
        chosen = [order[0], order[len(order) // 2], order[-1]]
        return np.clip(pixels[:, chosen], 0, 1).transpose(0, 2, 3, 1)


def evaluate_class_records(estimator: Estimator, records: Records, seed: int = 0) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Metrics and figures of a classifier on records with labels, which are opened here; see :func:`evaluate_classifier`.

    Raises:
        SbiDaError: no labels, or none of a class that the estimator knows.
    """
    name, classes = estimator.prior.names[0], estimator.classes
    codes = open_labels(records, name, classes)
    records, codes = records.isel(np.isfinite(codes)), codes[np.isfinite(codes)].astype(int)
    if not (codes >= 0).any():
        raise SbiDaError(f"none of the records is labelled {', '.join(classes)}")
    real = records.attrs.get("domain") == "real"
    observed = estimator.layout.read(records)
    context = estimator.encode(observed, real=real)
    posterior = estimator.classify(context, records.ids, real)
    simulated = _simulated(estimator, observed, real, seed)
    pictures = None
    if observed.images:
        survey = max(observed.images, key=lambda key: int((observed.images[key].state != ABSENT).sum()))
        pictures = _Shown(observed.images[survey], estimator.layout.cameras[survey])
    strange = codes < 0
    metrics, figures = evaluate_classifier(
        posterior.probabilities().values, np.where(strange, 0, codes), classes, posterior.fractions, images=pictures,
        features=context.numpy(), simulated_features=simulated and simulated[0], simulated_labels=simulated and simulated[1],
        strata={"pattern": records.select([s for s in estimator.surveys if s in records.surveys]).pattern()},
        unknown=strange if strange.any() else None, seed=seed,
        anomaly_scores=estimator.anomaly(observed, context) if strange.any() and estimator.normality is not None else None,
    )
    metrics["provenance"] = {"records": {str(k): _plain(v) for k, v in records.attrs.items()}, "estimator": estimator.metadata}
    return metrics, figures


def _simulated(estimator: Estimator, observed: Observations, real: bool, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Features and classes of held-out simulations, restaged for real objects where the estimator learned from such; None without any."""
    experiment = Config.model_validate(estimator.metadata["config"])
    how = restaging_of(estimator) if real else None
    try:
        examples = sources(experiment, estimator)[1].examples(min(COMPARED, experiment.training.validation), EPOCH)
        if how is not None:
            examples = restaged(estimator, examples, observed, how.model_copy(update={"copies": 1}), np.random.default_rng([seed, EPOCH]))
    except SbiDaError:  # the training records are no longer there, or these objects tell nothing of the survey
        return None
    return estimator.encode(examples.observed).numpy(), examples.z[:, 0].astype(int)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

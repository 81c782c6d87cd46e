"""Observations of the tasks and draws of their posteriors, as their authors published them.

They are tables inside the wheel ``sbibm-1.1.0-py2.py3-none-any.whl``, which is read as the archive it is and need not be installed.
"""

import bz2
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbi_da.errors import SbiDaError

__all__ = ["OBSERVATIONS", "Reference", "find_wheel", "reference"]

WHEEL = "sbibm-1.1.0-py2.py3-none-any.whl"
OBSERVATIONS = 10


@dataclass(frozen=True)
class Reference:
    """One observation.

    Attributes:
        x: data, shape ``(m,)``.
        theta: the parameters it was simulated with, shape ``(d,)``.
        samples: 10,000 draws of the posterior, shape ``(draw, d)``.
    """

    x: np.ndarray
    theta: np.ndarray
    samples: np.ndarray


def find_wheel(path: str | Path | None = None) -> Path:
    """The wheel: a path to it, or to the folder that holds it; without one, the working folder.

    Raises:
        SbiDaError: it is not there.
    """
    place = Path(path or ".")
    wheel = place / WHEEL if place.is_dir() else place
    if not wheel.is_file():
        raise SbiDaError(f"{wheel} is not there: get it with `pip download --no-deps sbibm==1.1.0` and name it with --wheel")
    return wheel


def reference(wheel: Path, task: str, observation: int) -> Reference:
    """Observation 1 to 10 of a task.

    Raises:
        SbiDaError: the wheel does not hold it.
    """
    folder = f"sbibm/tasks/{task}/files/num_observation_{observation}"
    try:
        with zipfile.ZipFile(wheel) as archive:
            x, theta = (_table(archive.read(f"{folder}/{name}.csv"))[0] for name in ("observation", "true_parameters"))
            samples = _table(bz2.decompress(archive.read(f"{folder}/reference_posterior_samples.csv.bz2")))
    except (KeyError, zipfile.BadZipFile) as error:
        raise SbiDaError(f"{wheel} holds no observation {observation} of {task}: {error}") from error
    return Reference(x, theta, samples)


def _table(content: bytes) -> np.ndarray:
    return np.loadtxt(io.BytesIO(content), delimiter=",", skiprows=1, ndmin=2)

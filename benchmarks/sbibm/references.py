"""Observations of the tasks and draws of their posteriors, as their authors published them.

They are tables inside the wheel ``sbibm-1.1.0-py2.py3-none-any.whl``, which is read as the archive it is; where sbibm is installed, its
tables are read from there. None of its code is run.
"""

import bz2
import io
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
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
    """The wheel, or the folder sbibm is installed in.

    Args:
        path: of the wheel or of the folder that holds it; without one, the working folder and then what is installed.

    Raises:
        SbiDaError: it is not there.
    """
    place = Path(path or ".")
    wheel = place / WHEEL if place.is_dir() else place
    if wheel.is_file():
        return wheel
    installed = find_spec("sbibm") if path is None else None
    if installed and installed.origin:
        return Path(installed.origin).parents[1]
    raise SbiDaError(f"{wheel} is not there: get it with `pip download --no-deps sbibm==1.1.0` and name it with --wheel")


def reference(wheel: Path, task: str, observation: int) -> Reference:
    """Observation 1 to 10 of a task.

    Raises:
        SbiDaError: the wheel does not hold it.
    """
    try:
        root = zipfile.Path(wheel) if wheel.is_file() else wheel
        folder = root / "sbibm" / "tasks" / task / "files" / f"num_observation_{observation}"
        x, theta = (_table((folder / f"{name}.csv").read_bytes())[0] for name in ("observation", "true_parameters"))
        samples = _table(bz2.decompress((folder / "reference_posterior_samples.csv.bz2").read_bytes()))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SbiDaError(f"{wheel} holds no observation {observation} of {task}: {error}") from error
    return Reference(x, theta, samples)


def _table(content: bytes) -> np.ndarray:
    return np.loadtxt(io.BytesIO(content), delimiter=",", skiprows=1, ndmin=2)

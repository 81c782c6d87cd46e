"""Artefact folders: weights in safetensors, everything else in JSON, and a checksum that tells when either was altered."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import sbi_da
from sbi_da.atomic import whole_folder
from sbi_da.errors import ArtefactError

__all__ = ["fingerprint", "read_artefact", "write_artefact"]

SCHEMA = 3
WEIGHTS = "model.safetensors"


def write_artefact(path: str | Path, content: Mapping[str, Any], weights: dict[str, Tensor], kind: str = "estimator") -> Path:
    """Write a folder, first under a temporary name, then renamed; replaces an earlier artefact.

    Args:
        path: of the folder.
        content: all that is no weight, as JSON has it; schema, checksum and versions are added.
        weights: by name, contiguous.
        kind: of what is written; names the file.

    Raises:
        ArtefactError: the disk is full, or does not take it.
        SbiDaError: something else is there.
    """
    path = Path(path)
    with whole_folder(path, replace=(WEIGHTS, f"{kind}.json")) as folder:
        try:
            save_file(weights, folder / WEIGHTS)
        except SafetensorError as error:
            raise ArtefactError(f"{path}: cannot be written ({error}): free space or choose another place") from error
        checksum = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        whole = {"schema": SCHEMA, **content, "weights_sha256": checksum, "versions": _versions()}
        (folder / f"{kind}.json").write_text(json.dumps(whole, indent=1, allow_nan=False))
    return path


def read_artefact(path: Path, kind: str = "estimator") -> tuple[dict[str, Any], Path]:
    """What the folder says, and the file of its weights; arguments as of :func:`write_artefact`.

    Raises:
        ArtefactError: missing, truncated, altered, or of another schema version; the message says what to do.
    """
    described, weights = path / f"{kind}.json", path / WEIGHTS
    for file in (weights, described):
        if not file.is_file():
            raise ArtefactError(f"{path}: no {file.name} there: not an {kind}, or its training has not finished")
    try:
        content = json.loads(described.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{described}: truncated or not JSON ({error}): copy or train it again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise ArtefactError(
            f"{path}: artefact schema {found}, this version ({sbi_da.__version__}) reads {SCHEMA}: "
            "train it again or use the version that wrote it"
        )
    if hashlib.sha256(weights.read_bytes()).hexdigest() != content.get("weights_sha256"):
        raise ArtefactError(f"{weights}: truncated or altered (checksum differs): copy or train it again")
    return content, weights


def fingerprint(path: Path, kind: str = "estimator") -> str:
    """Hash of an artefact, or of the one of a training run: of its weights and of all that is said of them."""
    folder = path / kind if (path / kind).is_dir() else path
    return hashlib.sha256((folder / f"{kind}.json").read_bytes()).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in ("sbi-da", "torch", "zuko", "lightning", "numpy", "xarray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

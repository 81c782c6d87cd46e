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

__all__ = ["read_artefact", "write_artefact"]

SCHEMA = 3
FILES = ("model.safetensors", "estimator.json")


def write_artefact(path: str | Path, content: Mapping[str, Any], weights: dict[str, Tensor]) -> Path:
    """Write a folder, first under a temporary name, then renamed; replaces an earlier artefact.

    Args:
        path: of the folder.
        content: all that is no weight, as JSON has it; schema, checksum and versions are added.
        weights: by name, contiguous.

    Raises:
        ArtefactError: the disk is full, or does not take it.
        SbiDaError: something else is there.
    """
    path = Path(path)
    with whole_folder(path, replace=FILES) as folder:
        try:
            save_file(weights, folder / FILES[0])
        except SafetensorError as error:
            raise ArtefactError(f"{path}: cannot be written ({error}): free space or choose another place") from error
        checksum = hashlib.sha256((folder / FILES[0]).read_bytes()).hexdigest()
        whole = {"schema": SCHEMA, **content, "weights_sha256": checksum, "versions": _versions()}
        (folder / FILES[1]).write_text(json.dumps(whole, indent=1, allow_nan=False))
    return path


def read_artefact(path: Path) -> tuple[dict[str, Any], Path]:
    """What the folder says, and the file of its weights.

    Raises:
        ArtefactError: missing, truncated, altered, or of another schema version; the message says what to do.
    """
    for name in FILES:
        if not (path / name).is_file():
            raise ArtefactError(f"{path}: no {name} there: not an estimator, or its training has not finished")
    try:
        content = json.loads((path / FILES[1]).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path / FILES[1]}: truncated or not JSON ({error}): copy or train it again") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise ArtefactError(
            f"{path}: artefact schema {found}, this version ({sbi_da.__version__}) reads {SCHEMA}: "
            "train it again or use the version that wrote it"
        )
    weights = path / FILES[0]
    if hashlib.sha256(weights.read_bytes()).hexdigest() != content.get("weights_sha256"):
        raise ArtefactError(f"{weights}: truncated or altered (checksum differs): copy or train it again")
    return content, weights


def _versions() -> dict[str, str]:
    found = {}
    for name in ("sbi-da", "torch", "zuko", "lightning", "numpy", "xarray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

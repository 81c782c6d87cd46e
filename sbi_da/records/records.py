"""Measurements of objects by several surveys, in one xarray tree.

``/surveys/<name>`` holds ``value``, ``error`` (float64) and ``state`` (uint8) with dimensions ``(object, channel)``;
``/parameters`` what is known of the physical parameters; the root the identifiers and per-object columns (``group``,
``log_weight``). A state is :data:`ABSENT` (never looked, not matched), :data:`OBSERVED` or :data:`LIMIT` (looked, not
detected: the value is the limit).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import sbi_da
from sbi_da.atomic import whole_folder
from sbi_da.errors import ArtefactError, SbiDaError, UnknownNameError

__all__ = ["ABSENT", "LIMIT", "OBSERVED", "Measurements", "Records"]

ABSENT, OBSERVED, LIMIT = 0, 1, 2
SCHEMA = 1


@dataclass(frozen=True)
class Measurements:
    """Values, errors and states of one survey, each of shape ``(object, channel)``."""

    channels: tuple[str, ...]
    units: tuple[str, ...]
    value: np.ndarray
    error: np.ndarray
    state: np.ndarray

    def where(self, keep: np.ndarray) -> "Measurements":
        """The same with channels absent where ``keep`` (boolean, same shape) is False."""
        return Measurements(self.channels, self.units, self.value, self.error, np.where(keep, self.state, ABSENT).astype(np.uint8))


class Records:
    """A set of objects. ``records.tree`` is the :class:`xarray.DataTree` itself."""

    def __init__(self, tree: xr.DataTree) -> None:
        self.tree = tree

    @classmethod
    def build(
        cls,
        measurements: Mapping[str, Measurements],
        ids: np.ndarray | None = None,
        parameters: Mapping[str, np.ndarray] | None = None,
        columns: Mapping[str, np.ndarray] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> "Records":
        """Assemble records.

        Args:
            measurements: by survey name.
            ids: unique identifiers, shape ``(object,)``; row numbers if None.
            parameters: known parameters by name, shape ``(object,)``; ``<name>_error`` for their errors.
            columns: per-object root columns such as ``group`` and ``log_weight``.
            attrs: provenance; ``domain`` is ``simulated`` or ``real``.

        Raises:
            SbiDaError: duplicate identifiers, differing lengths or shapes.
        """
        sizes = {len(m.value) for m in measurements.values()} | {len(v) for v in (parameters or {}).values()}
        if ids is not None:
            sizes.add(len(ids))
        if len(sizes) != 1:
            raise SbiDaError(f"records need one length for all surveys, parameters and ids, not {sorted(sizes)}")
        n = sizes.pop()
        ids = np.arange(n) if ids is None else np.asarray(ids)
        unique, counts = np.unique(ids, return_counts=True)
        if len(unique) != n:
            repeated = unique[counts > 1][0]
            raise SbiDaError(f"identifier {repeated!r} occurs {counts.max()} times: identifiers must be unique")
        nodes: dict[str, xr.Dataset] = {
            "/": xr.Dataset(
                {name: ("object", np.asarray(v)) for name, v in (columns or {}).items()},
                coords={"object": ids},
                attrs={"schema": SCHEMA, "sbi_da": sbi_da.__version__, "domain": "real", **(attrs or {})},
            )
        }
        for name, m in measurements.items():
            shape = (n, len(m.channels))
            if not m.value.shape == m.error.shape == m.state.shape == shape:
                raise SbiDaError(f"survey {name!r}: value, error and state must have shape {shape}")
            nodes[f"/surveys/{name}"] = xr.Dataset(
                {
                    "value": (("object", "channel"), np.asarray(m.value, float)),
                    "error": (("object", "channel"), np.asarray(m.error, float)),
                    "state": (("object", "channel"), np.asarray(m.state, np.uint8)),
                },
                coords={"channel": list(m.channels), "unit": ("channel", list(m.units))},
            )
        if parameters:
            nodes["/parameters"] = xr.Dataset({k: ("object", np.asarray(v, float)) for k, v in parameters.items()})
        return cls(xr.DataTree.from_dict(nodes))

    def __len__(self) -> int:
        return int(self.tree.sizes["object"])

    def __repr__(self) -> str:
        return f"Records({len(self)} objects, surveys: {', '.join(self.surveys)}, domain: {self.attrs.get('domain')})"

    @property
    def attrs(self) -> dict[Any, Any]:
        """Provenance."""
        return dict(self.tree.attrs)

    @property
    def ids(self) -> np.ndarray:
        """Identifiers, shape ``(object,)``."""
        return self.tree.coords["object"].values

    @property
    def surveys(self) -> list[str]:
        """Names of the surveys held."""
        return list(self.tree["surveys"].children) if "surveys" in self.tree.children else []

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Known parameters by name, each of shape ``(object,)``."""
        if "parameters" not in self.tree.children:
            return {}
        return {str(k): v.values for k, v in self.tree["parameters"].data_vars.items()}

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Per-object root columns."""
        return {str(k): v.values for k, v in self.tree.data_vars.items()}

    def survey(self, name: str) -> Measurements:
        """Measurements of one survey; raises ``UnknownNameError`` for one these records do not hold."""
        if name not in self.surveys:
            raise UnknownNameError("survey", name, self.surveys, "of these records")
        node = self.tree.children["surveys"].children[name].dataset
        return Measurements(
            tuple(str(c) for c in node["channel"].values), tuple(str(u) for u in node["unit"].values),
            node["value"].values, node["error"].values, node["state"].values,
        )

    def _rebuild(self, measurements: Mapping[str, Measurements], index: Any = slice(None)) -> "Records":
        return Records.build(
            {
                k: Measurements(m.channels, m.units, m.value[index], m.error[index], m.state[index])
                for k, m in measurements.items()
            },
            self.ids[index],
            {k: v[index] for k, v in self.parameters.items()},
            {k: v[index] for k, v in self.columns.items()},
            self.attrs,
        )

    def select(self, surveys: Sequence[str]) -> "Records":
        """The same objects as seen by ``surveys`` only."""
        return self._rebuild({name: self.survey(name) for name in surveys})

    def isel(self, index: Any) -> "Records":
        """Objects by position: a slice, an integer array or a boolean mask."""
        return self._rebuild({name: self.survey(name) for name in self.surveys}, index)

    def sel(self, identifier: Any) -> "Records":
        """The object with this identifier; its type is taken from the identifiers held."""
        match = np.flatnonzero(self.ids.astype(str) == str(identifier))
        if len(match) == 0:
            raise SbiDaError(f"no object has the identifier {identifier!r}; the first is {self.ids[0]!r}")
        return self.isel(match)

    def with_measurements(self, measurements: Mapping[str, Measurements]) -> "Records":
        """The same objects with other measurements."""
        return self._rebuild(measurements)

    def with_parameters(self, parameters: Mapping[str, np.ndarray]) -> "Records":
        """The same objects with further parameters, or others of the same name, each of shape ``(object,)``."""
        measured = {name: self.survey(name) for name in self.surveys}
        return Records.build(measured, self.ids, {**self.parameters, **parameters}, self.columns, self.attrs)

    def pattern(self) -> np.ndarray:
        """For each object, the names of the surveys with anything but ABSENT, joined by ``+`` (``none`` if empty)."""
        code = np.zeros(len(self), int)
        for i, name in enumerate(self.surveys):
            code |= (self.survey(name).state != ABSENT).any(1).astype(int) << i
        distinct, index = np.unique(code, return_inverse=True)
        labels = ["+".join(s for i, s in enumerate(self.surveys) if c >> i & 1) or "none" for c in distinct]
        return np.array(labels, dtype=str)[index]

    def save(self, path: str | Path) -> Path:
        """Write as a Zarr folder, first under a temporary name, then renamed.

        The format is Zarr 2, whose fixed-length texts are specified; those of Zarr 3 are not yet.
        """
        path = Path(path)
        tree = self.tree.copy()
        # a folder has no order of its own, and a missing chunk reads as nulls: hence both of these
        tree.attrs["order"] = {"surveys": self.surveys, "parameters": list(self.parameters)}
        tree.attrs["tally"] = _tally(tree)
        try:
            with whole_folder(path) as folder:
                tree.to_zarr(folder / "tree", mode="w", consolidated=False, zarr_format=2)
                for child in list((folder / "tree").iterdir()):
                    child.rename(folder / child.name)
                (folder / "tree").rmdir()
        except OSError as error:
            raise SbiDaError(f"{path}: cannot be written ({' '.join(str(error).split())}): free space or choose another place") from error
        return path

    @classmethod
    def open(cls, path: str | Path) -> "Records":
        """Read a Zarr folder written by :meth:`save`.

        Raises:
            ArtefactError: not such a folder, truncated, or of another schema version.
        """
        path = Path(path)
        if not path.is_dir():
            raise ArtefactError(f"{path}: no such records folder; make one with `sbi-da simulate`")
        try:
            tree = xr.open_datatree(path, engine="zarr", consolidated=False).load()
        except Exception as error:
            raise ArtefactError(f"{path}: cannot be read as records ({' '.join(str(error).split())})") from error
        if tree.attrs.get("schema") != SCHEMA:
            raise ArtefactError(
                f"{path}: records schema {tree.attrs.get('schema')}, this version reads {SCHEMA}: write them again"
            )
        order, tally = tree.attrs.pop("order", {}), tree.attrs.pop("tally", {})
        if _tally(tree) != tally:
            raise ArtefactError(f"{path}: these records are truncated or were changed: write them again")
        nodes = {"/": tree.to_dataset(inherit=False)}
        for name in order["surveys"]:
            nodes[f"/surveys/{name}"] = tree.children["surveys"].children[name].to_dataset(inherit=False)
        if order["parameters"]:
            nodes["/parameters"] = tree.children["parameters"].to_dataset(inherit=False)[order["parameters"]]
        return cls(xr.DataTree.from_dict(nodes))


def _tally(tree: xr.DataTree) -> dict[str, int]:
    """How many entries of each array are neither null nor zero nor empty, by path: what a lost chunk would change."""
    tally = {}
    for node in tree.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            values = variable.values
            kept = np.isfinite(values) & (values != 0) if values.dtype.kind == "f" else values.astype(bool)
            tally[f"{node.path.rstrip('/')}/{name}"] = int(kept.sum())
    return tally

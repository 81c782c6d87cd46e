"""Measurements of objects by several surveys, in one xarray tree.

``/surveys/<name>`` holds ``value``, ``error`` (float64) and ``state`` (uint8) with dimensions ``(object, channel)``;
``/images/<name>`` holds ``value`` with dimensions ``(object, band, y, x)``, ``error`` and ``state`` with ``(object, band)``;
``/parameters`` what is known of the physical parameters; ``/sealed`` what is known but not to be seen before an evaluation opens it
(labels of objects an estimator is adapted to); the root the identifiers and per-object columns (``group``, ``log_weight``). A state is
:data:`ABSENT` (never looked, not matched), :data:`OBSERVED` or :data:`LIMIT` (looked, not detected: the value is the limit). Pixels are
read from disk when they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

import sbi_da
from sbi_da.errors import SbiDaError, UnknownNameError

if TYPE_CHECKING:
    from sbi_da.records.images import Images

__all__ = ["ABSENT", "LIMIT", "OBSERVED", "Measurements", "Records"]

ABSENT, OBSERVED, LIMIT = 0, 1, 2
SCHEMA = 1
"""Of saved records."""


@dataclass(frozen=True)
class Measurements:
    """Values, errors and states of one survey, each of shape ``(object, channel)``."""

    channels: tuple[str, ...]
    units: tuple[str, ...]
    value: np.ndarray
    error: np.ndarray
    state: np.ndarray

    @classmethod
    def empty(cls, objects: int) -> Measurements:
        """Of a survey without scalar channels."""
        return cls((), (), np.zeros((objects, 0)), np.ones((objects, 0)), np.zeros((objects, 0), np.uint8))

    def where(self, keep: np.ndarray) -> Measurements:
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
        images: Mapping[str, Images] | None = None,
        sealed: Mapping[str, np.ndarray] | None = None,
    ) -> Records:
        """Assemble records.

        Args:
            measurements: by survey name.
            ids: unique identifiers, shape ``(object,)``; row numbers if None.
            parameters: known parameters by name, shape ``(object,)``; ``<name>_error`` for their errors.
            columns: per-object root columns such as ``group`` and ``log_weight``.
            attrs: provenance; ``domain`` is ``simulated`` or ``real``.
            images: by survey name; a survey may have measurements, images, or both.
            sealed: parameters that only :meth:`opened` shows.

        Raises:
            SbiDaError: duplicate identifiers, differing lengths or shapes.
        """
        from sbi_da.records.images import as_variable

        images, sealed = images or {}, sealed or {}
        sizes = {len(m.value) for m in measurements.values()} | {len(i) for i in images.values()}
        sizes |= {len(v) for known in (parameters or {}, sealed) for v in known.values()}
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
        for name, image in images.items():
            variables = {
                "value": as_variable(image.pixels),
                "error": (("object", "band"), np.asarray(image.error, float)),
                "state": (("object", "band"), np.asarray(image.state, np.uint8)),
            }
            nodes[f"/images/{name}"] = xr.Dataset(variables, coords={"band": list(image.bands)})
        for node, known in (("/parameters", parameters), ("/sealed", sealed)):
            if known:
                nodes[node] = xr.Dataset({k: ("object", np.asarray(v, float)) for k, v in known.items()})
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
        """Names of the surveys held, by measurements, images, or both."""
        return list(dict.fromkeys([*self._names("surveys"), *self.image_surveys]))

    @property
    def image_surveys(self) -> list[str]:
        """Names of the surveys of which images are held."""
        return self._names("images")

    def _names(self, group: str) -> list[str]:
        return list(self.tree[group].children) if group in self.tree.children else []

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Known parameters by name, each of shape ``(object,)``."""
        return self._known("parameters")

    def _known(self, node: str) -> dict[str, np.ndarray]:
        if node not in self.tree.children:
            return {}
        return {str(k): v.values for k, v in self.tree[node].data_vars.items()}

    def sealed(self) -> Records:
        """The same objects with all their parameters out of sight until :meth:`opened`."""
        kept = {**self._known("sealed"), **self.parameters}
        return Records.build(self._measurements(), self.ids, None, self.columns, self.attrs, self._images(), kept)

    def opened(self) -> Records:
        """The same objects with what was sealed among their parameters. Only an evaluation may look."""
        known = {**self.parameters, **self._known("sealed")}
        return Records.build(self._measurements(), self.ids, known, self.columns, self.attrs, self._images())

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Per-object root columns."""
        return {str(k): v.values for k, v in self.tree.data_vars.items()}

    def survey(self, name: str) -> Measurements:
        """Measurements of one survey, without channels where it has images only.

        Raises:
            UnknownNameError: one that these records do not hold.
        """
        if name not in self.surveys:
            raise UnknownNameError("survey", name, self.surveys, "of these records")
        if name not in self._names("surveys"):
            return Measurements.empty(len(self))
        node = self.tree.children["surveys"].children[name].dataset
        return Measurements(
            tuple(str(c) for c in node["channel"].values), tuple(str(u) for u in node["unit"].values),
            node["value"].values, node["error"].values, node["state"].values,
        )

    def images(self, name: str) -> Images:
        """Images of one survey, unread where they lie on disk.

        Raises:
            UnknownNameError: one of which these records hold none.
        """
        from sbi_da.records.images import Images, pixels_of

        if name not in self.image_surveys:
            raise UnknownNameError("survey", name, self.image_surveys, "with images in these records")
        node = self.tree.children["images"].children[name].dataset
        bands = tuple(str(b) for b in node["band"].values)
        return Images(bands, pixels_of(node["value"]), node["error"].values, node["state"].values)

    def _measurements(self) -> dict[str, Measurements]:
        return {name: self.survey(name) for name in self._names("surveys")}

    def _images(self) -> dict[str, Images]:
        return {name: self.images(name) for name in self.image_surveys}

    def _rebuild(
        self, measurements: Mapping[str, Measurements], index: Any = slice(None), images: Mapping[str, Images] | None = None
    ) -> Records:
        pictures = self._images() if images is None else images
        return Records.build(
            {
                k: Measurements(m.channels, m.units, m.value[index], m.error[index], m.state[index])
                for k, m in measurements.items()
            },
            self.ids[index],
            {k: v[index] for k, v in self.parameters.items()},
            {k: v[index] for k, v in self.columns.items()},
            self.attrs,
            {k: v.take(index) for k, v in pictures.items()},
            {k: v[index] for k, v in self._known("sealed").items()},
        )

    def select(self, surveys: Sequence[str]) -> Records:
        """The same objects as seen by ``surveys`` only."""
        scalars = [name for name in surveys if name in self._names("surveys") or name not in self.image_surveys]
        images = {name: self.images(name) for name in surveys if name in self.image_surveys}
        return self._rebuild({name: self.survey(name) for name in scalars}, images=images)

    def isel(self, index: Any) -> Records:
        """Objects by position: a slice, an integer array or a boolean mask."""
        return self._rebuild(self._measurements(), index)

    def sel(self, identifier: Any) -> Records:
        """The object with this identifier; its type is taken from the identifiers held."""
        match = np.flatnonzero(self.ids.astype(str) == str(identifier))
        if len(match) == 0:
            raise SbiDaError(f"no object has the identifier {identifier!r}; the first is {self.ids[0]!r}")
        return self.isel(match)

    def with_measurements(self, measurements: Mapping[str, Measurements]) -> Records:
        """The same objects, and images, with other measurements."""
        return self._rebuild(measurements)

    def with_parameters(self, parameters: Mapping[str, np.ndarray]) -> Records:
        """The same objects with further parameters, or others of the same name, each of shape ``(object,)``."""
        return Records.build(
            self._measurements(), self.ids, {**self.parameters, **parameters}, self.columns, self.attrs, self._images(),
            self._known("sealed"),
        )

    def with_columns(self, columns: Mapping[str, np.ndarray]) -> Records:
        """The same objects with further root columns, or others of the same name, each of shape ``(object,)``."""
        return Records.build(
            self._measurements(), self.ids, self.parameters, {**self.columns, **columns}, self.attrs, self._images(),
            self._known("sealed"),
        )

    def pattern(self) -> np.ndarray:
        """For each object, the names of the surveys with anything but ABSENT, joined by ``+`` (``none`` if empty)."""
        code = np.zeros(len(self), int)
        for i, name in enumerate(self.surveys):
            seen = (self.survey(name).state != ABSENT).any(1)
            if name in self.image_surveys:
                seen |= (self.images(name).state != ABSENT).any(1)
            code |= seen.astype(int) << i
        distinct, index = np.unique(code, return_inverse=True)
        labels = ["+".join(s for i, s in enumerate(self.surveys) if c >> i & 1) or "none" for c in distinct]
        return np.array(labels, dtype=str)[index]

    def save(self, path: str | Path) -> Path:
        """Write as a Zarr folder, first under a temporary name, then renamed.

        The format is Zarr 2, whose fixed-length texts are specified; those of Zarr 3 are not yet.
        """
        from sbi_da.records.storage import save

        return save(self.tree, path, self.surveys, self.parameters)

    @classmethod
    def open(cls, path: str | Path) -> Records:
        """Read a Zarr folder written by :meth:`save`; images stay there until they are used.

        Raises:
            ArtefactError: not such a folder, truncated, or of another schema version.
        """
        from sbi_da.records.storage import load

        return cls(load(path))

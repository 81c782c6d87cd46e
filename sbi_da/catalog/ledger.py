"""The folder of an inference: who writes to it, what was asked, which partitions are done, and the manifest once all are.

While it runs, ``.progress/`` holds the plan and a line about each finished partition; a partition counts as done when its file has the
checksum that this line states. When all are done the manifest takes the place of that folder.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from sbi_da.catalog.repeats import find_repeats
from sbi_da.catalog.sources import File, Partition, digest
from sbi_da.errors import SbiDaError

__all__ = ["ANSWERS", "Ledger"]

ANSWERS = "objects"
"""Folder of the answers."""
MANIFEST, REJECTED, PROGRESS = "manifest.json", "rejected.parquet", ".progress"
PLAN, LOCK, REPEATS = "plan.json", "lock", "repeats.npy"


class Ledger:
    """What is known of the folder ``out``."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.progress = out / PROGRESS
        self._lock: FileLock | None = None

    @property
    def answers(self) -> Path:
        """Folder of the answers."""
        return self.out / ANSWERS

    @property
    def staged(self) -> Path:
        """Folder of copies of what is not Parquet."""
        return self.progress / "staged"

    def open(self) -> None:
        """Take the folder for this process.

        Raises:
            SbiDaError: something else is there, or another process writes to it.
        """
        if self.out.exists():
            held = {p.name for p in self.out.iterdir()} if self.out.is_dir() else {""}
            if held and not held & {MANIFEST, PROGRESS}:
                raise SbiDaError(f"{self.out} exists already and is something else: choose another name or remove it")
        self.progress.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.progress / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SbiDaError(f"{self.out}: another process writes to it: wait for it, or choose another --out") from None
        self._lock = lock
        self._sweep()

    def close(self) -> None:
        """Let others have it; where nothing was answered, nothing is left."""
        if self._lock is None:
            return
        finished = (self.out / MANIFEST).exists()
        begun = any((self.progress / "done").rglob("*.json"))
        if finished or not begun:
            shutil.rmtree(self.progress, ignore_errors=True)
        self._lock.release()
        self._lock = None
        if not finished and not begun:
            shutil.rmtree(self.answers, ignore_errors=True)
            if not any(self.out.iterdir()):
                self.out.rmdir()

    def _sweep(self) -> None:
        """Remove what processes that were killed have left half-written."""
        for folder in (self.answers, self.progress):
            for path in folder.rglob(".*partial*"):
                path.unlink(missing_ok=True)

    @property
    def finished(self) -> dict[str, Any] | None:
        """The manifest, if all is done."""
        return _read(self.out / MANIFEST)

    def settle(self, plan: Mapping[str, Any], files: list[File]) -> None:
        """Write down what is asked of what, or check it against what was written down by an earlier run.

        Raises:
            SbiDaError: the catalogue, the estimator or the question is another one.
        """
        earlier = self.finished or _read(self.progress / PLAN)
        times = {file.name: [file.size, file.modified] for file in files}
        same = None if earlier is None else earlier.get("input")
        known = earlier or {}
        if same is not None and [f["name"] for f in same] == [f.name for f in files] and known.get("times") == times:
            digests = [f["blake2b"] for f in same]
        else:
            digests = [digest(file.path) for file in files]
        plan = {**plan, "input": [{"name": f.name, "size": f.size, "blake2b": d} for f, d in zip(files, digests, strict=True)]}
        if earlier is not None:
            _compare(self.out, plan, earlier)
        if self.finished is None:
            _write(self.progress / PLAN, {**plan, "times": times})

    def look_for_repeats(self, partitions: list[Partition], id_column: str) -> None:
        """Find identifiers that occur more than once, unless an earlier run did.

        Raises:
            TableError: what cannot be read or written.
        """
        if not (self.progress / REPEATS).exists():
            found = find_repeats(partitions, id_column, self.progress / "keys")
            with _replacing(self.progress / REPEATS) as stream:
                np.save(stream, found, allow_pickle=False)

    def repeats(self) -> np.ndarray:
        """Keys of the identifiers that were found to occur more than once, sorted."""
        return np.asarray(np.load(self.progress / REPEATS, allow_pickle=False))

    def done(self, partition: Partition) -> dict[str, Any] | None:
        """What was written down of a partition whose answer is there, whole and unaltered; None if it must be answered."""
        said = _read(self._line(partition))
        file = self.answers / partition.name
        whole = said is not None and file.exists() and digest(file) == said["blake2b"]
        return said if whole else None

    def _line(self, partition: Partition) -> Path:
        return self.progress / "done" / f"{partition.name}.json"

    def record(self, partition: Partition, counts: Mapping[str, Any]) -> None:
        """Write down that a partition is answered."""
        line = self._line(partition)
        line.parent.mkdir(parents=True, exist_ok=True)
        _write(line, {"name": partition.name, **counts, "blake2b": digest(self.answers / partition.name)})

    def rejected(self, partition: Partition) -> Path:
        """Where the rows of a partition that are set aside are kept until all is done."""
        return self.progress / "rejected" / f"{partition.name}.json"

    def finish(self, partitions: list[Partition], malformed: tuple[str, ...]) -> dict[str, Any]:
        """Check that every row is answered or set aside, gather what was set aside, and write the manifest.

        Raises:
            SbiDaError: counts that do not agree.
        """
        lines = [self.done(p) for p in partitions]
        missing = [p.name for p, line in zip(partitions, lines, strict=True) if line is None]
        if missing:
            lost = f"{len(missing)} partitions are missing or altered (first {missing[0]})"
            raise SbiDaError(f"{self.out}: {lost}: run the same command again")
        told = [line for line in lines if line is not None]
        for partition, line in zip(partitions, told, strict=True):
            if line["answered"] + line["rejected"] != len(partition):
                counted = f"{partition.name} has {line['answered']} answers to {len(partition)} rows"
                raise SbiDaError(f"{self.out}: {counted}: please report this")
        self._gather(partitions, malformed)
        self._sweep()
        plan = _read(self.progress / PLAN) or {}
        total = {key: sum(line[key] for line in told) for key in ("answered", "rejected")}
        total["rejected"] += len(malformed)
        counts = {"rows": total["answered"] + total["rejected"], **total}
        manifest = {**{k: v for k, v in plan.items() if k != "times"}, "counts": counts, "partitions": told}
        _write(self.out / MANIFEST, manifest)
        return manifest

    def _gather(self, partitions: list[Partition], malformed: tuple[str, ...]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([("row", pa.int64()), ("reason", pa.string())])
        partial = self.progress / ".partial.rejected.parquet"
        with pq.ParquetWriter(partial, schema) as writer:
            for partition in partitions:
                said = _read(self.rejected(partition))
                if said:
                    writer.write_table(pa.table(said, schema=schema))
            if malformed:
                writer.write_table(pa.table({"row": [None] * len(malformed), "reason": list(malformed)}, schema=schema))
        os.replace(partial, self.out / REJECTED)


def _compare(out: Path, plan: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """Say what is another one."""
    again = "choose another --out, or remove this one"
    for now, then in zip(plan["input"], earlier["input"], strict=False):
        if now != then:
            changed = "was changed" if now["name"] == then["name"] else f"was called {then['name']}"
            raise SbiDaError(f"{out}: begun with another catalogue: {now['name']} {changed} since: {again}")
    if len(plan["input"]) != len(earlier["input"]):
        raise SbiDaError(f"{out}: begun with a catalogue of {len(earlier['input'])} files, not {len(plan['input'])}: {again}")
    if plan["estimator"] != earlier["estimator"]:
        raise SbiDaError(f"{out}: begun with another estimator, or one trained again: {again}")
    if plan["trust"] != earlier["trust"]:
        raise SbiDaError(f"{out}: begun with another reference for the trust columns, or with none: {again}")
    if plan["device"] != (device := earlier.get("device", "cpu")):
        raise SbiDaError(f"{out}: begun with device {device}, not {plan['device']}: go on with --device {device}")
    for key, value in plan["question"].items():
        if value != earlier["question"].get(key):
            raise SbiDaError(f"{out}: begun with {key.replace('_', ' ')} {earlier['question'].get(key)!r}, not {value!r}: {again}")
    for name, version in plan["versions"].items():
        if version != earlier["versions"].get(name):
            raise SbiDaError(f"{out}: begun with {name} {earlier['versions'].get(name)}, not {version}: {again}")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with _replacing(path) as stream:
        stream.write(json.dumps(content, indent=1).encode())


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, which takes its name once it is whole and on the disk."""
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)

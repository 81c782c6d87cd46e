"""The folder of an inference: who writes to it, what was asked, which partitions are done, and the manifest once all are.

While it runs, ``.progress/`` holds the plan and a line about each finished partition; a partition counts as done when its file has the
checksum that this line states. When all are done the manifest takes the place of that folder.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from sbi_da.catalog.repeats import find_repeats, read_repeats, write_repeats
from sbi_da.catalog.sources import File, Partition, digest
from sbi_da.catalog.writing import PARTIAL, durable, partial_name, read_json, write_json
from sbi_da.errors import SbiDaError, TableError
from sbi_da.records.columns import one_line, remedy

__all__ = ["ANSWERS", "Ledger"]

ANSWERS = "objects"
"""Folder of the answers."""
MANIFEST, REJECTED, PROGRESS = "manifest.json", "rejected.parquet", ".progress"
PLAN, LOCK, REPEATS = "plan.json", "lock", "repeats"


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
            for path in folder.rglob(PARTIAL):
                path.unlink(missing_ok=True)

    @property
    def finished(self) -> dict[str, Any] | None:
        """The manifest, if all is done."""
        return read_json(self.out / MANIFEST)

    def settle(self, plan: Mapping[str, Any], files: list[File]) -> None:
        """Write down what is asked of what, or check it against what was written down by an earlier run.

        Raises:
            SbiDaError: the catalogue, the estimator or the question is another one.
        """
        earlier = self.finished or read_json(self.progress / PLAN)
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
        else:  # what was answered is of no known question
            for name in ("done", "rejected"):
                shutil.rmtree(self.progress / name, ignore_errors=True)
            (self.progress / REPEATS).unlink(missing_ok=True)
        if self.finished is None:
            write_json(self.progress / PLAN, {**plan, "times": times})

    def look_for_repeats(self, partitions: list[Partition], id_column: str) -> None:
        """Find identifiers that occur more than once, unless an earlier run did.

        Raises:
            TableError: what cannot be read or written.
        """
        place = self.progress / REPEATS
        if read_repeats(place) is None:
            try:
                write_repeats(place, find_repeats(partitions, id_column, self.progress / "keys"))
            except OSError as error:
                raise TableError(f"{self.out}: cannot be written ({one_line(error)}){remedy(error)}") from error

    def repeats(self) -> np.ndarray:
        """Keys of the identifiers that were found to occur more than once, sorted.

        Raises:
            SbiDaError: this process does not see the folder, as a worker on another machine may not.
        """
        found = read_repeats(self.progress / REPEATS)
        if found is None:
            why = "a process that is to answer does not see what was begun here"
            raise SbiDaError(f"{self.out}: {why}: workers need the run, the catalogue and --out under the same paths")
        return found

    def done(self, partition: Partition) -> dict[str, Any] | None:
        """What was written down of a partition whose answer is there, whole and unaltered; None if it must be answered."""
        said = read_json(self._line(partition))
        file = self.answers / partition.name
        if said is None or not file.exists() or digest(file) != said["blake2b"]:
            return None
        aside = read_json(self.rejected(partition)) or {"row": []}
        return said if len(aside["row"]) == said["rejected"] else None

    def _line(self, partition: Partition) -> Path:
        return self.progress / "done" / f"{partition.name}.json"

    def record(self, partition: Partition, counts: Mapping[str, Any]) -> None:
        """Write down that a partition is answered."""
        write_json(self._line(partition), {"name": partition.name, **counts, "blake2b": digest(self.answers / partition.name)})

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
        plan = read_json(self.progress / PLAN) or {}
        total = {key: sum(line[key] for line in told) for key in ("answered", "rejected")}
        total["rejected"] += len(malformed)
        counts = {"rows": total["answered"] + total["rejected"], **total}
        manifest = {**{k: v for k, v in plan.items() if k != "times"}, "counts": counts, "partitions": told}
        write_json(self.out / MANIFEST, manifest)
        return manifest

    def _gather(self, partitions: list[Partition], malformed: tuple[str, ...]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([("row", pa.int64()), ("reason", pa.string())])
        partial = partial_name(self.progress / REJECTED)
        with pq.ParquetWriter(partial, schema) as writer:
            for partition in partitions:
                said = read_json(self.rejected(partition))
                if said:
                    writer.write_table(pa.table(said, schema=schema))
            if malformed:
                writer.write_table(pa.table({"row": [None] * len(malformed), "reason": list(malformed)}, schema=schema))
        durable(partial)
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

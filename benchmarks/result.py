"""One JSON file per benchmark: what was run, on what, and every figure with its interval."""

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["figure", "named", "table", "with_earlier", "write"]

FOLDER = Path(__file__).parent / "results"


def figure(values: Sequence[float]) -> dict[str, float]:
    """Mean of ``values`` with a 95 % normal interval of the mean."""
    x = np.asarray(values, float)
    half = 1.96 * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else float("nan")
    return {"value": float(x.mean()), "low": float(x.mean() - half), "high": float(x.mean() + half)}


def named(parser: argparse.ArgumentParser, names: str, known: Iterable[str]) -> list[str]:
    """Names of an option that takes several, comma-separated, or ``all``; the parser refuses those that are not known."""
    known = list(known)
    given = known if names == "all" else names.split(",")
    if unknown := [name for name in given if name not in known]:
        parser.error(f"not known: {', '.join(unknown)}; there are {', '.join(known)}")
    return given


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned text."""
    cells = [[f"{c:.3f}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    widths = [max(len(h), *(len(r[i]) for r in cells)) for i, h in enumerate(headers)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in (headers, *cells)]
    return "\n".join(lines)


def with_earlier(name: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Rows, and those of the file as it is that they do not replace, each of these with the date of its run.

    Args:
        name: of the benchmark.
        rows: new ones.
        keys: columns that together tell rows apart.
    """
    path = FOLDER / f"{name}.json"
    content = json.loads(path.read_text()) if path.exists() else {"rows": []}
    done = {tuple(row[k] for k in keys) for row in rows}
    left = [row for row in content["rows"] if tuple(row[k] for k in keys) not in done]
    return [*map(dict, rows), *({"earlier": content["date"], **row} for row in left)]


def write(
    name: str, rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any], seeds: Sequence[int], **extra: Any
) -> Path:
    """Write ``benchmarks/results/<name>.json``."""
    program = Path(sys.argv[0])
    arguments = [Path(a).name if "/" in a else a for a in sys.argv[1:]]
    content = {
        "benchmark": name,
        "command": " ".join(["python -m", f"benchmarks.{program.parent.name if program.stem == '__main__' else program.stem}", *arguments]),
        "versions": {p: version(p) for p in ("sbi-da", "torch", "zuko", "lightning", "numpy")},
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "python": platform.python_version()},
        "date": datetime.date.today().isoformat(),
        "seeds": list(seeds),
        "rows": list(rows),
        "figures": dict(figures),
        **extra,
    }
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(content, indent=1, default=float))
    return path

"""Answers read back: draws, as posteriors give them."""

from pathlib import Path

import numpy as np
import xarray as xr

from sbi_da.errors import SbiDaError

__all__ = ["read_draws"]


def read_draws(path: str | Path) -> xr.Dataset:
    """The draws that were kept, in their own units.

    Args:
        path: a file of answers, or a folder of them, small enough for memory.

    Returns:
        One variable per quantity, dimensions ``(object, draw)``; ``.expand_dims("chain")`` makes it a posterior for ArviZ.

    Raises:
        SbiDaError: no draws were kept.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    names = [name.removesuffix("_draws") for name in table.column_names if name.endswith("_draws")]
    if not names:
        raise SbiDaError(f"{path}: no draws were kept: run sbi-da infer with --keep-draws N")
    data = {}
    for name in names:
        column = table[f"{name}_draws"].combine_chunks()
        standard = np.asarray(column.flatten(), np.float32).reshape(len(table), column.type.list_size)
        mean, sd = (np.asarray(table[f"{name}_{what}"])[:, None] for what in ("mean", "sd"))
        unit = (table.schema.field(f"{name}_mean").metadata or {}).get(b"unit", b"").decode()
        data[name] = (("object", "draw"), mean + sd * standard, {"units": unit})
    return xr.Dataset(data, coords={"object": table["id"].to_numpy(), "draw": np.arange(column.type.list_size)})

"""From a way to read images to records: every image is read once, and what cannot be used is marked.

An image that is missing, truncated or not an image is ABSENT in every band, a band with too many nulls in that band;
the root column ``image_flag`` says why and is empty otherwise. Where the pixels are fluxes, the noise of an image is
taken from its corners if nothing states it: 1.4826 times the median absolute deviation there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from sbi_da.errors import TableError
from sbi_da.records.columns import one_line
from sbi_da.records.image_layouts.catalogue import Catalogue
from sbi_da.records.images import Images, LazyPixels
from sbi_da.records.records import ABSENT, OBSERVED, Records
from sbi_da.surveys.card import Survey
from sbi_da.surveys.imaging import Imaging

__all__ = ["Domain", "ImageSource", "MisfitError", "Resize", "corner_noise", "fit", "image_of", "image_records"]

Domain = Literal["simulated", "real"]
Resize = Literal["crop", "zoom"]
CHECKED = 64
"""Images read at once when all are checked."""
MAD = 1.4826


class MisfitError(TableError):
    """An image that does not fit the survey: the fault is in the whole set, so that it is not merely flagged."""


@dataclass
class ImageSource:
    """A way to read images.

    Attributes:
        title: what messages call it.
        read: from rising positions to float32 or uint8 pixels of shape ``(k, band, y, x)``, NaN where null; it may
            raise anything if one of them cannot be read.
        shape: of all of them.
        dtype: uint8 or float32.
        notes: by position, why bands are missing; ``read`` may add to it.
        error: standard deviation of a pixel, shape ``(object, band)``, NaN where ``read`` has found none.
    """

    title: str
    read: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, ...]
    dtype: Any
    notes: dict[int, str] = field(default_factory=dict)
    error: np.ndarray | None = None


def image_of(survey: Survey) -> Imaging:
    """The camera of a survey.

    Raises:
        TableError: it has none.
    """
    if survey.image is None:
        raise TableError(f"survey {survey.name!r} has no images: its card needs a section `image`")
    return survey.image


def image_records(
    source: ImageSource, survey: Survey, catalogue: Catalogue, *, domain: Domain, sealed: bool | None = None, max_null: float = 0.1
) -> Records:
    """Records of one image survey. Names of classes are kept in the attributes ``classes_<parameter>``.

    Args:
        source: of the images.
        survey: whose images they are.
        catalogue: what is known of the objects.
        domain: ``simulated`` or ``real``.
        sealed: whether labels, votes and parameters are out of sight until an evaluation opens them; of real objects if None.
        max_null: a band with a larger share of nulls is absent; in others, the median of the band stands for them.

    Raises:
        TableError: not one image can be read, or one does not fit the survey.
    """
    images, flags = _inspect(source, image_of(survey), max_null)
    sealed = domain == "real" if sealed is None else sealed
    attrs: dict[str, Any] = {"domain": domain, "source": source.title.rsplit("/", 1)[-1]}
    attrs |= {f"classes_{name}": list(names) for name, names in catalogue.classes.items()}
    return Records.build(
        {}, catalogue.ids, None if sealed else catalogue.known, {**catalogue.columns, "image_flag": flags}, attrs,
        images={survey.name: images}, sealed=catalogue.known if sealed else None,
    )  # fmt: skip


def _inspect(source: ImageSource, imaging: Imaging, max_null: float) -> tuple[Images, np.ndarray]:
    """Read everything once: images with their states and errors, and the flag of each."""
    n, bands = source.shape[:2]
    state = np.full((n, bands), ABSENT, np.uint8)
    error = np.full((n, bands), np.nan)
    flags = [""] * n
    for positions, block in _blocks(source, flags):
        null = ~np.isfinite(block) if block.dtype.kind == "f" else np.zeros(block.shape, bool)
        share = null.mean((2, 3))
        blank = np.where(null, -np.inf, block).max((2, 3)) == np.where(null, np.inf, block).min((2, 3))
        if imaging.display is not None:
            blank &= blank.all(1, keepdims=True)  # a colour may well be missing from a composite
        good = (share <= max_null) & ~blank
        state[positions] = np.where(good, OBSERVED, ABSENT)
        if imaging.display is None:
            error[positions] = corner_noise(block)
        for i in np.flatnonzero(~good.all(1)):
            words = [
                f"{band.name}: " + (f"{share[i, j]:.0%} nulls" if share[i, j] > max_null else "blank")
                for j, band in enumerate(imaging.bands) if not good[i, j]
            ]  # fmt: skip
            flags[positions[i]] = source.notes.get(int(positions[i])) or "; ".join(words)
    if not state.any():
        raise TableError(f"{source.title}: none of the {n} images can be used; the first: {flags[0]}")
    if source.error is not None:
        error = np.where(np.isnan(source.error), error, source.error)
    error[state == ABSENT] = np.nan
    pixels = LazyPixels(_usable(source, state), source.shape, source.dtype)
    return Images(imaging.band_names, pixels, error, state), np.array(flags, dtype=str)


def _blocks(source: ImageSource, flags: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, source.shape[0], CHECKED):
        positions = np.arange(start, min(start + CHECKED, source.shape[0]))
        try:
            yield positions, source.read(positions)
            continue
        except MisfitError:
            raise
        except Exception:  # one by one, to find which; any decoder may raise anything over a broken file
            pass
        for i in positions:
            try:
                block = source.read(positions[i - start : i - start + 1])
            except MisfitError:
                raise
            except Exception as error:
                flags[i] = one_line(error)[:160]
            else:
                yield positions[i - start : i - start + 1], block


def _usable(source: ImageSource, state: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Reads images without nulls; zeros stand for what is absent."""

    def read(positions: np.ndarray) -> np.ndarray:
        result = np.zeros((len(positions), *source.shape[1:]), source.dtype)
        good = (state[positions] != ABSENT).any(1)
        if not good.any():
            return result
        block = source.read(positions[good])
        if block.dtype.kind == "f" and not np.isfinite(block).all():
            block = np.where(np.isfinite(block), block, np.nan)
            for i, j in np.argwhere(np.isnan(block).any((2, 3)) & (state[positions[good]] != ABSENT)):
                block[i, j] = np.nan_to_num(block[i, j], nan=float(np.nanmedian(block[i, j])))
        result[good] = np.where((state[positions[good]] != ABSENT)[..., None, None], block, 0)
        return result

    return read


def corner_noise(block: np.ndarray) -> np.ndarray:
    """Robust standard deviation of the pixels in the four corners, shape ``(object, band)``; NaN where all are null."""
    side = max(2, min(block.shape[2:]) // 8)
    pieces = [block[:, :, y, x] for y in (slice(side), slice(-side, None)) for x in (slice(side), slice(-side, None))]
    corners = np.concatenate([p.reshape(*block.shape[:2], -1) for p in pieces], 2).astype(float)
    corners[~np.isfinite(corners)] = np.nan
    result = np.full(block.shape[:2], np.nan)
    some = np.isfinite(corners).any(2)
    kept = corners[some]
    result[some] = MAD * np.nanmedian(np.abs(kept - np.nanmedian(kept, 1, keepdims=True)), 1)
    return result


def fit(block: np.ndarray, imaging: Imaging, resize: Resize | None, where: str) -> np.ndarray:
    """Images of shape ``(object, band, y, x)`` at the survey's size.

    Args:
        block: any number of pixels on a side.
        imaging: the survey's.
        resize: ``crop``: the central pixels; ``zoom``: the central square resampled, its flux kept where pixels are
            fluxes, its colours where they are a composite; None: another size is an error.
        where: file, for messages.

    Raises:
        MisfitError: another size, and no way to mend it.
    """
    height, width = block.shape[2:]
    size = imaging.size
    if height == width == size:
        return block
    given = f"{where}: {height} x {width} pixels where the survey has {size} x {size}"
    if resize is None:
        raise MisfitError(f"{given}: pass resize='crop' for the central pixels or resize='zoom' to resample")
    side = size if resize == "crop" else min(height, width)
    if min(height, width) < side:
        raise MisfitError(f"{given}: too few to crop: pass resize='zoom', or a survey of smaller images")
    top, left = (height - side) // 2, (width - side) // 2
    block = block[:, :, top : top + side, left : left + side]
    if side == size:
        return block
    values = torch.from_numpy(np.ascontiguousarray(block, np.float32))
    zoomed = functional.interpolate(values, (size, size), mode="bilinear", antialias=True, align_corners=False).numpy()
    if imaging.display is None:
        zoomed = zoomed * np.float32((side / size) ** 2)
    return np.clip(np.rint(zoomed), 0, 255).astype(np.uint8) if block.dtype == np.uint8 else zoomed

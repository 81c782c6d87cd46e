"""Galaxy Zoo: a table of what volunteers said of pictures, several questions at once.

A decision tree asks of every galaxy its first question and later ones of those for which they make sense, so that a question has its
own number of votes for every galaxy, often none. The counts become the parameters ``<question>_votes_<answer>``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.channels import numbers
from sbi_da.records.columns import TableLike, open_source, some
from sbi_da.records.image_layouts.assembling import Domain, Resize, image_of, image_records
from sbi_da.records.image_layouts.catalogue import read_catalogue
from sbi_da.records.image_layouts.labels import texts, vote_counts
from sbi_da.records.image_layouts.pictures import Folder, picture_source
from sbi_da.records.records import Records
from sbi_da.surveys.card import Survey

__all__ = ["read_galaxy_zoo"]


def read_galaxy_zoo(
    table: TableLike,
    folder: str | Path,
    survey: Survey,
    image_column: str,
    questions: Mapping[str, Mapping[str, str]] | None = None,
    totals: Mapping[str, str] | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    columns: Sequence[str] = (),
    id_column: str | None = None,
    group_column: str | None = None,
    resize: Resize | None = None,
    domain: Domain = "real",
    sealed: bool | None = None,
) -> Records:
    """Records of a table whose rows name pictures and hold votes, or labels of which an object may have several.

    Args:
        table: a path, whose suffix says the format; or a mapping of arrays, a pyarrow, astropy or pandas table.
        folder: of the pictures.
        survey: whose images they are; it must have a display.
        image_column: paths under ``folder``, or names without the suffix .png, .jpg or .jpeg.
        questions: by name, answer to column of its votes.
        totals: by question, column of all votes on it, where its columns hold fractions of them.
        labels: name to column: 1 holds, 0 does not, null unknown.
        columns: columns kept as root columns.
        id_column: unique identifiers; row numbers if None or ``"#row"``.
        group_column: what becomes the root column ``group``.
        resize: what to do with pictures of another size: ``crop`` or ``zoom``.
        domain: ``simulated`` or ``real``.
        sealed: whether votes and labels are sealed; those of real objects if None.

    Raises:
        TableError: in one line, what is wrong with table or folder and how to mend it.
    """
    source = open_source(table)
    asked, said, whole = dict(questions or {}), dict(labels or {}), dict(totals or {})
    used = [column for answers in asked.values() for column in answers.values()]
    catalogue = read_catalogue(
        source, columns=columns, id_column=id_column, group_column=group_column,
        needed=[image_column, *used, *whole.values(), *said.values()],
    )  # fmt: skip
    for name in whole:
        if name not in asked:
            raise TableError(f"{source.title}: totals of {name!r}, which is no question: those are {some(list(asked))}")
    known: dict[str, np.ndarray] = {}
    for name, answers in asked.items():
        total = source.column(whole[name]) if name in whole else None
        votes = {answer: source.column(column) for answer, column in answers.items()}
        counts = vote_counts(votes, total, f"{source.title}: {name}")
        known |= {f"{name}_votes_{answer}": values for answer, values in counts.items()}
    for name, column in said.items():
        known[name] = _zeros_and_ones(numbers(source.column(column), f"{source.title}: column {column!r}"), f"{source.title}: {name}")
    pictures = picture_source(Folder(folder), texts(source.column(image_column)).tolist(), image_of(survey), resize)
    names = {name: list(answers) for name, answers in asked.items()}
    return image_records(pictures, survey, replace(catalogue, known=known, classes=names), domain=domain, sealed=sealed)


def _zeros_and_ones(values: np.ndarray, where: str) -> np.ndarray:
    wrong = values[np.isfinite(values) & (values != 0) & (values != 1)]
    if len(wrong):
        raise TableError(f"{where}: a label is 0, 1 or null, not {wrong[0]:g}: give fractions of votes as a question with its total")
    return values

"""Catalogues of any size: see :func:`infer`."""

from sbi_da.catalog.flags import Flag
from sbi_da.catalog.frames import answer_frame
from sbi_da.catalog.question import Question
from sbi_da.catalog.reading import read_draws
from sbi_da.catalog.running import infer

__all__ = ["Flag", "Question", "answer_frame", "infer", "read_draws"]

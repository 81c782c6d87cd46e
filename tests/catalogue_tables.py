"""Simulated records as the table a catalogue would be."""

import numpy as np

from sbi_da.records import ABSENT, LIMIT


def columns_of(records, surveys, start=0):
    """Values and errors by the cards' column names, and identifiers."""
    columns = {"source_id": 10**15 + 7919 * (start + np.arange(len(records)))}
    for survey in surveys:
        held = records.survey(survey.name)
        for k, channel in enumerate(survey.channels):
            absent = held.state[:, k] == ABSENT
            columns[channel.column] = np.where(absent, np.nan, held.value[:, k])
            columns[channel.error_column] = np.where(absent | (held.state[:, k] == LIMIT), np.nan, held.error[:, k])
    return columns

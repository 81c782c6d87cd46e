"""Surveys: what an instrument records of the sky, and how its public tables spell it."""

from sbi_da.plugins import mount

mount(__path__, "surveys")

from sbi_da.surveys.card import Channel, Noise, Survey  # noqa: E402
from sbi_da.surveys.imaging import Display, ImageBand, Imaging  # noqa: E402
from sbi_da.surveys.registry import get_survey, list_surveys  # noqa: E402

__all__ = ["Channel", "Display", "ImageBand", "Imaging", "Noise", "Survey", "get_survey", "list_surveys"]

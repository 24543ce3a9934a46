"""Modalities in words, where a person types or reads them. Quick to import, for the command line."""

from __future__ import annotations

from enum import StrEnum


class ModalityName(StrEnum):
    """What a tracklet was seen by."""

    visible = "visible"
    infrared = "infrared"


class ToldModality(StrEnum):
    """The same where the pixels may be asked: auto tells grey from colour."""

    auto = "auto"
    visible = "visible"
    infrared = "infrared"

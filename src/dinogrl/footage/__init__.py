"""From a person's own footage to tracklets in the folder layout."""

from dinogrl.footage.cut import CutResult, CutTracklet, FootageProgress, cut_tracklets, cut_video
from dinogrl.footage.settings import FootageSettings

__all__ = ["CutResult", "CutTracklet", "FootageProgress", "FootageSettings", "cut_tracklets", "cut_video"]

"""Faces: detect, align, encode, verify, identify.

Distances and thresholds are Euclidean, between encodings.
"""

from __future__ import annotations

from nstcore.faces.answers import Match, Verification
from nstcore.faces.calibration import Calibration
from nstcore.faces.face import Face

__all__ = ["Calibration", "Face", "Match", "Verification"]

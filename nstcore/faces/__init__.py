"""Faces: detect, align, encode, verify, identify.

Distances and thresholds are Euclidean, between encodings.
"""

from __future__ import annotations

# Functions that share their module's name are imported here, or the module would take the name; the networks and
# Pillow are loaded when they are first needed.
from nstcore.faces.align import align, jittered, jittered_chips
from nstcore.faces.answers import Match, Verification
from nstcore.faces.calibration import Calibration
from nstcore.faces.detect import detect
from nstcore.faces.draw import draw
from nstcore.faces.face import Face
from nstcore.faces.quality import Quality, problems, quality

__all__ = [
    "Calibration", "Face", "Match", "Quality", "Verification", "align", "detect", "draw", "jittered", "jittered_chips",
    "problems", "quality",
]  # fmt: skip

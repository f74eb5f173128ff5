"""Faces: detect, align, encode, verify, identify.

Distances and thresholds are Euclidean, between encodings.
"""

from __future__ import annotations

# Functions that share their module's name are imported here, or the module would take the name; the networks and
# Pillow are loaded when they are first needed.
from nstcore.faces.align import align, jittered
from nstcore.faces.answers import Match, Verification
from nstcore.faces.calibration import Calibration
from nstcore.faces.detect import detect
from nstcore.faces.encoder import Encoder, encode, load_encoder
from nstcore.faces.face import Face
from nstcore.faces.verify import verify

__all__ = [
    "Calibration", "Encoder", "Face", "Match", "Verification", "align", "detect", "encode", "jittered", "load_encoder",
    "verify",
]  # fmt: skip

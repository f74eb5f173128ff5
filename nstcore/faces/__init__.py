"""Faces: detect, align, encode, verify, identify.

Distances and thresholds are Euclidean, between encodings.
"""

from __future__ import annotations

# Functions that share their module's name are imported here, or the module would take the name; the networks and
# Pillow are loaded when they are first needed.
from nstcore.faces.align import align, jittered, jittered_chips
from nstcore.faces.answers import Match, Verification
from nstcore.faces.augment import Augmentation
from nstcore.faces.calibrate import CalibrationReport, calibrate
from nstcore.faces.calibration import Calibration
from nstcore.faces.detect import detect
from nstcore.faces.draw import draw
from nstcore.faces.encoder import Encoder, encode, load_encoder
from nstcore.faces.evaluate import Evaluation, evaluate
from nstcore.faces.face import Face
from nstcore.faces.gallery import Gallery
from nstcore.faces.head import VerificationHead, load_head
from nstcore.faces.head_fit import HeadReport, fit_head
from nstcore.faces.oneshot import OneShot, one_shot
from nstcore.faces.pipeline import encode_faces
from nstcore.faces.quality import Quality, problems, quality
from nstcore.faces.records import Enrolment, Found, Person, Photo
from nstcore.faces.sampler import Sampler
from nstcore.faces.train import Trained, train_encoder
from nstcore.faces.train_settings import TrainSettings
from nstcore.faces.verify import verify

__all__ = [
    "Augmentation", "Calibration", "CalibrationReport", "Encoder", "Enrolment", "Evaluation", "Face", "Found",
    "Gallery", "HeadReport", "Match", "OneShot", "Person", "Photo", "Quality", "Sampler", "TrainSettings", "Trained",
    "Verification", "VerificationHead", "align", "calibrate", "detect", "draw", "encode", "encode_faces", "evaluate",
    "fit_head", "jittered", "jittered_chips", "load_encoder", "load_head", "one_shot", "problems", "quality",
    "train_encoder", "verify",
]  # fmt: skip

"""Networks with pretrained weights."""

from __future__ import annotations

from nstcore.models.alexnet import AlexNet, alexnet
from nstcore.models.face_encoder import FaceEncoder, face_encoder
from nstcore.models.vgg import VGG, vgg16, vgg19

__all__ = ["VGG", "AlexNet", "FaceEncoder", "alexnet", "face_encoder", "vgg16", "vgg19"]

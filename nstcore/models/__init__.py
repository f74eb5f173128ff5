"""Networks with pretrained weights."""

from __future__ import annotations

from nstcore.models.vgg import VGG, vgg16, vgg19

__all__ = ["VGG", "vgg16", "vgg19"]

"""What a ConvNet has learnt: the patches that excite a unit, what in them does, and what a style is.

>>> receptive_field(__import__("nstcore").models.vgg16(), "conv3_1").size
(24, 24)
"""

from __future__ import annotations

from nstcore.visualize.deconv import Projection, deconv
from nstcore.visualize.gram import ChannelPair, Correlations, correlations, style_difference
from nstcore.visualize.index import PatchIndex, load_index
from nstcore.visualize.maximize import Dream, DreamStep, maximize
from nstcore.visualize.network import layer_names
from nstcore.visualize.occlusion import Occlusion, occlusion
from nstcore.visualize.patches import Patch, UnitPatches, index_patches, top_patches
from nstcore.visualize.receptive_field import ReceptiveField, receptive_field, receptive_fields

__all__ = [
    "ChannelPair", "Correlations", "Dream", "DreamStep", "Occlusion", "Patch", "PatchIndex", "Projection",
    "ReceptiveField", "UnitPatches", "correlations", "deconv", "index_patches", "layer_names", "load_index", "maximize",
    "occlusion", "receptive_field", "receptive_fields", "style_difference", "top_patches",
]  # fmt: skip

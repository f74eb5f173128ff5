"""The costs that style transfer weighs against each other, on one layer's activations each."""

from __future__ import annotations

from nstcore.ops.gram import style_loss
from nstcore.ops.style import content_loss, total_variation

__all__ = ["content_loss", "style_loss", "total_variation"]

"""Neural style transfer: paint a photograph in the style of a painting."""

from __future__ import annotations

from nstcore.style.batch import BatchResult, transfer_folder
from nstcore.style.clip import ClipResult, transfer_clip
from nstcore.style.losses import content_loss, style_loss, total_variation
from nstcore.style.plan import Plan
from nstcore.style.result import HistoryRow, Progress, Result
from nstcore.style.settings import Settings
from nstcore.style.transfer import plan_transfer, transfer

__all__ = [
    "BatchResult",
    "ClipResult",
    "HistoryRow",
    "Plan",
    "Progress",
    "Result",
    "Settings",
    "content_loss",
    "plan_transfer",
    "style_loss",
    "total_variation",
    "transfer",
    "transfer_clip",
    "transfer_folder",
]  # fmt: skip

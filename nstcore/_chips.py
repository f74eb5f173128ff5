"""What an encoder was trained on, as its file states it."""

from __future__ import annotations

from typing import Any

from nstcore.errors import WeightsError

FACE = "face"  # the face of a picture, found and turned upright
SQUARE = "square"  # the middle square of a picture
KINDS = (FACE, SQUARE)


def stated(facts: Any, path: Any) -> str:
    """The kind that the facts about an encoding name; faces where they name none.

    Raises `WeightsError` for any other word.
    """
    kind = facts.get("chips", FACE)
    if kind not in KINDS:
        raise WeightsError(f"[encoder] {path}: expects chips of {' or '.join(KINDS)}, got {kind!r:.80}")
    return str(kind)

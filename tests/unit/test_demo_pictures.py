"""The photographs in the package: there, small, readable, and accounted for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nstcore import images
from nstcore.demo import PICTURES, picture_path
from nstcore.errors import ArgumentError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_small_and_readable(name):
    path = picture_path(name)
    assert path.stat().st_size < 120_000
    picture = images.load(path, min_side=256)
    assert max(picture.shape[:2]) <= 640
    # A photograph, not a flat card: it has contrast and colour.
    assert picture.std() > 0.1
    assert np.abs(picture[:, :, 0] - picture[:, :, 2]).mean() > 0.02
    with Image.open(path) as stored:
        assert stored.format == "JPEG"
        assert "icc_profile" not in stored.info


def test_notice_accounts_for_every_picture_in_the_folder():
    folder = picture_path("coffee").parent
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(PICTURES.values())
    sections = (ROOT / "NOTICE").read_text(encoding="utf-8").split("\n\n")
    for file in PICTURES.values():
        section = next(text for text in sections if text.startswith(f"{file}\n"))
        for fact in ("Author: ", "Licence: ", "sha256 "):
            assert fact in section


def test_unknown_picture():
    with pytest.raises(ArgumentError, match=r"\[demo\] expects one of astronaut, .*, got '\.\./secret'"):
        picture_path("../secret")

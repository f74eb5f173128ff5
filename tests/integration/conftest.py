"""Calling the command `nst` in a folder of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import nstcore as nst
from nstcore.cli import main
from nstcore.demo import picture_path
from nstcore.images import load, save

QUICK = ["--size", "32", "--steps", "3", "--style-layers", "conv1_1,conv2_1=0.5", "--content-layers", "conv2_2"]
ROOT = Path(nst.__file__).parents[1]
BOTH = ("photo.jpg", "painting.png")
OUTPUTS = ("-o", "out.png", "--history", "l.csv", "--plot", "l.png")
Run = Callable[..., tuple[int, str, str]]

# A shell without job control starts commands in the background with SIGINT ignored, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photograph and a painting, which is the current one."""
    save(tmp_path / "photo.jpg", load(picture_path("chelsea"), size=48))
    save(tmp_path / "painting.png", load(picture_path("coffee"), size=40))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command and give its exit code, output and errors."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

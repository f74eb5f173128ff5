"""`nst demo`: a page that needs nothing but itself."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nstcore as nst
from nstcore.cli import demo, main
from nstcore.demo import page

VOID = {"meta", "img", "br", "link"}


class Reader(HTMLParser):
    """Checks that elements nest, and collects pictures, links and words."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.pictures.append((found["alt"] or "", found["src"] or ""))
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def decoded(uri: str) -> np.ndarray[Any, Any]:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
        return np.asarray(picture)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A white-noise run of a few steps, in a folder of its own."""
    monkeypatch.setattr(demo, "NOISE_SIZE", 32)
    monkeypatch.setattr(demo, "NOISE_STEPS", 4)
    monkeypatch.setattr(demo, "SNAPSHOTS", (1, 2, 4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_shows_both_runs_and_loads_nothing(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--size", "64", "--steps", "3"]) == 0
    out = capsys.readouterr().out
    assert "index.html" in out
    folder = short / "nst-demo"
    reader = read(folder / "index.html")
    assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)
    assert [alt for alt, _ in reader.pictures] == [
        "content", "style, drawn by nstcore's own painter", "result", "Costs over the steps",
        "step 1", "step 2", "step 4", "Costs over the steps",
    ]  # fmt: skip
    shapes = [decoded(uri).shape for _, uri in reader.pictures]
    assert shapes[0] == shapes[2] == (43, 64, 3)
    assert shapes[3] == (540, 960, 3)
    assert shapes[4] == (22, 32, 3)
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r'"data:[^"]*"', "", (folder / "index.html").read_text()))
    words = " ".join(reader.words)
    assert "At the defaults" in words
    assert "From white noise, by gradient descent" in words
    assert "3 steps in" in words
    names = {"index.html", "content.jpg", "style.jpg", "result.png", "sheet.jpg", "white-noise.png"}
    assert {path.name for path in folder.iterdir()} == names
    for name in names - {"index.html"}:
        Image.open(folder / name).load()
    assert nst.images.load(folder / "white-noise.png").shape == (22, 3 * 32, 3)


def test_a_second_demo_replaces_the_first(short: Path) -> None:
    arguments = ["demo", "--size", "32", "--steps", "1", "-o", "page"]
    assert main([*arguments, "--photo", "rocket", "--painting", "mosaic"]) == 0
    assert main([*arguments, "--photo", "coffee", "--painting", "autumn"]) == 0
    assert "coffee in the style of autumn" in (short / "page" / "index.html").read_text()


@pytest.mark.parametrize("name", ["content.jpg", "notes.txt", "index.html"])
def test_a_folder_of_other_files_is_left_alone(short: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (short / "mine").mkdir()
    (short / "mine" / name).write_text("<!doctype html>mine")
    assert main(["demo", "--size", "32", "--steps", "1", "-o", "mine"]) == 2
    expected = f"expects a new or empty folder, or that of an earlier demo, got mine, which has {name} in it\n"
    assert capsys.readouterr().err == f"error: [demo] {expected}"
    assert [(p.name, p.read_text()) for p in (short / "mine").iterdir()] == [(name, "<!doctype html>mine")]


def test_the_folder_of_a_demo_that_was_killed_is_a_demo_s(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    arguments = ["demo", "--size", "32", "--steps", "1", "-o", "page"]
    with monkeypatch.context() as patch:
        patch.setattr(demo, "_defaults", killed)
        assert main(arguments) == 130
    assert "Not finished." in read(short / "page" / "index.html").words
    assert main(arguments) == 0


@pytest.mark.parametrize("interrupted_step", [1, 3, 5])
def test_an_interrupt_leaves_a_page_of_what_there_is(
    short: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, interrupted_step: int
) -> None:
    """In the first step, in the first run, and in the first step of the second run."""
    taken = 0

    def counted(step: Any) -> Any:
        def run(*arguments: Any) -> float:
            nonlocal taken
            taken += 1
            if taken == interrupted_step:
                raise KeyboardInterrupt
            return float(step(*arguments))

        return run

    for optimizer in (nst.optim.LBFGS, nst.optim.SGD):
        monkeypatch.setattr(optimizer, "step", counted(optimizer.step))
    assert main(["demo", "--size", "32", "--steps", "4"]) == 130
    assert "interrupted" in capsys.readouterr().out
    reader = read(short / "nst-demo" / "index.html")
    titles = [word for word in reader.words if word.startswith(("At the", "From white"))]
    assert len(titles) == (1 if interrupted_step < 5 else 2)
    assert "interrupted" in " ".join(reader.words)
    assert all(decoded(uri).ndim == 3 for _, uri in reader.pictures)


def test_words_of_the_page_are_escaped(tmp_path: Path) -> None:
    picture = np.zeros((4, 6, 3), np.float32)
    figures = [page.figure(picture, '<b>"quoted" & bold</b>')]
    page.write(tmp_path / "p.html", "a < b", "plain", [page.section("<i>", "words", figures, None)])
    reader = read(tmp_path / "p.html")
    assert reader.pictures[0][0] == '<b>"quoted" & bold</b>'
    assert "a < b" in reader.words
    assert "<i>" in reader.words

"""The command `nst`: what it writes, what it refuses and how, and what it keeps when it is stopped."""

from __future__ import annotations

import csv
import json
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nstcore as nst
from nstcore import weights
from nstcore.cli import main

from .conftest import BOTH, QUICK, Run, listing


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size and has no pixels: whoever decodes it before looking finds it damaged."""
    block = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
        for data in (block, b"IDAT" + b"x")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def check_refusal(result: tuple[int, str, str], words: str) -> None:
    """Exit code 2 and one clear line on standard error."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(words, err), err


def test_a_photograph_is_painted(place: Path, run: Run) -> None:
    code, out, err = run("style", "photo.jpg", "painting.png", "-o", "out.png", *QUICK)
    assert code == 0
    assert re.fullmatch(r"out\.png: 32x21, 3 steps in [\d.]+ s, loss [\d.e+]+ -> [\d.e+]+\n", out)
    assert [line.split()[1] for line in err.splitlines()] == ["1/3", "2/3", "3/3"]
    assert "\x1b" not in out + err
    with Image.open(place / "out.png") as picture:
        assert (picture.size, picture.mode) == ((32, 21), "RGB")


def test_everything_that_can_be_written_is_written(place: Path, run: Run) -> None:
    code, out, err = run(
        "style", "photo.jpg", "painting.png", "-o", "out.webp", "--history", "losses.csv", "--plot", "losses.png",
        "--save-every", "2", "--json", *QUICK, "--steps", "5",
    )  # fmt: skip
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["output"], facts["steps"], facts["width"], facts["stopped"]) == ("out.webp", 5, 32, None)
    names = {"out.webp", "out-2.webp", "out-4.webp", "losses.csv", "losses.png"}
    assert set(listing(place)) == {"photo.jpg", "painting.png"} | names
    with open(place / "losses.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert list(rows[0]) == ["step", "seconds", "total", "content", "style_conv1_1", "style_conv2_1", "tv", "size"]
    assert float(rows[-1]["total"]) == pytest.approx(facts["loss_end"], rel=1e-8)
    with Image.open(place / "losses.png") as plot:
        assert plot.size == (960, 540)
    pictures = [np.asarray(Image.open(place / name), int) for name in ("out-2.webp", "out-4.webp", "out.webp")]
    assert len({p.tobytes() for p in pictures}) == 3


def test_every_option_reaches_the_run(place: Path, run: Run) -> None:
    code, out, _ = run(
        "style", "photo.jpg", "painting.png", "photo.jpg", "-o", "out.jpg", "--size", "32", "--steps", "1",
        "--content-weight", "2", "--style-weight", "0.5", "--tv-weight", "0.1", "--content-layers", "conv1_2",
        "--style-layers", "conv1_1", "--blend", "0.7,0.3", "--init", "noise", "--optimizer", "adam",
        "--learning-rate", "0.05", "--pooling", "avg", "--seed", "9", "--weights", weights.embedded("vgg16"),
        "--max-pixels", "5000", "--json",
    )  # fmt: skip
    assert code == 0
    expected = nst.style.transfer(
        place / "photo.jpg", [place / "painting.png", place / "photo.jpg"], size=32, steps=1, content_weight=2,
        style_weight=0.5, tv_weight=0.1, content_layers=["conv1_2"], style_layers=["conv1_1"], blend=[0.7, 0.3],
        init="noise", optimizer="adam", learning_rate=0.05, pooling="avg", seed=9,
    )  # fmt: skip
    assert json.loads(out)["loss_start"] == expected.history[0].total


def test_an_existing_output_is_replaced(place: Path, run: Run) -> None:
    (place / "out.png").write_bytes(b"old")
    assert run("style", "photo.jpg", "painting.png", "-o", "out.png", *QUICK)[0] == 0
    assert (place / "out.png").read_bytes().startswith(b"\x89PNG")


def test_no_option_of_the_run_changes_the_inputs(place: Path, run: Run) -> None:
    before = listing(place)
    assert run("style", "photo.jpg", "photo.jpg", "-o", "out.png", *QUICK)[0] == 0
    assert {name: data for name, data in listing(place).items() if name in before} == before


BAD_STYLE = {
    "missing photograph": (["absent.jpg", "painting.png"], r"absent\.jpg does not exist"),
    "missing painting": (["photo.jpg", "absent.png"], r"absent\.png does not exist"),
    "second painting missing": ([*BOTH, "absent.png"], r"absent\.png does not exist"),
    "not a picture": (["text.jpg", "painting.png"], r"text\.jpg is not a picture"),
    "empty file": (["empty.jpg", "painting.png"], r"empty\.jpg is not a picture"),
    "cut off": (["half.jpg", "painting.png"], r"half\.jpg is damaged or cut off"),
    "a folder": (["folder", "painting.png"], r"folder is a folder"),
    "one pixel": (["dot.png", "painting.png"], r"dot\.png is 1x1 pixels; at least 16x16"),
    "painting of one pixel": (["photo.jpg", "dot.png"], r"dot\.png is 1x1 pixels; at least 16x16"),
    "over the limit": ([*BOTH, "--max-pixels", "1000"], r"over the limit of 1,000 pixels"),
    "a bomb": (["bomb.png", "painting.png"], r"has 400,000,000 pixels, over the limit of 100,000,000 .* --max-pixels"),
    "thin": (["thin.png", "painting.png"], r"the photograph has 32x3 pixels at size 32; the layers need"),
    "no painting": (["photo.jpg"], r"at least one painting after the photograph"),
    "no arguments": ([], r"Missing argument 'content'"),
    "unknown layer": ([*BOTH, "--style-layers", "conv9_1"], r"'conv9_1'; it has conv1_1, .*pool5"),
    "layer twice": ([*BOTH, "--style-layers", "conv1_1,conv1_1"], "different layer names"),
    "no layer": ([*BOTH, "--content-layers", " , "], "different layer names"),
    "layer weight": ([*BOTH, "--style-layers", "conv1_1=x"], "a number in --style-layers, got 'x'"),
    "negative layer weight": ([*BOTH, "--style-layers", "conv1_1=-1"], "conv1_1 in style_layers"),
    "negative weight": ([*BOTH, "--content-weight", "-1"], r"content_weight as a number.*got -1"),
    "weight not a number": ([*BOTH, "--style-weight", "nan"], "style_weight as a number"),
    "both weights 0": ([*BOTH, "--style-weight", "0", "--content-weight", "0"], "got 0 for both"),
    "text as a weight": ([*BOTH, "--tv-weight", "much"], "'--tv-weight'.*valid"),
    "text as a size": ([*BOTH, "--size", "1e3"], "'--size'.*valid"),
    "tiny size": ([*BOTH, "--size", "8"], "size as a whole number from 16"),
    "huge size": ([*BOTH, "--size", "100000"], "size as a whole number from 16"),
    "no steps": ([*BOTH, "--steps", "0"], "steps as a whole number from 1"),
    "negative seed": ([*BOTH, "--seed", "-1"], "seed as a whole number from 0"),
    "save every 0": ([*BOTH, "--save-every", "0"], "'--save-every'"),
    "blend of two": ([*BOTH, "--blend", "1,2"], "got 2 for 1 styles"),
    "blend of text": ([*BOTH, "--blend", "a"], "a number in --blend, got 'a'"),
    "blend of zeros": ([*BOTH, "--blend", "0"], "only zeros"),
    "negative blend": ([*BOTH, "--blend", "-1"], "each weight in blend"),
    "init": ([*BOTH, "--init", "black"], "init to be one of content, noise, style, got 'black'"),
    "optimizer": ([*BOTH, "--optimizer", "sgd"], "optimizer to be one of lbfgs, adam, gd"),
    "pooling": ([*BOTH, "--pooling", "sum"], "pooling to be one of max, avg"),
    "learning rate": ([*BOTH, "--learning-rate", "0"], "learning_rate above 0"),
    "missing weights": ([*BOTH, "--weights", "absent.npz"], r"absent\.npz: there is no such file"),
    "foreign weights": ([*BOTH, "--weights", "photo.jpg"], r"photo\.jpg: is not a zip archive"),
    "missing folder": ([*BOTH, "-o", "no/such/out.png"], r"folder .*/no/such of .* does not exist"),
    "file as a folder": ([*BOTH, "-o", "text.jpg/out.png"], "is not a folder"),
    "folder as output": ([*BOTH, "-o", "folder.png"], r"folder\.png is a folder"),
    "no suffix": ([*BOTH, "-o", "out"], "suffix must be one of"),
    "bad suffix": ([*BOTH, "-o", "out.gif"], r"suffix must be one of .*; got \.gif"),
    "bad plot suffix": ([*BOTH, "--plot", "out.svg"], r"suffix must be one of .*; got \.svg"),
    "missing plot folder": ([*BOTH, "--plot", "no/p.png"], "folder .*/no of .* does not exist"),
    "missing csv folder": ([*BOTH, "--history", "no/l.csv"], "folder .*/no of .* does not exist"),
    "photograph as output": ([*BOTH, "-o", "photo.jpg"], r"photo\.jpg is the input photo\.jpg"),
    "painting as output": ([*BOTH, "-o", "./painting.png"], r"is the input painting\.png"),
    "link to an input": ([*BOTH, "-o", "link.jpg"], r"link\.jpg is the input photo\.jpg"),
    "hard link to an input": ([*BOTH, "-o", "hard.jpg"], r"hard\.jpg is the input photo\.jpg"),
    "loop of links": ([*BOTH, "-o", "loop.png"], r"loop\.png"),
    "csv over an input": ([*BOTH, "--history", "photo.jpg"], r"is the input photo\.jpg"),
    "plot over an input": ([*BOTH, "--plot", "painting.png"], r"is the input painting\.png"),
    "two outputs in one": ([*BOTH, "--plot", "out.png"], "different files for -o"),
    "plot over a saved step": (
        [*BOTH, "-o", "k.png", "--plot", "k-4.png", "--save-every", "2", "--steps", "9"],
        r"different files for -o, --history, --plot and --save-every, got k-4\.png twice",
    ),
    "csv over a saved step": (
        [*BOTH, "-o", "k.png", "--history", "./k-4.png", "--save-every", "2", "--steps", "9"], r"got k-4\.png twice"),
    "plot over a link of a saved step": (
        [*BOTH, "-o", "kept.png", "--plot", "p.png", "--save-every", "2", "--steps", "9"], r"got kept-2\.png twice"),
    "saved step over an input": (
        ["out-1.png", "painting.png", "--save-every", "1", "--steps", "3"], r"out-1\.png is the input"),
    "unknown option": ([*BOTH, "--sharpen", "3"], "No such option: --sharpen"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), BAD_STYLE.values(), ids=BAD_STYLE)
def test_bad_input_gets_one_line_and_nothing_is_written(
    place: Path, run: Run, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "text.jpg").write_text("no picture")
    (place / "empty.jpg").touch()
    (place / "half.jpg").write_bytes((place / "photo.jpg").read_bytes()[:900])
    (place / "folder").mkdir()
    (place / "folder.png").mkdir()
    (place / "link.jpg").symlink_to("photo.jpg")
    (place / "hard.jpg").hardlink_to(place / "photo.jpg")
    (place / "loop.png").symlink_to("loop.png")
    (place / "kept-2.png").symlink_to("p.png")
    (place / "out-1.png").write_bytes((place / "painting.png").read_bytes())
    Image.new("RGB", (1, 1)).save(place / "dot.png")
    Image.new("RGB", (16, 160)).resize((160, 16)).save(place / "thin.png")
    (place / "bomb.png").write_bytes(png_header(20000, 20000))
    monkeypatch.setattr(nst.optim.LBFGS, "step", lambda *_: pytest.fail("the work has started"))
    before = sorted(path.name for path in place.iterdir()), (place / "photo.jpg").read_bytes()
    check_refusal(run("style", *arguments, *([] if "--size" in arguments else ["--size", "32"])), words)
    assert (sorted(path.name for path in place.iterdir()), (place / "photo.jpg").read_bytes()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_found_first(place: Path, run: Run) -> None:
    (place / "locked").mkdir(mode=0o555)
    check_refusal(run("style", "photo.jpg", "painting.png", "-o", "locked/out.png"), "locked cannot be written")


def test_a_folder_that_refuses_files_is_found_first(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a read-only disk does, also for root."""

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("nstcore.files.os.open", refuse)
    check_refusal(run("style", "photo.jpg", "painting.png", "-o", "out.png"), "Read-only file system")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["paint"], "No such command 'paint'"),
        (["--verbose"], "No such option: --verbose"),
        (["--threads", "0", "doctor"], "'--threads'"),
        (["--threads", "9999", "doctor"], "whole number from 1 to 1024, got 9999"),
        (["weights", "check"], "No such command 'check'"),
        (["weights", "verify", "absent.npz"], r"absent\.npz"),
        (["ops", "conv2d"], "[Uu]nexpected extra argument"),
        (["demo", "--photo", "mona"], "one of astronaut, chelsea, coffee, rocket, got 'mona'"),
        (["demo", "--painting", "mona"], "one of swirl, autumn, mosaic, woodcut, got 'mona'"),
        (["demo", "--size", "3"], "size as a whole number from 16"),
        (["demo", "--steps", "0"], "steps as a whole number from 1"),
        (["demo", "-o", "photo.jpg"], r"cannot make the folder photo\.jpg"),
    ],
)
def test_other_bad_commands(place: Path, run: Run, arguments: list[str], words: str) -> None:
    before = listing(place)
    check_refusal(run(*arguments), words)
    assert listing(place) == before
    assert not (place / "nst-demo").exists()


@pytest.mark.parametrize("arguments", [[], ["weights"]])
def test_without_a_command_the_help_is_shown(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code in (0, 2)
    assert "Usage: nst" in out + err
    assert "error:" not in err


@pytest.mark.parametrize(
    "command", [[], ["style"], ["demo"], ["doctor"], ["ops"], ["weights"], ["weights", "list"], ["weights", "convert"]]
)
def test_every_command_has_help(run: Run, command: list[str]) -> None:
    for option in ("--help", "-h") if len(command) < 2 else ("--help",):
        code, out, err = run(*command, option)
        assert (code, err) == (0, "")
        assert "Usage: nst " + " ".join(command) in out
        assert max(map(len, out.splitlines())) <= 80


def test_help_names_every_option_of_the_issue(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = run("style", "--help")
    for option in (
        "size", "steps", "content-weight", "style-weight", "tv-weight", "content-layers", "style-layers", "blend",
        "init", "optimizer", "pooling", "seed", "save-every", "history", "plot", "checkpoint", "resume", "colors",
        "region", "style-mask", "style-scale", "start", "until", "average", "start-size",
    ):  # fmt: skip
        assert f"--{option} " in out


def test_default_layers_can_be_read(run: Run) -> None:
    out = " ".join(run("style", "--help")[1].replace("│", " ").split())
    defaults = nst.style.Settings()
    for layers in (defaults.content_layers, defaults.style_layers):
        assert f"Default: {', '.join(layers)}" in out


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"nstcore {nst.__version__}\n", "")


def test_threads_are_set(run: Run) -> None:
    assert "threads          3\n" in run("--threads", "3", "doctor")[1]


def test_doctor_tells_what_there_is(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == 0
    facts = json.loads(run("doctor", "--json")[1])
    assert facts["nstcore"] == nst.__version__
    assert facts["instruction set"].startswith(nst.get_isa())
    assert facts["self-test"] == "conv2d agrees on every instruction set"
    for name, line in zip(weights.available(), facts["weights"], strict=True):
        assert weights.load(weights.embedded(name)).digest[:16] in line
    for name, value in facts.items():
        line = next(line for line in out.splitlines() if line.startswith(name))
        assert (value if isinstance(value, str) else value[0]) in line


def test_doctor_reports_damaged_weights(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vgg16.npz").write_bytes(weights.embedded("vgg16").read_bytes()[:5000])
    monkeypatch.setattr(weights, "_DATA", tmp_path)
    code, out, _ = run("doctor")
    assert code == 1
    assert "vgg16 DAMAGED: " in out


def test_ops_has_a_line_for_every_operation(run: Run) -> None:
    code, out, err = run("ops")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    for name in nst.ops.OPS:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert ("native" if nst.ops.OPS[name].cpu else "NumPy") in line
    assert "n h w c, k r s c, (k) -> n p q k" in out
    assert "x[index]" in out  # brackets are not taken for markup
    assert "\x1b" not in out
    rows = json.loads(run("ops", "--json")[1])
    assert [row["name"] for row in rows] == list(nst.ops.OPS)
    assert all(row["summary"] for row in rows)


def test_weights_are_listed_and_verified(run: Run) -> None:
    assert "vgg16" in run("weights", "list")[1]
    code, out, _ = run("weights", "verify")
    assert code == 0
    assert out.startswith("ok ")


def test_each_bad_weights_file_has_a_line(place: Path, run: Run) -> None:
    (place / "text.npz").write_text("no weights")
    code, out, err = run("weights", "verify", "text.npz", weights.embedded("vgg16"), "absent.npz", "photo.jpg")
    assert code == 2
    assert out.startswith("ok ")
    assert out.count("\n") == 1
    lines = err.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("text.npz", "absent.npz", "photo.jpg"), strict=True):
        assert line.startswith(f"error: [weights] {name}: ")


def test_debug_shows_the_traceback(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(nst.errors.ImageError):
        main(["style", "absent.jpg", "painting.png", "--debug"])
    monkeypatch.setenv("NSTCORE_DEBUG", "1")
    with pytest.raises(nst.errors.ImageError):
        main(["style", "absent.jpg", "painting.png"])


def test_our_own_mistakes_are_not_hidden(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(nst.optim.LBFGS, "step", broken)
    with pytest.raises(ZeroDivisionError):
        main(["style", "photo.jpg", "painting.png", *QUICK])

"""A saved run continues bit for bit, and only the run that it was."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nstcore as nst
from nstcore import models
from nstcore.demo import picture_path
from nstcore.demo.painter import paint
from nstcore.errors import ArgumentError, CheckpointError, OutputError
from nstcore.images import load
from nstcore.style import Progress, Result, transfer

Array = NDArray[Any]
OPTIONS: dict[str, Any] = {
    "size": 48, "start_size": 24, "steps": 8, "content_layers": ["conv2_2"], "style_layers": ["conv1_1", "conv3_1"],
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "lbfgs": {},
    "adam": {"optimizer": "adam"},
    "averaged": {"optimizer": "adam", "average": 0.8},
    "gd": {"optimizer": "gd"},
    "noise": {"init": "noise", "seed": 5},
    "luminance": {"colors": "luminance"},
}


@pytest.fixture(scope="module")
def net() -> models.VGG:
    return models.vgg16()


@pytest.fixture(scope="module")
def photo() -> Array:
    return load(picture_path("chelsea"), size=48)


@pytest.fixture(scope="module")
def painting() -> Array:
    return paint("swirl", 40, 48)


def stop_after(step: int) -> Any:
    def callback(progress: Progress) -> None:
        if progress.row.step == step:
            raise KeyboardInterrupt

    return callback


def same(one: Result, other: Result) -> None:
    """The same picture and the same costs; times differ."""
    assert np.array_equal(one.image, other.image)
    rows = [[dataclasses.replace(row, seconds=0) for row in result.history] for result in (one, other)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("way", "step"), [("lbfgs", 1), ("lbfgs", 8), ("lbfgs", 11), ("adam", 11), *((way, 5) for way in WAYS)]
)
def test_a_run_continues_bit_for_bit(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, way: str, step: int
) -> None:
    """Stopped within a size, and at the end of one."""
    options = {"net": net, **OPTIONS, **WAYS[way]}
    path = tmp_path / "run.npz"
    whole = transfer(photo, painting, **options)
    part = transfer(photo, painting, callback=stop_after(step), checkpoint=path, **options)
    assert (part.stopped, len(part.history)) == ("interrupted", step)
    rest = transfer(photo, painting, resume=path, **options)
    assert rest.stopped == whole.stopped
    same(rest, whole)
    assert [row.seconds for row in rest.history] == sorted(row.seconds for row in rest.history)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("evaluation", [2, 5, 12])
def test_a_signal_within_a_step_loses_that_step_alone(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    optimizer: str, evaluation: int,
) -> None:  # fmt: skip
    """Ctrl-C arrives while the costs are computed, when a line search has moved the pixels already."""
    from nstcore.style.objective import Objective

    options = {"net": net, **OPTIONS, "optimizer": optimizer}
    whole = transfer(photo, painting, **options)
    evaluate, count = Objective.evaluate, 0

    def interrupted(self: Objective, picture: nst.Tensor) -> Any:
        nonlocal count
        count += 1
        if count == evaluation:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, picture)

    path = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "evaluate", interrupted)
        part = transfer(photo, painting, checkpoint=path, **options)
    assert part.stopped == "interrupted"
    assert len(part.history) < len(whole.history)
    same(transfer(photo, painting, resume=path, **options), whole)


def test_a_signal_while_the_optimiser_changes_its_state_waits(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"net": net, **OPTIONS, "optimizer": "adam"}
    whole = transfer(photo, painting, **options)
    step = nst.optim.Adam.step

    def signalled(self: nst.optim.Adam, closure: Any) -> float:
        def loss() -> float:
            value: float = closure()
            if self._steps == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return value

        return step(self, loss)

    path = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        patch.setattr(nst.optim.Adam, "step", signalled)
        part = transfer(photo, painting, checkpoint=path, **options)
    assert (part.stopped, len(part.history)) == ("interrupted", 4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    same(transfer(photo, painting, resume=path, **options), whole)


def test_the_run_is_saved_every_few_steps(net: models.VGG, photo: Array, painting: Array, tmp_path: Path) -> None:
    """A run that is killed without warning goes on from the last saving."""
    path = tmp_path / "run.npz"
    whole = transfer(photo, painting, net=net, **OPTIONS)

    def killed(progress: Progress) -> None:
        if progress.row.step == 7:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        transfer(photo, painting, net=net, checkpoint=path, checkpoint_every=3, callback=killed, **OPTIONS)
    steps: list[int] = []
    rest = transfer(
        photo, painting, net=net, resume=path, callback=lambda progress: steps.append(progress.row.step), **OPTIONS
    )
    assert steps[0] == 7
    same(rest, whole)


def saved(net: models.VGG, photo: Array, painting: Array, path: Path) -> Path:
    transfer(photo, painting, net=net, callback=stop_after(2), checkpoint=path, **OPTIONS)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 9}, "was made with steps 8, got 9"),
        ({"style_weight": 0.1}, r"was made with style_weight 0\.002, got 0\.1"),
        ({"style_layers": ["conv1_1"]}, "was made with style_layers "),
        ({"seed": 1}, "was made with seed 0, got 1"),
        ({"content": np.full((48, 48, 3), 0.25)}, "was made with another photograph"),
        ({"styles": np.full((48, 48, 3), 0.25)}, "was made with another painting 1"),
        ({"start": np.full((48, 48, 3), 0.25)}, "was made with another start"),
        ({"net": "avg"}, "was made with another network"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = saved(net, photo, painting, tmp_path / "run.npz")
    if change.get("net") == "avg":
        change = {"net": models.vgg16(pooling="avg")}
    with pytest.raises(CheckpointError, match=rf"^\[resume\] .*{words}"):
        transfer(**{"content": photo, "styles": painting, "net": net, "resume": path, **OPTIONS, **change})


def test_a_checkpoint_of_another_version_is_refused(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(net, photo, painting, tmp_path / "run.npz")
    monkeypatch.setattr(nst, "__version__", "9.9.9")
    with pytest.raises(CheckpointError, match=r"was made with nstcore .*, got 9\.9\.9"):
        transfer(photo, painting, net=net, resume=path, **OPTIONS)


def test_another_way_to_use_memory_may_continue(net: models.VGG, photo: Array, painting: Array, tmp_path: Path) -> None:
    path = saved(net, photo, painting, tmp_path / "run.npz")
    same(
        transfer(photo, painting, net=net, resume=path, memory="low", **OPTIONS),
        transfer(photo, painting, net=net, **OPTIONS),
    )


def rewritten(path: Path, **changes: Any) -> None:
    """Change arrays of a checkpoint, or facts in its meta."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    facts = json.loads(bytes(arrays["meta"]))
    for name, value in changes.items():
        if name in arrays:
            arrays[name] = value
        else:
            facts[name] = value
    if "meta" not in changes:
        arrays["meta"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "something"}, "is no checkpoint"),
        ({"format_version": 2}, "was made with format 2, got 1"),
        ({"made_with": 3}, "was made with format"),
        ({"level": 7}, "at step 2 of size 8"),
        ({"level": -1}, "is damaged"),
        ({"done": 10**9}, "at step 1000000000"),
        ({"seconds": "x"}, "is damaged"),
        ({"columns": ["a"]}, "is damaged"),
        ({"pixels": np.zeros((1, 3, 3, 3), np.float32)}, "has a picture float32"),
        ({"history": np.zeros((2, 2))}, "is damaged"),
        ({"meta": np.zeros(4, np.uint8)}, "is no checkpoint"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = saved(net, photo, painting, tmp_path / "run.npz")
    rewritten(path, **changes)
    with pytest.raises(CheckpointError, match=rf"^\[resume\] .*{words}"):
        transfer(photo, painting, net=net, resume=path, **OPTIONS)


def test_files_that_are_none(net: models.VGG, photo: Array, painting: Array, tmp_path: Path) -> None:
    path = saved(net, photo, painting, tmp_path / "run.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    other = tmp_path / "other.npz"
    np.savez(other, a=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "pickled.npz", "w") as archive:
        archive.writestr("meta.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }")
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    for file in (path, other, tmp_path / "pickled.npz", text, tmp_path / "absent.npz", tmp_path):
        with pytest.raises(CheckpointError, match=r"^\[resume\] "):
            transfer(photo, painting, net=net, resume=file, **OPTIONS)
    with pytest.raises(OutputError, match="does not exist"):
        transfer(photo, painting, net=net, checkpoint=tmp_path / "no" / "run.npz", **OPTIONS)
    with pytest.raises(ArgumentError, match="checkpoint_every as a whole number from 1, got 0"):
        transfer(photo, painting, net=net, checkpoint=tmp_path / "r.npz", checkpoint_every=0, **OPTIONS)

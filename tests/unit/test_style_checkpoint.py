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
    """Change or add arrays of a checkpoint, or change facts in its meta."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    facts = json.loads(bytes(arrays["meta"]))
    for name, value in changes.items():
        if name not in facts:
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
        ({"done": 0}, "a state of the optimiser at step 0"),
        ({"pixels": np.full((1, 16, 24, 3), np.nan, np.float32)}, "picture is not finite"),
        ({"history": np.zeros((1, 8))}, "1 rows of history after 2 steps"),
        ({"optimizer.gradient": np.zeros(3)}, "is damaged"),
        ({"columns": [1] * 8}, "is damaged"),
        ({"average": np.zeros((1, 3, 3, 3), np.float32)}, "average picture is missing, or of another shape"),
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


def test_an_unfinished_run_is_not_replaced_by_a_new_one(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path
) -> None:
    """Whoever forgets ``resume`` and stops again would lose it."""
    path = saved(net, photo, painting, tmp_path / "run.npz")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="holds a run that is not finished: go on with --resume"):
        saved(net, photo, painting, path)
    other = tmp_path / "weights.npz"
    np.savez(other, a=np.zeros(3))
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        saved(net, photo, painting, other)
    assert path.read_bytes() == before
    whole = transfer(photo, painting, net=net, resume=path, checkpoint=path, **OPTIONS)
    assert whole.stopped is None
    same(transfer(photo, painting, net=net, resume=path, **OPTIONS), whole)  # no step is left
    assert saved(net, photo, painting, path).read_bytes() != before  # a finished one may be replaced


@pytest.mark.parametrize("when", ["on the way", "at the end", "on Ctrl-C"])
def test_what_cannot_be_saved_leaves_the_picture(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: Any) -> None:
        raise OutputError("[output] run.npz cannot be written: No space left on device")

    monkeypatch.setattr("nstcore.style.checkpoint.save", full)
    every, stop = (4, None) if when == "on the way" else (1000, None if when == "at the end" else stop_after(5))
    with pytest.raises(OutputError) as caught:
        transfer(
            photo, painting, net=net, checkpoint=tmp_path / "run.npz", checkpoint_every=every, callback=stop, **OPTIONS
        )
    result = caught.value.result
    assert isinstance(result, Result)
    assert len(result.history) == {"on the way": 4, "at the end": 18, "on Ctrl-C": 5}[when]
    assert np.abs(result.image - load(photo, size=max(result.image.shape))).max() > 0.01


def test_a_second_ctrl_c_waits_for_the_saving(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nstcore.style import checkpoint

    save = checkpoint.save

    def impatient(*given: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(*given)

    monkeypatch.setattr(checkpoint, "save", impatient)
    path = tmp_path / "run.npz"
    part = transfer(photo, painting, net=net, callback=stop_after(3), checkpoint=path, **OPTIONS)
    assert (part.stopped, len(part.history)) == ("interrupted", 3)
    monkeypatch.undo()
    same(transfer(photo, painting, net=net, resume=path, **OPTIONS), transfer(photo, painting, net=net, **OPTIONS))


def test_a_state_too_large_to_be_saved_is_refused_before_the_start(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nstcore.style.checkpoint.LARGEST_STATE", 400_000)
    with pytest.raises(CheckpointError, match=r"48x32 pixels: the state of lbfgs would be over 2 GB; adam"):
        transfer(photo, painting, net=net, checkpoint=tmp_path / "run.npz", **OPTIONS)
    transfer(photo, painting, net=net, checkpoint=tmp_path / "run.npz", **{**OPTIONS, "optimizer": "adam"})


def test_numbers_of_numpy_can_be_saved(net: models.VGG, photo: Array, painting: Array, tmp_path: Path) -> None:
    weights = {"conv1_1": np.float32(1), "conv3_1": np.float64(0.5)}
    options = {**OPTIONS, "style_layers": weights, "blend": np.float32([1]), "size": np.int64(48)}
    part = transfer(photo, painting, net=net, callback=stop_after(2), checkpoint=tmp_path / "run.npz", **options)
    assert len(part.history) == 2
    rest = transfer(photo, painting, net=net, resume=tmp_path / "run.npz", **options)
    assert len(rest.history) == 18


def test_another_instruction_set_is_told(
    net: models.VGG, photo: Array, painting: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(net, photo, painting, tmp_path / "run.npz")
    monkeypatch.setattr("nstcore.style.checkpoint.get_isa", lambda: "vax")
    with pytest.warns(UserWarning, match=r"goes on on cpu, vax, .* not be the same bit for bit"):
        transfer(photo, painting, net=net, resume=path, **OPTIONS)

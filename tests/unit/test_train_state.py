"""A training run on disk: long ones, damaged ones, other ones, and places that cannot be written any more."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import weights
from nstcore.errors import ArgumentError, NonFiniteError, OutputError, WeightsError
from nstcore.faces import train_encoder, trainer
from nstcore.faces.train import Trained
from nstcore.faces.train_state import load_state, save_state
from nstcore.faces.trainer import TrainRow

from .test_train import SHORT, assert_same, classes, weights_of

NAN, INF = float("nan"), float("inf")


def stop_at(*steps: int) -> Callable[[TrainRow], None]:
    def stop(row: TrainRow) -> None:
        if row.step in steps:
            raise KeyboardInterrupt

    return stop


def checkpoint(path: Path, **choices: Any) -> Path:
    """Of three steps, with one look."""
    x, labels = classes()
    train_encoder(x, labels, checkpoint=path, callback=stop_at(3), **{**SHORT, **choices})
    return path


def altered(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """The file with other arrays or facts, and digests that fit."""
    file = weights.load(path)
    arrays, meta = {name: np.array(a) for name, a in file.arrays.items()}, dict(file.meta)
    change(arrays, meta)
    weights.save(path, arrays, {k: v for k, v in meta.items() if k not in ("digest", "digests", "dtype")})
    return path


def test_a_long_history_fits(tmp_path: Path) -> None:
    """4 MiB of JSON were full after some 25,000 steps; now a step takes 80 bytes."""
    state = checkpoint(tmp_path / "state.npz")
    x, labels = classes()
    seen: list[Any] = []

    class Caught(trainer.Trainer):
        def step(self) -> TrainRow:
            seen.append(self)
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nstcore.faces.train.Trainer", Caught)
        train_encoder(x, labels, **{**SHORT, "steps": 40_000})
    long: trainer.Trainer = seen[0]
    rng = np.random.default_rng(0)
    for step, values in enumerate(rng.random((40_000, 7)).tolist(), 1):
        looked = dict(zip(("eer", "auc", "one_shot", "threshold"), values[:4], strict=True)) if step % 25 == 0 else {}
        row = TrainRow(step, step / 7, *values, collapsed=step % 3 == 0, **looked)
        long.rows.append(row if step != 5 else TrainRow(step, 0.1, 1.0, 0.1, 0.0, NAN, NAN, 1.0, 0.0, False))
    long.steps, long.seconds = 40_000, 9.0
    best = {f"net.{name}": a for name, a in long.net.state_dict().items()}
    long.optimizer.load_state_dict({**long.optimizer.state_dict(), "steps": 40_000})
    save_state(state, long, best, {"run": 1})
    assert state.stat().st_size < 40_000 * 80 + (2 << 20)
    rows, long.rows, long.steps = long.rows, [], 0
    load_state(state, long, best, {"run": 1})
    assert (long.steps, long.seconds) == (40_000, 9.0)
    assert long.rows[:4] + long.rows[5:] == rows[:4] + rows[5:]
    assert np.isnan(long.rows[4].positive)
    assert (type(long.rows[0].step), type(long.rows[0].collapsed), long.rows[0].eer) == (int, bool, None)


def _without(name: str) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda arrays, meta: arrays.pop(name)


def _with(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda arrays, meta: arrays.update({name: change(arrays[name])})


def _stating(**facts: Any) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda arrays, meta: meta.update(facts)


def _holding(value: float) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array.flat[-1] = value
        return array

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("net.projection.weight"), "net.projection.weight is missing"),
        (_without("optimizer.mean.0"), "optimizer.mean.0 is missing"),
        (_without("optimizer.steps"), "optimizer.steps is missing"),
        (_without("best.net.spread.running"), "best.net.spread.running is missing"),
        (_without("history"), r"history expects float64 \(n, 10\), got nothing"),
        (_without("looks"), r"looks expects float64 \(n, 5\), got nothing"),
        (_with("net.spread.scale", lambda a: a[:-1]), r"net.spread.scale expects float32 \(8,\), got float32 \(7,\)"),
        (_with("net.spread.scale", np.float64), r"net.spread.scale expects float32 \(8,\), got float64 \(8,\)"),
        (_with("best.net.spread.scale", np.int32), r"best.net.spread.scale expects float32 \(8,\), got int32 \(8,\)"),
        (_with("net.spread.scale", _holding(NAN)), "net.spread.scale holds NaN or infinity"),
        (_with("best.net.spread.scale", _holding(INF)), "best.net.spread.scale holds NaN or infinity"),
        (_with("optimizer.mean.0", _holding(NAN)), "optimizer.mean.0 holds NaN or infinity"),
        (_with("optimizer.square.0", _holding(-1)), "optimizer.square.0 holds squares below 0"),
        (_with("optimizer.steps", lambda a: a + 1), "optimizer.steps expects 3, got 4"),
        (_with("history", lambda a: a[:2]), "history expects the steps 1 to 3, got 2 rows"),
        (_with("history", lambda a: a[::-1].copy()), "history expects the steps 1 to 3"),
        (_with("history", lambda a: a[:, :9].copy()), r"history expects float64 \(n, 10\), got float64 \(3, 9\)"),
        (_with("history", lambda a: a.astype("f4")), r"history expects float64 \(n, 10\), got float32"),
        (_with("history", _holding(NAN)), "its history holds NaN or infinity"),
        (_with("looks", _holding(INF)), "its history holds NaN or infinity"),
        (_with("looks", lambda a: np.concatenate([a, a])), "looks expects steps of the run in their order"),
        (_with("looks", lambda a: a + 7), "looks expects steps of the run in their order"),
        (lambda arrays, meta: arrays.update({"net.more": np.zeros(1)}), "net.more is no part of this run"),
        (lambda arrays, meta: arrays.update({"other": np.zeros(1)}), "other is no part of this run"),
        (_stating(steps=-1), "expects 0 to 6 steps, got -1"),
        (_stating(steps=7), "expects 0 to 6 steps, got 7"),
        (_stating(steps="3"), "expects 0 to 6 steps, got '3'"),
        (_stating(steps=True), "expects 0 to 6 steps, got True"),
        (_stating(seconds=-1.0), "expects seconds of at least 0, got -1.0"),
        (_stating(seconds=None), "expects seconds of at least 0, got None"),
        (_stating(columns=["step"]), "its history has other columns"),
        (_stating(columns=3), "its history has other columns"),
    ],
)
def test_a_forged_checkpoint_is_refused_in_a_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object], words: str
) -> None:
    state = altered(checkpoint(tmp_path / "state.npz"), change)
    x, labels = classes()
    with pytest.raises(WeightsError, match=rf"state\.npz: is damaged: {words}") as caught:
        train_encoder(x, labels, resume=state, **SHORT)
    assert str(caught.value).endswith("take another checkpoint, or start again without --resume")


@pytest.mark.parametrize("facts", [None, 3, [], "settings"])
def test_facts_that_are_no_table_are_refused(tmp_path: Path, facts: Any) -> None:
    state = altered(checkpoint(tmp_path / "state.npz"), _stating(facts=facts))
    with pytest.raises(WeightsError, match="its facts do not describe a training run"):
        train_encoder(*classes(), resume=state, **SHORT)


def test_a_file_that_is_no_checkpoint_is_told_so_and_not_to_be_downloaded(tmp_path: Path) -> None:
    x, labels = classes()
    state = checkpoint(tmp_path / "state.npz")
    for path, content, words in (
        ("none.npz", None, "there is no such file"),
        ("cut.npz", state.read_bytes()[:-100], "is truncated"),
        ("bits.npz", state.read_bytes().replace(b'"steps":3', b'"steps":4'), "was altered|damaged"),
    ):
        if content is not None:
            (tmp_path / path).write_bytes(content)
        with pytest.raises(WeightsError, match=words) as caught:
            train_encoder(x, labels, resume=tmp_path / path, **SHORT)
        assert "download" not in str(caught.value)
        assert "nst weights" not in str(caught.value)
        assert "start again without --resume" in str(caught.value)
    altered(state, lambda arrays, meta: meta.pop("version"))
    with pytest.raises(WeightsError, match="expects a checkpoint of version 3, got 1"):
        train_encoder(x, labels, resume=state, **SHORT)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"margin": 0.3}, "was made with margin 0.2, got 0.3"),
        ({"loss": "contrastive"}, "was made with loss triplet, got contrastive"),
        ({"steps": 9}, "was made with steps 6, got 9"),
        ({"seed": 1}, "was made with seed 0, got 1"),
        ({"size": 9}, "was made with size 8, got 9"),
        ({"side": 32}, "was made with side 16, got 32"),
        ({"augmentation": nst.faces.Augmentation(flip=False)}, "was made with flip true, got false"),
    ],
)
def test_the_first_choice_that_differs_is_named_with_both_values(
    tmp_path: Path, choices: dict[str, Any], words: str
) -> None:
    state = checkpoint(tmp_path / "state.npz")
    with pytest.raises(ArgumentError, match=rf"state\.npz: {words}; a run goes on with what it was started with"):
        train_encoder(*classes(), resume=state, **{**SHORT, **choices})


def test_other_photographs_weights_or_layers_are_not_continued(tmp_path: Path) -> None:
    x, labels = classes()
    state = checkpoint(tmp_path / "state.npz")
    with pytest.raises(ArgumentError, match="was made with other photographs; "):
        train_encoder(255 - x, labels, resume=state, **SHORT)
    train_encoder(x, labels, **SHORT).save(tmp_path / "net.npz")
    with pytest.raises(ArgumentError, match="was made with other starting weights; "):
        train_encoder(x, labels, start=tmp_path / "net.npz", resume=state, **SHORT)
    with pytest.raises(WeightsError, match="expects a checkpoint of a training run, got embedding_net"):
        train_encoder(x, labels, resume=tmp_path / "net.npz", **SHORT)
    few = {**SHORT, "steps": 2, "people": 3, "photos": 2}
    x, labels = classes(5, 2)
    train_encoder(x, labels, start="fine-tune", last=1, checkpoint=state, **few)
    with pytest.raises(ArgumentError, match="was made with last 1, got 2"):
        train_encoder(x, labels, start="fine-tune", last=2, resume=state, **few)


def test_a_checkpoint_that_cannot_be_written_any_more_does_not_lose_the_run(tmp_path: Path) -> None:
    x, labels = classes()
    folder = tmp_path / "folder"
    folder.mkdir()

    def remove(row: TrainRow) -> None:
        if row.step == 3:
            shutil.rmtree(folder)

    with pytest.raises(OutputError, match=r"state\.npz cannot be written: No such file") as caught:
        train_encoder(x, labels, checkpoint=folder / "state.npz", callback=remove, **SHORT)
    reached = caught.value.result
    assert isinstance(reached, Trained)
    assert (reached.stopped, len(reached.history)) == ("checkpoint", 4)
    four = train_encoder(x, labels, callback=stop_at(4), **SHORT)
    assert_same(reached, four)


def test_the_last_checkpoint_may_fail_as_well(tmp_path: Path) -> None:
    x, labels = classes()
    folder = tmp_path / "folder"

    def remove(row: TrainRow) -> None:
        if row.step == 3:
            shutil.rmtree(folder)
            raise KeyboardInterrupt

    folder.mkdir()
    with pytest.raises(OutputError) as caught:
        train_encoder(x, labels, checkpoint=folder / "state.npz", callback=remove, **SHORT)
    assert isinstance(caught.value.result, Trained)
    assert len(caught.value.result.history) == 3
    with pytest.raises(OutputError, match="does not exist; create it first") as caught:
        train_encoder(x, labels, checkpoint=folder / "state.npz", **SHORT)
    assert caught.value.result is None  # before the first step: nothing was reached


def test_two_errors_are_both_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    good = trainer.augment

    def broken(pictures: Any, how: Any, rng: Any) -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        return good(pictures, how, rng) * np.float32(NAN)

    def last(row: TrainRow) -> None:
        monkeypatch.setattr(trainer, "augment", broken)

    with pytest.raises(NonFiniteError, match=r"step 2: the loss is nan.*state\.npz cannot be written") as caught:
        train_encoder(*classes(), checkpoint=folder / "state.npz", callback=last, **SHORT)
    assert isinstance(caught.value.result, Trained)
    assert len(caught.value.result.history) == 1


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("parameter", "projection.weight is not finite after it"),
        ("buffer", "norms.0.running is not finite after it"),
        ("moment", "the optimiser's square.0 is not finite after it"),
    ],
)
def test_a_step_whose_weights_are_not_finite_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, words: str
) -> None:
    """The state is that of three steps, bit for bit: the run goes on from its checkpoint as if nothing had been."""
    x, labels = classes()
    whole = train_encoder(x, labels, **SHORT)
    good, count, seen = nst.optim.AdamW.step, 0, []

    def broken(self: Any, closure: Any) -> float:
        nonlocal count
        loss, count = good(self, closure), count + 1
        if count == 4:
            net = seen[0]
            target = {"parameter": net.projection.weight.data, "buffer": net.norms[0].running,
                      "moment": self._square[0]}[where]  # fmt: skip
            target.flat[-1] = INF if where == "moment" else NAN
        return float(loss)

    made = nst.models.embedding_net
    monkeypatch.setattr(nst.models, "embedding_net", lambda *a, **k: seen.append(made(*a, **k)) or seen[-1])
    monkeypatch.setattr(nst.optim.AdamW, "step", broken)
    state = tmp_path / "state.npz"
    with pytest.raises(NonFiniteError, match=rf"\[train\] step 4: {words}; the state before it stays") as caught:
        train_encoder(x, labels, checkpoint=state, **SHORT)
    monkeypatch.undo()
    reached = caught.value.result
    assert isinstance(reached, Trained)
    assert_same(reached, train_encoder(x, labels, callback=stop_at(3), **SHORT))
    assert_same(train_encoder(x, labels, resume=state, **SHORT), whole)


def test_without_clipping_a_gradient_that_is_not_finite_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    good, made, seen = nst.Tensor.backward, nst.models.embedding_net, []

    def steep(self: Any) -> None:
        good(self)
        seen[0].spread.shift.grad[0] = INF

    monkeypatch.setattr(nst.models, "embedding_net", lambda *a, **k: seen.append(made(*a, **k)) or seen[-1])
    monkeypatch.setattr(nst.Tensor, "backward", steep)
    with pytest.raises(NonFiniteError, match=r"step 1: the gradient is not finite"):
        train_encoder(*classes(), **{**SHORT, "clip": 0.0})


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    trained = train_encoder(*classes(), **SHORT)
    trained.save(tmp_path / "good.npz")
    altered(tmp_path / "good.npz", _with("norms.1.scale", _holding(INF)))
    with pytest.raises(
        WeightsError, match=r"\[encoder\] .*expects finite weights, got NaN or infinity in norms.1.scale"
    ):
        nst.faces.load_encoder(tmp_path / "good.npz")
    trained.net.spread.shift.data[2] = NAN
    with pytest.raises(NonFiniteError, match=r"NaN or infinity in spread\.shift"):
        trained.save(tmp_path / "bad.npz")
    assert not (tmp_path / "bad.npz").exists()
    face = nst.models.face_encoder()
    face.projection.data = np.array(face.projection.data)
    face.projection.data[0, 0] = NAN
    face.save(tmp_path / "face.npz")
    with pytest.raises(WeightsError, match="NaN or infinity in projection"):
        nst.faces.load_encoder(tmp_path / "face.npz")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["the look", "the write", "the last write"])
def test_a_signal_in_the_middle_of_a_look_or_a_write_waits_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, where: str
) -> None:
    """The look counts, the file is whole, and the run goes on from there bit for bit."""
    from nstcore.faces import train, train_state

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def signalled(good: Any) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append(good)
            if len(calls) == 2:
                signal.raise_signal(number)
            return good(*arguments)

        return call

    x, labels = classes()
    whole = train_encoder(x, labels, **SHORT)
    calls: list[Any] = []
    state, before = tmp_path / "state.npz", signal.signal(number, interrupt)
    name, module = ("score", train) if where == "the look" else ("save", train_state.weights)
    monkeypatch.setattr(module, name, signalled(getattr(module, name)))
    steps = 3 if where == "the last write" else 6  # the second file is then that of a Ctrl-C after the third step
    try:
        part = train_encoder(x, labels, checkpoint=state, callback=stop_at(steps), **SHORT)
    finally:
        signal.signal(number, before)
    monkeypatch.undo()
    reached = {"the look": 2, "the write": 4, "the last write": 3}[where]
    assert (part.stopped, len(part.history)) == ("interrupted", reached)
    assert weights.load(state).meta["steps"] == reached
    rest = train_encoder(x, labels, resume=state, **SHORT)
    assert_same(rest, whole)


def test_a_fine_tuned_run_that_is_stopped_after_every_step_is_the_same_run(tmp_path: Path) -> None:
    x, labels = classes(5, 2)
    options = {**SHORT, "start": "fine-tune", "steps": 3, "people": 3, "photos": 2, "evaluate_every": 1}
    whole = train_encoder(x, labels, **options)
    state = tmp_path / "state.npz"
    train_encoder(x, labels, checkpoint=state, callback=stop_at(1), **options)
    train_encoder(x, labels, checkpoint=state, resume=state, callback=stop_at(2), **options)
    assert_same(train_encoder(x, labels, resume=state, **options), whole)


CHOICES: list[dict[str, Any]] = [{"mining": m} for m in ("batch_all", "semi_hard", "batch_hard", "random")]
CHOICES += [{"mining": "distance_weighted", "patience": 1}, {"loss": "contrastive"}, {"loss": "logistic"},
            {"validation": 0}]  # fmt: skip


@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: "-".join(map(str, c.values())))
def test_a_run_that_is_stopped_after_every_step_is_the_same_run(tmp_path: Path, choices: dict[str, Any]) -> None:
    """Stopped after each step, resumed each time, on other numbers of threads."""
    x, labels = classes()
    options = {**SHORT, **choices}
    whole = train_encoder(x, labels, **options)
    state: Path | None = None
    for step in range(1, 8):
        nst.set_num_threads(1 + step % 3)
        found = train_encoder(
            x, labels, resume=state, checkpoint=tmp_path / "state.npz", callback=stop_at(step), **options
        )
        state = tmp_path / "state.npz"
        if found.stopped != "interrupted":
            break
    assert_same(found, whole)
    if whole.head is not None:
        assert found.head is not None
        for name, array in whole.head.state_dict().items():
            np.testing.assert_array_equal(found.head.state_dict()[name], array)
    again = train_encoder(x, labels, resume=state, **options)  # there is nothing left to do
    assert_same(again, whole)
    assert len(weights_of(again)) == len(weights_of(whole))

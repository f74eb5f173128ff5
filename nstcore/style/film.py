"""A film of a run: the picture every few steps, all of one size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nstcore.errors import ArgumentError, NonFiniteError
from nstcore.files import PathLike
from nstcore.images import resize_to, to_bytes
from nstcore.ops._op import whole
from nstcore.style import checkpoint
from nstcore.style.animation import check_animation, write_animation
from nstcore.style.frames import FrameFolder, Owner, files_among, flat
from nstcore.style.gif import Timed
from nstcore.style.result import Progress, Result
from nstcore.style.run import Run

Array = NDArray[Any]

USUAL, MOST = 100, 1000  # pictures of a film: about so many unless told otherwise, and never more
LARGEST = 1024  # longer side of a film, in pixels
SECONDS, LAST = 0.08, 2.0  # that a picture is shown, and the last one


class Film:
    """Collects pictures of a run in a folder beside the film, and writes the film at the end.

    path: .gif, .webp or .mp4. every: steps from one picture to the next; None for about a hundred pictures in all.
    steps: of the whole run. inputs: what the run reads; files among it are not written over. The pictures are as large
    as the result, at most 1024 pixels: those of smaller sizes are enlarged.

    Raises `OutputError` for a suffix that means nothing or a place that refuses, `ArgumentError` for more than a
    thousand pictures or without PyAV.
    """

    def __init__(self, path: PathLike, steps: int, every: int | None = None, inputs: Any = ()) -> None:
        self.path = check_animation(path, files_among(inputs))
        self.every = -(-steps // USUAL) if every is None else whole("film", "film_every", every)
        if self.every < 1 or steps // self.every > MOST:
            least = max(1, -(-steps // MOST))
            raise ArgumentError(
                f"[film] expects film_every from {least} for {steps} steps, so that the film has at most {MOST} "
                f"pictures; got {self.every}"
            )
        self.folder = FrameFolder(folder_of(self.path), Owner("film", self.path.name))
        self.folder.refuse_inputs(files_among(inputs))

    def of(self, run: Run) -> Result:
        """Let a run go, and film it; also where it is interrupted, or its loss stops being a number."""
        callback = run.callback

        def after_step(progress: Progress) -> None:
            self.after_step(progress)
            if callback:
                callback(progress)

        run.callback = after_step
        done = len(run.rows)
        made_with = flat(checkpoint.identity(run.network, run.scene, run.settings))
        try:
            self.start(done, run.shown(), run.scene.photo.shape, {**made_with, "film_every": self.every})
        except BaseException:
            self.folder.discard()
            raise
        goes_on = done > 0 or run.saving is not None
        try:
            result = run.go()
        except NonFiniteError as error:
            if isinstance(error.result, Result):
                self.finish(error.result, goes_on=False)
            raise
        except BaseException:
            if not (goes_on and run.rows):
                self.folder.remove()
            raise
        self.finish(result, goes_on=result.stopped == "interrupted" and goes_on)
        return result

    def start(self, done: int, picture: Array, shape: tuple[int, ...], made_with: Mapping[str, Any]) -> None:
        """Before the first step. done: steps that a continued run has taken; shape: of the result (h, w, 3).

        picture: what the run starts from, or where it goes on. `OutputError` where the pictures of another run are.
        """
        scale = min(1.0, LARGEST / max(shape[:2]))
        self.size = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
        self.folder.start(made_with)
        self.folder.forget(after=done if done else -1)
        if done % self.every == 0:
            self.folder.write(done, resize_to(picture, *self.size))

    def after_step(self, progress: Progress) -> None:
        """Keep the picture, when it is its turn."""
        if progress.row.step % self.every == 0:
            self.folder.write(progress.row.step, resize_to(progress.image, *self.size))

    def finish(self, result: Result, goes_on: bool) -> None:
        """Write the film of what there is. goes_on: keep the pictures, for a run that will be continued."""
        last = len(result.history)
        numbers = [number for number in self.folder.numbers() if number < last]

        def frame(i: int) -> Timed:
            if i == len(numbers):
                return to_bytes(resize_to(result.image, *self.size)), LAST
            return to_bytes(resize_to(self.folder.read(numbers[i]), *self.size)), SECONDS

        if last:
            write_animation(self.path, frame, len(numbers) + 1)
        if not (goes_on and last):
            self.folder.remove()


def folder_of(path: Path) -> Path:
    """Where the frames of an animation are kept until it is written: run.gif -> run-frames."""
    return path.with_name(f"{path.stem}-frames")

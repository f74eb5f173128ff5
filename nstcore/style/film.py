"""A film of a run: the picture every few steps, all of one size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nstcore.errors import ArgumentError, NonFiniteError
from nstcore.files import PathLike, check_output
from nstcore.images import resize_to, to_bytes
from nstcore.ops._op import whole
from nstcore.style.animation import Timed, check_animation, write_animation
from nstcore.style.frames import FrameFolder
from nstcore.style.result import Progress, Result
from nstcore.style.run import Run

Array = NDArray[Any]

USUAL, MOST = 100, 1000  # pictures of a film: about so many unless told otherwise, and never more
LARGEST = 1024  # longer side of a film, in pixels
SECONDS, LAST = 0.08, 2.0  # that a picture is shown, and the last one


class Film:
    """Collects pictures of a run in a folder beside the film, and writes the film at the end.

    path: .gif, .webp or .mp4. every: steps from one picture to the next; None for about a hundred pictures in all.
    steps: of the whole run. The pictures are as large as the result, at most 1024 pixels: those of smaller sizes are
    enlarged.

    Raises `OutputError` for a suffix that means nothing or a place that refuses, `ArgumentError` for more than a
    thousand pictures or without PyAV.
    """

    def __init__(self, path: PathLike, steps: int, every: int | None = None) -> None:
        check_animation(path)
        check_output(path)
        self.path = Path(path)
        self.every = -(-steps // USUAL) if every is None else whole("film", "film_every", every)
        if self.every < 1 or steps // self.every > MOST:
            least = max(1, -(-steps // MOST))
            raise ArgumentError(
                f"[film] expects film_every from {least} for {steps} steps, so that the film has at most {MOST} "
                f"pictures; got {self.every}"
            )
        self.folder = FrameFolder(folder_of(self.path))

    def of(self, run: Run) -> Result:
        """Let a run go, and film it; also where it is interrupted, or its loss stops being a number."""
        callback = run.callback

        def after_step(progress: Progress) -> None:
            self.after_step(progress)
            if callback:
                callback(progress)

        run.callback = after_step
        self.start(len(run.rows), run.shown(), run.scene.photo.shape)
        try:
            result = run.go()
        except NonFiniteError as error:
            if isinstance(error.result, Result):
                self.finish(error.result, goes_on=False)
            raise
        self.finish(result, goes_on=result.stopped == "interrupted" and run.saving is not None)
        return result

    def start(self, done: int, picture: Array, shape: tuple[int, ...]) -> None:
        """Before the first step. done: steps that a continued run has taken; shape: of the result (h, w, 3).

        picture: what the run starts from, or where it goes on.
        """
        scale = min(1.0, LARGEST / max(shape[:2]))
        self.size = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
        self.folder.start()
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

        def frames() -> Iterator[Timed]:
            for number in numbers:
                yield to_bytes(resize_to(self.folder.read(number), *self.size)), SECONDS
            yield to_bytes(resize_to(result.image, *self.size)), LAST

        if last:
            write_animation(self.path, frames(), len(numbers) + 1)
        if not goes_on:
            self.folder.remove()


def folder_of(path: Path) -> Path:
    """Where the frames of an animation are kept until it is written: run.gif -> run-frames."""
    return path.with_name(f"{path.stem}-frames")

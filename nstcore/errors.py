"""The errors that nstcore raises on purpose.

    NstError
    ├── ShapeError(ValueError)         an array of the wrong rank or size
    ├── DTypeError(TypeError)          an array of the wrong element type
    ├── ArgumentError(ValueError)      an option outside its range, or two that contradict
    ├── GradientError(ArithmeticError) a gradient that cannot be computed, or is wrong
    ├── NonFiniteError(ArithmeticError) a loss that became NaN or infinite
    ├── BackendUnavailable             a backend that this machine does not have
    ├── WeightsError                   a weights file that is damaged, foreign or of another network
    ├── CheckpointError                a checkpoint that is damaged, or of another run
    ├── ImageError                     a picture that cannot be read, or must not be
    │   ├── NoFaceError                a picture in which no face was found
    │   └── SeveralFacesError          a picture with several faces where one is wanted
    ├── GalleryError                   a gallery that is damaged, foreign, locked or of another encoder
    ├── PatchIndexError                an index of patches that is damaged, or of other pictures or another network
    └── OutputError(OSError)           a place that cannot be written

A message names the operation in brackets, then the rule, then what was received:
``[gram] expects (n, h, w, c), got (64, 64)``.
"""

from __future__ import annotations


class NstError(Exception):
    """Base of every error that nstcore raises on purpose."""


class ShapeError(NstError, ValueError):
    """An array has the wrong number of axes, or axes that do not fit together."""


class DTypeError(NstError, TypeError):
    """An array has an element type that the operation does not take."""


class ArgumentError(NstError, ValueError):
    """An option lies outside its range, or two options contradict each other."""


class GradientError(NstError, ArithmeticError):
    """A gradient cannot be computed, or differs from its finite differences."""


class NonFiniteError(NstError, ArithmeticError):
    """A loss or a picture became NaN or infinite; ``result`` holds what was reached before, if anything."""

    result: object = None


class BackendUnavailable(NstError, RuntimeError):
    """A backend was asked for that this machine does not have; the message says why."""


class WeightsError(NstError, ValueError):
    """A weights file is missing, damaged, foreign, or made for another network."""


class CheckpointError(NstError, ValueError):
    """A checkpoint is missing, damaged, or of another run; the message says what differs."""


class ImageError(NstError, ValueError):
    """A picture is missing, cannot be decoded, or is larger than the limit."""


class NoFaceError(ImageError):
    """No face was found in a picture, or none of the wanted size and sharpness."""


class SeveralFacesError(ImageError):
    """Several faces were found where one is wanted; ``faces`` holds them, the largest first."""

    faces: tuple[object, ...] = ()


class GalleryError(NstError):
    """A gallery is damaged, foreign, locked, read-only or full, or does not hold what was asked for."""


class PatchIndexError(NstError, ValueError):
    """An index of patches is damaged, or was made of other pictures, another network or other options."""


class OutputError(NstError, OSError):
    """A result cannot be written where it was asked for; ``result`` holds what was reached before, if anything."""

    result: object = None

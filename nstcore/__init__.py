"""nstcore: neural style transfer, face recognition and ConvNet visualisation on a small engine of its own.

Arrays are NHWC; images are RGB in [0, 1]. No framework, no download, no GPU needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nstcore import errors, ops
from nstcore.autograd import GradReport, Tensor, gradcheck, is_recording, no_grad, tensor
from nstcore.backend import current_backend, use_backend
from nstcore.backend.cpu import get_isa, get_num_threads, set_isa, set_num_threads

if TYPE_CHECKING:
    from nstcore import faces, images, models, nn, optim, style, visualize, weights

__version__ = "0.1.0"

_LAZY = ("faces", "images", "models", "nn", "optim", "style", "visualize", "weights")

__all__ = [
    "GradReport", "Tensor", "current_backend", "errors", "faces", "get_isa", "get_num_threads", "gradcheck",
    "images", "is_recording", "models", "nn", "no_grad", "ops", "optim", "set_isa", "set_num_threads", "style",
    "tensor", "use_backend", "visualize", "weights",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return import_module(f"nstcore.{name}")
    raise AttributeError(f"module 'nstcore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

"""Reverse-mode differentiation: tensors, the tape, and the check of gradients by finite differences."""

from __future__ import annotations

from nstcore.autograd.engine import is_recording, no_grad
from nstcore.autograd.gradcheck import GradReport, gradcheck
from nstcore.autograd.tensor import Tensor, tensor

__all__ = ["GradReport", "Tensor", "gradcheck", "is_recording", "no_grad", "tensor"]

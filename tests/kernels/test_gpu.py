"""The same cases on a real device; skipped by name where there is none. ``make gpu-check`` runs them under NVIDIA's
sanitizer."""

from __future__ import annotations

import numpy as np
import pytest

from nstcore.ops import Case, Op

from .test_parity import GRADIENT_SLACK, assert_agrees, values_and_gradients

pytestmark = [pytest.mark.gpu, pytest.mark.no_emulator]


def test_values_and_gradients(op: Op, case: Case, dtype: str) -> None:
    inputs = case.inputs(dtype)
    values, gradients = values_and_gradients(op, inputs, case, "cuda")
    precise = [x if i in case.integers else x.astype(np.float64) for i, x in enumerate(inputs)]
    exact_values, exact_gradients = values_and_gradients(op, precise, case, "reference")
    for got, exact in zip(values, exact_values, strict=True):
        assert_agrees(got, exact, dtype, op.allowed(case, dtype))
    for got, exact in zip(gradients, exact_gradients, strict=True):
        assert_agrees(got, exact, dtype, GRADIENT_SLACK * op.allowed(case, dtype))


def test_same_bits_again(op: Op, case: Case) -> None:
    inputs, found = case.inputs("float32"), []
    for _ in range(2):
        values, gradients = values_and_gradients(op, inputs, case, "cuda")
        found.append([a.get().tobytes() for a in (*values, *gradients)])
    assert found[0] == found[1]

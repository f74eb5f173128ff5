"""The records are complete, and agree with the native module and with what `nstcore.ops` exports."""

from __future__ import annotations

import inspect
import re
from types import FunctionType

import pytest

from nstcore import _native, ops
from nstcore.ops import OPS, Op
from nstcore.ops._op import check_shapes, parse_signature

PUBLIC = [name for name in ops.__all__ if isinstance(getattr(ops, name), FunctionType)]


def test_record(op: Op) -> None:
    assert OPS[op.name] is op
    assert op.name.isidentifier()
    assert op.cases
    assert set(op.dtypes) <= {"float32", "float64"}
    if op.cpu is not None:
        assert op.source, "an op with native kernels names the paper or equation it computes"
        assert op.flops is not None, "an op with native kernels says what it costs"
        assert op.traffic is not None


def test_signature_binds_on_every_case(op: Op) -> None:
    names, _ = parse_signature(op.signature)
    for case in op.cases:
        inputs = case.inputs("float32")
        optional = [axes for axes in names[len(inputs) :] if not all(axis.startswith("[") for axis in axes)]
        assert not optional, f"{case.label}: an input that may not be left out is missing"
        check_shapes(op, [*inputs, *[None] * (len(names) - len(inputs))])


def test_cost_counts(op: Op) -> None:
    """`flops` and `traffic` take the shapes of any case, and are never negative."""
    for cost in (op.flops, op.traffic):
        for case in op.cases if cost else ():
            assert cost(*case.shapes, **case.params) >= 0


def test_cases_cover_nothing_and_one(op: Op) -> None:
    """Sizes around a tile are the record's business; no elements and a single one always belong to them."""
    if op.cpu is not None:
        sizes = [size for case in op.cases for shape in case.shapes for size in shape]
        assert 0 in sizes, "no case is empty"
        assert 1 in sizes, "no case has an axis of one"


def test_native_symbols_and_records_agree() -> None:
    declared = [symbol for op in OPS.values() if op.cpu for symbol in op.cpu.symbols]
    native = [name for name in dir(_native) if name.endswith("_cpu")]
    assert sorted(declared) == sorted(native)


def test_native_symbols_carry_the_name_of_their_op(op: Op) -> None:
    for symbol in op.cpu.symbols if op.cpu else ():
        assert re.fullmatch(rf"{op.name}_(forward|backward)(_[a-z]+)*_cpu", symbol)


@pytest.mark.parametrize("name", PUBLIC)
def test_exported_function_is_an_op_or_says_it_has_no_record(name: str) -> None:
    function = getattr(ops, name)
    assert inspect.getdoc(function)
    if name not in OPS:
        assert "Not an op" in inspect.getdoc(function)


def test_every_op_is_exported(op: Op) -> None:
    assert op.name in ops.__all__

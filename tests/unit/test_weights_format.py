"""The weights file: what is written comes back, and nothing else is ever believed."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nstcore import weights
from nstcore.errors import ArgumentError, WeightsError
from nstcore.models.vgg_layout import BLOCKS, convolutions, parameter_shapes
from nstcore.weights import format as weights_format
from nstcore.weights import npy

META = {
    "architecture": "example",
    "preprocessing": {"color_order": "RGB", "scale": 1.0, "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]},
    "source": "drawn in a test",
    "licence": "CC0",
}


def example_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv1.weight": rng.standard_normal((4, 3, 3, 2)).astype("float16"),
        "conv1.bias": rng.standard_normal(4).astype("float32"),
        "steps": np.array(7, "int64"),
        "none": np.zeros((0, 5), "float64"),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "example.npz"
    weights.save(path, example_arrays(), META)
    return path


def refused(path: Path, *parts: str) -> str:
    """Loading fails with a message of one line that names the file, all `parts`, and the remedy."""
    with pytest.raises(WeightsError) as caught:
        weights.load(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), "nst weights convert", *parts):
        assert part in message
    return message


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names are wanted here
        for name, block in members.items():
            archive.writestr(name, block)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy_block(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def resealed(path: Path, **changes: object) -> None:
    """Change facts and put a right digest on them, as a hostile author would."""
    members = members_of(path)
    meta = json.loads(npy.parse(members["__meta__.npy"]).tobytes())
    meta.update(changes)
    meta["digest"] = weights_format.meta_digest(meta)
    members["__meta__.npy"] = npy_block(np.frombuffer(json.dumps(meta).encode(), np.uint8))
    write_zip(path, members)


def test_what_is_saved_comes_back(saved: Path) -> None:
    found = weights.load(saved)
    for key, array in example_arrays().items():
        assert found.arrays[key].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[key], array)
        assert not found.arrays[key].flags.writeable
    assert len(found.arrays) == 4
    assert {key: found.meta[key] for key in META} == META
    assert (found.architecture, found.meta["dtype"], found.parameters) == ("example", "mixed", 4 * 18 + 4 + 1)
    assert re.fullmatch("[0-9a-f]{64}", found.digest)


def test_numpy_itself_reads_the_file(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["conv1.weight"], example_arrays()["conv1.weight"])


def test_equal_arrays_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    again = dict(reversed(example_arrays().items()))
    again["conv1.weight"] = np.asfortranarray(again["conv1.weight"])
    again["conv1.bias"] = again["conv1.bias"].astype(">f4")
    weights.save(tmp_path / "again.npz", again, META)
    assert (tmp_path / "again.npz").read_bytes() == saved.read_bytes()


def test_digest_of_the_arrays_depends_on_them_alone(saved: Path, tmp_path: Path) -> None:
    weights.save(tmp_path / "facts.npz", example_arrays(), META | {"source": "elsewhere"})
    weights.save(tmp_path / "values.npz", {key: a + 1 for key, a in example_arrays().items()}, META)
    original, facts, values = (
        weights.load(path).arrays_digest for path in (saved, tmp_path / "facts.npz", tmp_path / "values.npz")
    )
    assert re.fullmatch("[0-9a-f]{64}", original)
    assert facts == original != values


def test_digest_depends_on_values_shape_and_facts(saved: Path, tmp_path: Path) -> None:
    digests = {weights.load(saved).digest}
    arrays = example_arrays()
    arrays["conv1.bias"][0] += 1
    for changed, meta in (
        (arrays, META),
        (example_arrays() | {"conv1.bias": example_arrays()["conv1.bias"].reshape(2, 2)}, META),
        (example_arrays(), META | {"source": "elsewhere"}),
    ):
        weights.save(tmp_path / "other.npz", changed, meta)
        digests.add(weights.load(tmp_path / "other.npz").digest)
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("arrays", "meta", "rule"),
    [
        ({}, META, "1 to 9999 arrays"),
        ({"../evil": np.ones(1)}, META, "cannot name an array"),
        ({"a..b": np.ones(1)}, META, "cannot name an array"),
        ({"__meta__": np.ones(1)}, META, "cannot name an array"),
        ({"w": np.array([object()])}, META, "got object"),
        ({"w": np.ones(1, complex)}, META, "got complex128"),
        ({"w": np.ones(1)}, {}, "architecture"),
        ({"w": np.ones(1)}, META | {"extra": object()}, "plain JSON"),
        ({"w": np.ones(1)}, META | {"preprocessing": {"color_order": "GBR"}}, "RGB or BGR"),
        ({"w": np.ones(1)}, META | {"preprocessing": META["preprocessing"] | {"std": [1, 0, 1]}}, "std > 0"),
    ],
)
def test_save_refuses_what_the_format_cannot_hold(tmp_path: Path, arrays, meta, rule) -> None:
    with pytest.raises(ArgumentError, match=re.escape(rule)):
        weights.save(tmp_path / "a.npz", arrays, meta)
    assert not list(tmp_path.iterdir())


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no such file"):
        weights.load(tmp_path / "absent.npz")
    refused(tmp_path, "cannot be read")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "not a zip"),
        (b"not weights", "not a zip"),
        (pickle.dumps({"w": 1}), "is a pickle"),
        (b"PK\x03\x04", "truncated"),
        (b"PK\x03\x04" + b"\0" * 100, "truncated"),
        (
            struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 20_000, 20_000, 0, 0, 0),
            "20000 members, the limit is 10000",
        ),
        (struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 1 << 31, 0, 0), "damaged zip"),
        (
            b"PK\x03\x04" + b"\0" * 9000 + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 9000, 4, 0),
            "directory of 9000",
        ),
    ],
)
def test_foreign_bytes(tmp_path: Path, content: bytes, rule: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    refused(path, rule)


def test_every_truncation(saved: Path) -> None:
    content = saved.read_bytes()
    for length in range(0, len(content), 97):
        saved.write_bytes(content[:length])
        refused(saved)


def test_longer_file(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"more")
    refused(saved, "truncated")


def test_pickled_object_is_named_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "a.npz"
    write_zip(path, {"conv1_1.weight.npy": npy_block(np.array([Bomb()]), allow_pickle=True)})
    refused(path, "conv1_1.weight: contains a pickled object; nstcore never unpickles")
    assert not (tmp_path / "ran").exists()


def test_foreign_npz_has_no_facts(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    refused(tmp_path / "a.npz", "__meta__: is missing")


def test_compressed_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bomb = npy.header(np.empty(0, np.uint8)) + bytes(50_000_000)
    write_zip(tmp_path / "a.npz", {"w.npy": bomb}, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    refused(tmp_path / "a.npz", "w: is compressed")


def test_two_members_cannot_claim_the_same_bytes(saved: Path) -> None:
    """A directory that points many times to one member must not multiply what is read."""
    content = saved.read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    name = content.index(b"conv1.bias.npy", start)
    entry = content[name - 46 : content.index(b"PK\x01\x02", name)]
    size = 10**6
    entry = entry[:20] + struct.pack("<LL", size, size) + entry[28:]
    copies = [entry.replace(b"conv1.bias", b"copy%06d" % number) for number in range(50)]
    directory = content[start:end] + b"".join(copies)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 55, 55, len(directory), start, 0)
    saved.write_bytes(content[:start] + directory + tail)
    refused(saved, "bytes of arrays, but is")


@pytest.mark.parametrize(
    "name", ["../w.npy", "a/w.npy", "a\\w.npy", "/w.npy", "..npy", "w.txt", "wé.npy", "w" * 300 + ".npy"]
)
def test_names_that_are_no_keys(tmp_path: Path, name: str) -> None:
    write_zip(tmp_path / "a.npz", {name: npy_block(np.ones(1))})
    refused(tmp_path / "a.npz", "is not the name of an array")


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ("(1000000000, 1000000000)", "claims shape"),
        ("(3,)", "claims shape"),
        ("(" + "9" * 30 + ",)", "unreadable shape"),
        ("(-1,)", "header"),
        ("(" + "1, " * 60 + "1)", "unreadable shape"),
        ("(0, 999999999999999999, 999999999999999999)", "a"),
        ("(__import__('os').getcwd(),)", "header"),
    ],
)
def test_headers_that_lie(tmp_path: Path, shape: str, rule: str) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    block = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(16)
    write_zip(tmp_path / "a.npz", {"w.npy": block})
    refused(tmp_path / "a.npz", "w: ", rule)


@pytest.mark.parametrize(
    "block", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00" + bytes(20), b"\x93NUMPY\x01\x00\xff\xff" + bytes(20)]
)
def test_blocks_that_are_none(tmp_path: Path, block: bytes) -> None:
    write_zip(tmp_path / "a.npz", {"w.npy": block})
    refused(tmp_path / "a.npz", "w: ")


def test_altered_value_names_the_key(saved: Path) -> None:
    members = members_of(saved)
    members["conv1.bias.npy"] = npy_block(example_arrays()["conv1.bias"] + 1)
    write_zip(saved, members)
    refused(saved, "conv1.bias: does not match its digest")


def test_altered_byte_names_the_key(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[content.index(example_arrays()["conv1.weight"].tobytes()) + 5] ^= 1
    saved.write_bytes(content)
    refused(saved, "conv1.weight: is damaged")


@pytest.mark.parametrize(
    ("name", "array", "rule"),
    [
        ("conv1.bias.npy", None, "conv1.bias: is missing"),
        ("conv1.bias.npy", np.ones(4, "float64"), "conv1.bias: does not match"),
        ("conv1.bias.npy", np.ones(4, ">f4"), "conv1.bias: expects C-ordered little-endian"),
        ("conv1.bias.npy", np.ones(4, bool), "conv1.bias: expects C-ordered little-endian"),
        ("conv1.bias.npy", np.array(["text"]), "conv1.bias: has elements of type"),
        ("conv1.bias.npy", np.ones((2, 2), order="F"), "conv1.bias: "),
        ("more.npy", np.ones(4), "more: does not match its digest"),
    ],
)
def test_members_that_differ_from_the_facts(saved: Path, name: str, array, rule: str) -> None:
    members = members_of(saved)
    del members["conv1.bias.npy"]
    if array is not None:
        members[name] = npy_block(array)
        members.setdefault("conv1.bias.npy", npy_block(example_arrays()["conv1.bias"]))
    write_zip(saved, members)
    refused(saved, rule)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"format": "other"}, "expects nstcore-weights version 1, got 'other' version 1"),
        ({"format_version": 2}, "got 'nstcore-weights' version 2"),
        ({"architecture": 5}, "expects architecture as text"),
        ({"licence": ""}, "expects licence as text"),
        ({"digests": []}, "expects digests"),
        ({"dtype": "float32"}, "says dtype 'float32'"),
        ({"preprocessing": [1]}, "color_order"),
        ({"preprocessing": META["preprocessing"] | {"mean": [1, 2]}}, "three means"),
        ({"preprocessing": META["preprocessing"] | {"scale": "1"}}, "scale > 0"),
        ({"architecture": "vgg16"}, "conv1_1.weight: is missing: vgg16 needs it with shape (64, 3, 3, 3)"),
    ],
)
def test_facts_that_are_wrong(saved: Path, changes: dict[str, object], rule: str) -> None:
    resealed(saved, **changes)
    refused(saved, rule)


def test_facts_changed_without_a_new_digest(saved: Path) -> None:
    content = saved.read_bytes()
    members = members_of(saved)
    members["__meta__.npy"] = members["__meta__.npy"].replace(b"CC0", b"CC1")
    write_zip(saved, members)
    assert content != saved.read_bytes()
    refused(saved, "__meta__: does not match its digest")


@pytest.mark.parametrize("text", [b"", b"[]", b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}', b"9" * 5000])
def test_facts_that_are_no_table(tmp_path: Path, text: bytes) -> None:
    block = npy_block(np.frombuffer(text, np.uint8))
    write_zip(tmp_path / "a.npz", {"w.npy": npy_block(np.ones(1)), "__meta__.npy": block})
    refused(tmp_path / "a.npz", "__meta__: ")


@pytest.mark.parametrize(
    ("key", "shape", "rule"),
    [
        ("conv1_1.weight", (64, 3, 3, 4), "vgg16 expects shape (64, 3, 3, 3), got (64, 3, 3, 4)"),
        ("fc6.weight", (2,), "is no parameter of vgg16"),
    ],
)
def test_vgg_of_wrong_shape(tmp_path: Path, key: str, shape: tuple[int, ...], rule: str) -> None:
    arrays = {name: np.zeros(size, "float16") for name, size in parameter_shapes("vgg16").items()}
    arrays[key] = np.zeros(shape, "float16")
    weights.save(tmp_path / "a.npz", arrays, META | {"architecture": "vgg16"})
    refused(tmp_path / "a.npz", f"{key}: {rule}")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_never_give_other_arrays(saved: Path, changes: list[tuple[float, int]]) -> None:
    good = weights.load(saved)
    original = saved.read_bytes()
    content = bytearray(original)
    for place, mask in changes:
        content[int(place * len(content))] ^= mask
    saved.write_bytes(content)
    try:
        found = weights.load(saved)
    except WeightsError:
        return
    finally:
        saved.write_bytes(original)
    assert found.meta == good.meta
    for key, array in good.arrays.items():
        np.testing.assert_array_equal(found.arrays[key], array)


@given(shape=st.lists(st.integers(0, 4), max_size=4), dtype=st.sampled_from(weights_format.DTYPES))
def test_npy_blocks_agree_with_numpy(shape: list[int], dtype: str) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    ours = npy.header(array) + array.tobytes()
    np.testing.assert_array_equal(np.load(io.BytesIO(ours), allow_pickle=False), array)
    for source in (array, np.asfortranarray(array)):
        np.testing.assert_array_equal(npy.parse(npy_block(source)), array)


def test_vgg_layout_is_that_of_the_paper() -> None:
    assert [len(list(convolutions(name))) for name in BLOCKS] == [13, 16]
    assert list(convolutions("vgg19"))[-1] == ("conv5_4", 512, 512)
    assert sum(int(np.prod(shape)) for shape in parameter_shapes("vgg16").values()) == 14_714_688
    assert sum(int(np.prod(shape)) for shape in parameter_shapes("vgg19").values()) == 20_024_384


def test_embedded_files_are_sound() -> None:
    assert "vgg16" in weights.available()
    for name in weights.available():
        found = weights.verify(weights.embedded(name))
        assert found.meta["licence"] != weights_format.NOT_STATED
        assert found.meta["source"] != weights_format.NOT_STATED


def test_embedded_vgg16_is_the_original() -> None:
    """Sums of |w| in float64 of the original weights; rounding to float16 moves them by under 1e-5."""
    found = weights.load(weights.embedded("vgg16"))
    assert (found.architecture, found.meta["dtype"], found.parameters) == ("vgg16", "float16", 14_714_688)
    expected = {"conv1_1": 291.40991, "conv1_2": 1077.51842, "conv3_1": 3517.58433, "conv5_1": 15542.22961}
    for layer, total in expected.items():
        assert np.abs(found.arrays[f"{layer}.weight"], dtype=np.float64).sum() == pytest.approx(total, rel=1e-5)
    preprocessing = {
        "color_order": "BGR",
        "scale": 255.0,
        "mean": [103.939, 116.779, 123.68],
        "std": [1, 1, 1],
    }
    assert found.preprocessing == preprocessing


def test_unknown_embedded_name_lists_the_known() -> None:
    with pytest.raises(WeightsError, match=r"no embedded weights 'vgg99'; there are: .*vgg16"):
        weights.embedded("vgg99")

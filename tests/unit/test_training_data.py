"""What training takes its batches from: the sampler, augmentation, minings by chance, folders and arrays."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nstcore as nst
from nstcore import images
from nstcore.errors import ArgumentError, ShapeError
from nstcore.faces import mining
from nstcore.faces.augment import Augmentation, augment, plain
from nstcore.faces.photos import from_arrays, read_folder
from nstcore.faces.sampler import Sampler


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(2, 9), st.integers(2, 5), st.integers(0, 99))
def test_a_batch_is_what_it_is_said_to_be(counts, people, photos, seed) -> None:
    """P people, K photographs of each or all that there are; single photographs on a quarter of the places at most."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if max(counts) < 2:
        with pytest.raises(ArgumentError, match="one of them with two photographs"):
            Sampler(labels, people, photos, seed)
        return
    sampler, several, singles = Sampler(labels, people, photos, seed), sum(c > 1 for c in counts), counts.count(1)
    assert sampler.negatives_only == singles
    places = min(singles, people // 4 if several > 1 else max(1, people // 4))
    for step in range(2 * sampler.steps + 1):
        batch = sampler.batch(step)
        taken = np.bincount(labels[batch], minlength=len(counts))
        assert len(np.unique(batch)) == len(batch)
        assert all(n in (0, min(count, photos)) for n, count in zip(taken, counts, strict=True))
        assert sum(n > 0 and count == 1 for n, count in zip(taken, counts, strict=True)) == places
        assert np.count_nonzero(taken) == min(people, several + places)
        assert np.count_nonzero(taken) > 1


def test_a_class_with_most_of_the_photographs_does_not_fill_a_batch() -> None:
    """It stands in one batch of an epoch like everybody else, whatever it has."""
    labels = np.repeat(np.arange(5), [200, 3, 3, 3, 3])
    sampler = Sampler(labels, people=4, photos=4, seed=1)
    assert sampler.steps == 2
    seen = np.zeros(len(labels), int)
    for step in range(100):
        taken = np.bincount(labels[sampler.batch(step)], minlength=5)
        assert set(np.delete(taken, 0)) <= {0, 3}
        assert taken[0] in (0, 4)
        seen[sampler.batch(step)] += 1
    assert (seen > 0).all()  # 50 epochs of four


def test_all_photographs_of_people_with_several_are_used_equally() -> None:
    labels = np.repeat(np.arange(30), 8)
    sampler = Sampler(labels, people=10, photos=4, seed=3)
    assert sampler.steps == 3
    first = np.concatenate([sampler.batch(i) for i in range(6)])
    assert np.array_equal(np.sort(first), np.arange(240))  # eight of each, four in an epoch
    assert [len(sampler.batch(i)) for i in range(6)] == [40] * 6
    assert all(len(np.unique(labels[sampler.batch(i)])) == 10 for i in range(6))
    second = np.concatenate([sampler.batch(i) for i in range(6, 12)])
    assert not np.array_equal(first, second)


def test_batches_depend_on_seed_and_step_alone() -> None:
    labels = np.repeat(np.arange(7), 5)
    one, two, other = Sampler(labels, 4, 3, 1), Sampler(labels, 4, 3, 1), Sampler(labels, 4, 3, 2)
    ahead = one.batch(5)
    for step in range(5):
        np.testing.assert_array_equal(one.batch(step), two.batch(step))
    np.testing.assert_array_equal(two.batch(5), ahead)
    assert any(not np.array_equal(one.batch(i), other.batch(i)) for i in range(3))


def test_people_with_one_photograph_are_negatives_only() -> None:
    labels = np.concatenate([np.repeat(np.arange(8), 4), np.arange(8, 40)])
    sampler = Sampler(labels, people=8, photos=4, seed=0)
    assert sampler.negatives_only == 32
    assert sampler.describe()["negatives_only"] == 32
    for step in range(4):
        found = labels[sampler.batch(step)]
        assert np.sum(found >= 8) == 2  # a quarter of the people
        assert (np.bincount(found)[:8][np.unique(found[found < 8])] == 4).all()


@pytest.mark.parametrize(
    ("labels", "people", "photos", "words"),
    [
        ([0, 0, 0], 4, 2, r"at least two classes, .*got 1 class\(es\), 1 with two"),
        ([0, 1, 2], 4, 2, r"got 3 class\(es\), 0 with two"),
        ([], 4, 2, r"got 0 class\(es\)"),
        ([0, 0, 1, 1], 1, 2, "at least 2 people and 2 photographs"),
        ([0, 0, 1, 1], 2, 1, "at least 2 people and 2 photographs"),
    ],
)
def test_sampler_refuses(labels: list[int], people: int, photos: int, words: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^\[sampler\] .*{words}"):
        Sampler(np.array(labels, np.intp), people, photos)


def pictures(n: int = 5, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_without_changes_a_picture_stays() -> None:
    x = pictures()
    nothing = Augmentation(flip=False, shift=0, scale=0, light=0)
    np.testing.assert_allclose(augment(x, nothing, np.random.default_rng(0)), plain(x), atol=1e-6)


def test_mirror_is_a_mirror_and_happens_half_of_the_time() -> None:
    x = pictures(400, 8)
    y = augment(x, Augmentation(True, 0, 0, 0), np.random.default_rng(1))
    turned = np.array([np.allclose(a, plain(b[:, ::-1]), atol=1e-6) for a, b in zip(y, x, strict=True)])
    same = np.array([np.allclose(a, plain(b), atol=1e-6) for a, b in zip(y, x, strict=True)])
    assert (turned ^ same).all()
    assert 0.4 < turned.mean() < 0.6
    tiny = augment(x, Augmentation(True, 1e-7, 0, 0), np.random.default_rng(1))  # the resampled path agrees
    np.testing.assert_allclose(tiny, y, atol=1e-5)


def test_shift_moves_a_picture_by_as_much_as_was_drawn() -> None:
    ramp = np.broadcast_to(np.arange(0, 128, 2, dtype=np.uint8)[:, None, None], (64, 64, 3))
    x = np.stack([ramp] * 200)
    y = augment(x, Augmentation(False, 0.1, 0, 0), np.random.default_rng(2)) * 255
    moved = (y[:, 32, 32, 0] - 64) / 2
    assert np.abs(moved).max() <= 6.4
    assert np.abs(moved).max() > 5.5
    np.testing.assert_allclose(y[:, 20:44, 5], x[:, 20:44, 5] + 2 * moved[:, None, None], atol=1e-3)


def test_scale_enlarges_around_the_middle() -> None:
    ramp = np.broadcast_to(np.arange(0, 126, 2, dtype=np.uint8)[:, None, None], (63, 63, 3))
    y = augment(np.stack([ramp] * 50), Augmentation(False, 0, 0.2, 0), np.random.default_rng(3)) * 255
    np.testing.assert_allclose(y[:, 31, 31], 62, atol=1e-3)
    factor = 20 / (y[:, 41, 0, 0] - 62)
    assert 0.8 <= factor.min() < 0.85
    assert 1.15 < factor.max() <= 1.2 + 1e-5


def test_light_stays_in_range_and_is_seeded() -> None:
    x = pictures()
    y = augment(x, Augmentation(light=0.9), np.random.default_rng(4))
    assert y.min() >= 0
    assert y.max() <= 1
    assert y.flags.c_contiguous
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, augment(x, Augmentation(light=0.9), np.random.default_rng(4)))
    with pytest.raises(ArgumentError, match=r"shift in \[0, 1\)"):
        Augmentation(shift=1.0)
    with pytest.raises(ShapeError, match="uint8"):
        augment(plain(x), Augmentation(), np.random.default_rng(0))  # type: ignore[arg-type]


LABELS = np.array([0, 0, 0, 1, 1, 2])


def unit_rows(seed: int = 0, n: int = 6, d: int = 8) -> np.ndarray:
    z = np.random.default_rng(seed).standard_normal((n, d))
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", mining.BY_CHANCE)
def test_every_ordered_pair_gets_one_negative(kind: str) -> None:
    rng, z = np.random.default_rng(0), unit_rows()
    draw = mining.random_triplets(LABELS, rng) if kind == "random" else None
    a, p, n = draw or mining.distance_weighted_triplets(z, LABELS, rng)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j and LABELS[i] == LABELS[j]]
    assert list(zip(a.tolist(), p.tolist(), strict=True)) == pairs
    assert (LABELS[a] != LABELS[n]).all()


def test_random_negatives_are_all_as_likely() -> None:
    rng, counts = np.random.default_rng(1), np.zeros((6, 6))
    for _ in range(3000):
        a, _, n = mining.random_triplets(LABELS, rng)
        np.add.at(counts, (a, n), 1)
    share = counts[0] / counts[0].sum()
    np.testing.assert_allclose(share, [0, 0, 0, 1 / 3, 1 / 3, 1 / 3], atol=0.02)


def test_distance_weighted_negatives_follow_the_papers_density() -> None:
    """Against the density of Wu et al., equation 1 and 4, one anchor at a time."""
    z, labels = unit_rows(3, 12, 8), np.array([0, 0, *range(1, 11)])
    z[2:7] += 0.8 * z[0]  # some negatives nearer than at random
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    distance = np.maximum(np.linalg.norm(z[0] - z, axis=1), 0.5)
    weight = distance**-6.0 * (1 - distance**2 / 4) ** -2.5  # d = 8
    weight[(labels == 0) | (distance >= 1.4)] = 0
    assert np.count_nonzero(weight) > 4
    rng, counts = np.random.default_rng(2), np.zeros(12)
    for _ in range(6000):
        a, _, n = mining.distance_weighted_triplets(z, labels, rng)
        counts[n[a == 0]] += 1
    np.testing.assert_allclose(counts / counts.sum(), weight / weight.sum(), atol=0.02)


def _by_a_table(weights: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """The draw as its definition reads, with a row of sums for every pair: pairs × b numbers."""
    pairs = (labels[:, None] == labels[None]) & ~np.eye(len(labels), dtype=bool)
    sums = np.cumsum(weights, axis=1)
    a, p = np.nonzero(pairs & (sums[:, -1:] > 0))
    return a, p, np.sum(sums[a] <= (rng.random(len(a)) * sums[a, -1])[:, None], axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_negatives_are_drawn_as_by_the_definition(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 5, 40)
    weights = (labels[:, None] != labels[None]).astype(np.float64)
    found = mining.random_triplets(labels, np.random.default_rng(seed))
    for one, two in zip(found, _by_a_table(weights, labels, np.random.default_rng(seed)), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kind", mining.BY_CHANCE)
@pytest.mark.parametrize("classes", [2, 256])
def test_mining_by_chance_needs_no_array_of_triplets(kind: str, classes: int) -> None:
    """1,024 encodings: (b, b) float64 is 8 MiB; two classes have 523,264 pairs, and b sums for each took 4 GiB."""
    labels = np.arange(1024) % classes
    z = nst.tensor(unit_rows(1, 1024, 32).astype(np.float32), requires_grad=True)
    tracemalloc.start()
    try:
        loss = mining.triplet_loss(z, labels, 0.2, kind, "mean", np.random.default_rng(0))
        loss.backward()
        assert tracemalloc.get_traced_memory()[1] < 120 << 20
    finally:
        tracemalloc.stop()
    a, p, n = mining.random_triplets(labels, np.random.default_rng(0))
    if kind == "distance_weighted":
        a, p, n = mining.distance_weighted_triplets(z.data, labels, np.random.default_rng(0))
    assert len(a) == 1024 * (1024 // classes - 1)
    assert len(np.unique(a * 1024 + p)) == len(a)
    assert (labels[a] == labels[p]).all()
    assert (labels[a] != labels[n]).all()
    d = 2 - 2 * (z.data @ z.data.T).astype(np.float64)
    assert float(loss) == pytest.approx(np.maximum(d[a, p] - d[a, n] + 0.2, 0).mean(), rel=1e-5)


@pytest.mark.parametrize("kind", mining.BY_CHANCE)
def test_losses_by_chance_have_the_gradient_of_their_triplets(kind: str) -> None:
    z, labels = unit_rows(4, 12, 6), np.arange(12) % 4
    one, two = (nst.tensor(z, requires_grad=True) for _ in range(2))
    mining.triplet_loss(one, labels, 0.3, kind, "mean_active", np.random.default_rng(5)).backward()
    draw = mining.random_triplets(labels, np.random.default_rng(5))
    if kind == "distance_weighted":
        draw = mining.distance_weighted_triplets(z, labels, np.random.default_rng(5))
    nst.ops.triplet_loss(*(two[i] for i in draw), 0.3, "mean_active").backward()
    assert one.grad is not None
    assert two.grad is not None
    np.testing.assert_allclose(one.grad, two.grad, atol=1e-12)


@pytest.mark.parametrize("kind", mining.MININGS)
def test_nan_among_encodings_is_nan_in_the_loss(kind: str) -> None:
    z = unit_rows()
    z[0, 0] = np.nan
    loss = mining.triplet_loss(nst.tensor(z), LABELS, 0.2, kind, "mean", np.random.default_rng(0))
    assert np.isnan(float(loss))


def test_random_negatives_pass_a_chi_squared_test() -> None:
    """3 · 4 · 2,000 draws of one negative among many, every cell alike: 29 degrees of freedom, 0.1 % is at 58.3."""
    labels, counts = np.repeat(np.arange(31), [4, *[1] * 30]), np.zeros(34)
    rng = np.random.default_rng(7)
    for _ in range(2000):
        _, _, n = mining.random_triplets(labels, rng)
        np.add.at(counts, n, 1)
    expected = 24_000 / 30
    assert counts[:4].sum() == 0
    assert np.sum((counts[4:] - expected) ** 2 / expected) < 58.3


def test_far_negatives_serve_an_anchor_that_has_no_others() -> None:
    z = np.array([[1.0, 0, 0], [0.9, 0.435889894, 0], [-1, 0, 0]])
    a, p, n = mining.distance_weighted_triplets(z, np.array([0, 0, 1]), np.random.default_rng(0))
    assert list(zip(a, p, n, strict=True)) == [(0, 1, 2), (1, 0, 2)]


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0], []])
@pytest.mark.parametrize("kind", mining.MININGS)
def test_a_batch_without_triplets_has_no_loss(labels: list[int], kind: str) -> None:
    z = nst.tensor(unit_rows(0, len(labels), 4), requires_grad=True)
    loss = mining.triplet_loss(z, np.array(labels, np.intp), 0.2, kind, "mean", np.random.default_rng(0))
    assert float(loss) == 0


def test_pairs_are_all_of_the_same_and_as_many_of_different() -> None:
    a, b, same = mining.pairs_of(LABELS, np.random.default_rng(0))
    assert same.sum() == 4
    assert (~same).sum() == 4
    assert (a < b).all()
    np.testing.assert_array_equal(LABELS[a] == LABELS[b], same)
    assert len(set(zip(a.tolist(), b.tolist(), strict=True))) == 8


def write(folder: Path, counts: dict[str, int], side: int = 24) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            images.save(folder / name / f"{i}.png", rng.random((side, side + 8, 3)))
    return folder


def test_a_folder_is_read_and_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    root = write(tmp_path / "people", {"anna": 2, "bob": 3, "nobody": 0})
    (root / "bob" / "broken.jpg").write_bytes(b"no picture")
    (root / "bob" / "notes.txt").write_text("not a picture")
    (root / "bob" / "._0.png").write_bytes((root / "bob" / "0.png").read_bytes())  # as macOS leaves them
    (root / ".hidden").mkdir()
    (root / "readme.txt").write_text("")
    calls: list[tuple[int, int]] = []
    photos = read_folder(root, 16, align=False, progress=lambda done, total: calls.append((done, total)))
    assert photos.pictures.shape == (5, 16, 16, 3)
    assert photos.names == ("anna", "bob")
    assert photos.labels.tolist() == [0, 0, 1, 1, 1]
    assert calls[-1] == (6, 6)
    assert photos.left_out[0] == "nobody: an empty class, it has no photographs"
    assert photos.left_out[1].startswith("bob/broken.jpg: [image]")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "expects a folder of photographs for each class, got no folder in it, and 1 photograph side by side"),
        ({"a": 1, "b": 1}, "expects a class with at least two photographs, got 2 classes with one photograph each"),
        ({"a": 0, "b": 0}, "at least two classes, got 0; left out: a: an empty class, .*; b: an empty class"),
    ],
)
def test_folders_that_nothing_can_be_learnt_from_are_refused(
    tmp_path: Path, counts: dict[str, int], words: str
) -> None:
    write(tmp_path / "people", counts)
    (tmp_path / "people").mkdir(exist_ok=True)
    images.save(tmp_path / "people" / "loose.png", np.zeros((8, 8, 3)))
    with pytest.raises(ArgumentError, match=rf"^\[train\] .*people: .*{words}"):
        read_folder(tmp_path / "people", 16, align=False)


def test_photographs_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.jpg").write_bytes(b"nothing")
    with pytest.raises(ArgumentError, match=r"got 0; left out: a/0\.jpg: \[image\].*; and 3 more"):
        read_folder(tmp_path, 16, align=False)


def test_classes_without_faces_are_pointed_to_no_align(tmp_path: Path) -> None:
    root = write(tmp_path / "signs", {"a": 2, "b": 2})
    with pytest.raises(ArgumentError, match=r"got 0; classes that are no faces need --no-align \(align=False\); left"):
        read_folder(root, 16, align=True)


def test_one_class_or_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^\[train\] expects a folder with a folder of photographs"):
        read_folder(tmp_path / "nowhere", 16, align=False)
    root = write(tmp_path / "people", {"anna": 3, "empty": 0})
    with pytest.raises(ArgumentError, match=r"at least two classes, got 1 \(anna\); left out: empty: an empty class"):
        read_folder(root, 16, align=False)


@pytest.mark.parametrize(
    ("pictures", "labels", "error", "words"),
    [
        (np.zeros((3, 8, 8)), [0, 1], ShapeError, r"one label a picture, got labels \(2,\) for pictures \(3, 8, 8\)"),
        (np.zeros((3, 8)), [0, 1, 1], ShapeError, r"pictures \(n, h, w\) or"),
        (np.zeros((3, 8, 8)), [1, 1, 1], ArgumentError, r"at least two classes, got 1 \(1\)"),
        (
            np.zeros((3, 8, 8)),
            [1, 2, 3],
            ArgumentError,
            "a class with at least two photographs, got 3 classes with one",
        ),
        (np.zeros((2, 8, 8)), [None, 1], ArgumentError, "labels that are names or numbers, .*got a label that is miss"),
        (np.zeros((2, 8, 8)), [1.0, np.nan], ArgumentError, "labels that are names or numbers, .*a label that is miss"),
        (np.zeros((2, 8, 8)), [[1], [1, 2]], ArgumentError, "labels that are names or numbers"),
        ([np.zeros((8, 8)), np.zeros((9, 8))], [1, 1], ArgumentError, r"of one size, got \(8, 8\) and \(9, 8\)"),
        (None, [1, 1], ArgumentError, "of one size, got NoneType"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(pictures: Any, labels: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=rf"^\[train\] expects .*{words}"):
        from_arrays(pictures, labels, 16)


def test_arrays_are_brought_to_size_and_named() -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 20, 12), dtype=np.uint8)
    photos = from_arrays(x, ["b", "a", "b", "a"], 16)
    assert photos.pictures.shape == (4, 16, 16, 3)
    assert photos.names == ("a", "b")
    assert photos.labels.tolist() == [1, 0, 1, 0]
    assert photos.digest() == from_arrays(x, ["b", "a", "b", "a"], 16).digest()
    assert photos.digest() != from_arrays(x, ["a", "b", "b", "a"], 16).digest()

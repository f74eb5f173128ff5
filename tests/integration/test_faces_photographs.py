"""The answers of ``nst faces`` on real photographs: no error among them, strangers unnamed, ORL as it is reported."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nstcore.faces import Found, Gallery, detect, load_encoder
from nstcore.faces.decide import identification
from nstcore.faces.folders import encode_people, people_in
from nstcore.faces.pairs import all_pairs
from nstcore.faces.pipeline import encode_faces, encode_one

from .conftest import Run


@pytest.fixture(scope="module")
def photographs(test_data: Path) -> dict[str, np.ndarray]:
    """Encodings of the 15 photographs, by "person/number", found and aligned by the package."""
    found = encode_people(people_in(test_data / "faces/photos"))
    assert not found.failures
    assert not found.several
    return {f"{path.parent.name}/{path.stem}": e for path, e in zip(found.paths, found.encodings, strict=True)}


@pytest.mark.data
def test_photographs_that_were_saved_anew_are_enrolled(test_data: Path, tmp_path: Path) -> None:
    """In these copies the detector takes a fold of cloth or a hand for a second face, with scores up to 0.97."""
    copies = {"obama/1.jpg": (1.0, 95), "miranda/1.png": (0.75, 85)}
    for name, (scale, quality) in copies.items():
        with Image.open(test_data / "faces/photos" / name) as picture:
            size = (int(picture.width * scale), int(picture.height * scale))
            picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(tmp_path / "copy.jpg", quality=quality)
        assert len(detect(tmp_path / "copy.jpg", thresholds=(0.6, 0.7, 0.9))) == 2
        assert len(encode_faces(tmp_path / "copy.jpg")) == 1
        with pytest.warns(UserWarning, match=r"copy\.jpg: a small second face is passed over: \(\d+, "):
            face, encoding = encode_one(tmp_path / "copy.jpg", min_score=0.9)
        assert face.score > 0.99
        original = encode_one(test_data / "faces/photos" / name)[1]
        assert np.linalg.norm(encoding - original) < 0.2


@pytest.mark.data
def test_all_pairs_of_the_photographs_without_an_error(photographs: dict[str, np.ndarray]) -> None:
    pairs = all_pairs(np.stack(list(photographs.values())), [name.split("/")[0] for name in photographs])
    assert (len(photographs), pairs.people, int(pairs.same.sum()), int((~pairs.same).sum())) == (15, 6, 14, 91)
    threshold = load_encoder().calibration.threshold
    np.testing.assert_array_equal(pairs.distances <= threshold, pairs.same)


@pytest.mark.data
def test_leaving_one_out(photographs: dict[str, np.ndarray]) -> None:
    """The nearest of the other photographs is of the same person; who has no other photograph is a stranger."""
    threshold = load_encoder().calibration.threshold
    for name, encoding in photographs.items():
        others = {o: np.linalg.norm(encoding.astype(float) - e) for o, e in photographs.items() if o != name}
        nearest = min(others, key=lambda o: others[o])
        person = name.split("/")[0]
        if person == "miranda":  # the only one with a single photograph
            assert others[nearest] > threshold
        else:
            assert nearest.split("/")[0] == person
            assert others[nearest] <= threshold


@pytest.mark.data
@pytest.mark.parametrize("group", ["obama_and_biden", "harington_and_leslie"])
def test_groups_are_named_from_any_single_photograph(
    photographs: dict[str, np.ndarray], test_data: Path, group: str
) -> None:
    """Whichever photograph each of the six is known by, 144 choices. Both files show obama and biden, whatever they are
    called; the second one is where obama/3 and biden/1 were cut from, so that half of its choices are easy.
    """
    found = encode_faces(test_data / f"faces/groups/{group}.jpg")
    people: dict[str, list[np.ndarray]] = {}
    for name, encoding in photographs.items():
        people.setdefault(name.split("/")[0], []).append(encoding)
    choices = list(itertools.product(*people.values()))
    assert len(choices) == 144
    for choice in choices:
        candidates = []
        for _, probe in found:
            rows = [(float(np.linalg.norm(probe - e)), name) for name, e in zip(people, choice, strict=True)]
            candidates.append([Found(name, distance, 1, 1) for distance, name in sorted(rows)])
        for one_each in (False, True):
            faces = [face for face, _ in found]
            matches = identification(faces, candidates, load_encoder().calibration, one_each=one_each)
            names = [match.name for match in matches if match.name is not None]
            assert sorted(names) == ["biden", "obama"]


@pytest.mark.data
def test_groups_are_named_by_the_command(test_data: Path, tmp_path: Path, run: Run) -> None:
    """From one photograph each that is not the group's own; the third face of the first picture is a stranger's."""
    photos, gallery = test_data / "faces/photos", tmp_path / "people.db"
    for name, file in (("obama", "1.jpg"), ("biden", "2.jpg"), ("leslie", "1.jpg"), ("miranda", "1.png")):
        assert run("faces", "enroll", name, photos / name / file, "-g", gallery, "--no-check-quality")[0] == 0
    names = []
    for group in ("obama_and_biden", "harington_and_leslie"):
        out = run("faces", "identify", test_data / f"faces/groups/{group}.jpg", "-g", gallery, "--json")[1]
        faces = json.loads(out)[0]["faces"]
        names.append([match["name"] for match in sorted(faces, key=lambda match: match["face"]["box"][0])])
    assert names == [["biden", "obama", None], ["obama", "biden"]]


@pytest.mark.data
def test_strangers_are_not_recognised(photographs: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Every person in turn is unknown to a gallery of all photographs of the others."""
    for stranger in sorted({name.split("/")[0] for name in photographs}):
        known = {n: e for n, e in photographs.items() if n.split("/")[0] != stranger}
        asked = [e for n, e in photographs.items() if n.split("/")[0] == stranger]
        with Gallery(tmp_path / f"{stranger}.db") as gallery:
            gallery.add_many([n.split("/")[0] for n in known], np.stack(list(known.values())))
            candidates = gallery.search(np.stack(asked), 1)
        matches = identification([None] * len(asked), candidates, load_encoder().calibration)
        assert [match.name for match in matches] == [None] * len(asked)
        assert all(match.nearest is not None and match.margin < -0.1 for match in matches)


@pytest.mark.data
def test_orl_as_a_tree_of_files(test_data: Path, tmp_path: Path, run: Run) -> None:
    """Eight people with four pictures each of the ORL set, as PNG: everyone is found, and told apart almost always."""
    with np.load(test_data / "faces/orl.npz", allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    for label in np.unique(labels)[::5]:
        (tmp_path / f"s{label}").mkdir()
        for number, image in enumerate(images[labels == label][:4], 1):
            Image.fromarray(image).save(tmp_path / f"s{label}" / f"{number}.png")
    code, out, _ = run("faces", "evaluate", tmp_path, "--json")
    facts = json.loads(out)
    assert (code, facts["failures"], facts["people"], facts["photographs"]) == (0, [], 8, 32)
    assert (facts["same"], facts["different"]) == (48, 448)
    assert facts["eer"] < 0.03
    assert facts["folds"]["accuracy"] > 0.97
    assert facts["identification"]["rank1"] == 1.0
    assert [v["rate"] is None for v in facts["validation"]] == [False, False, True]

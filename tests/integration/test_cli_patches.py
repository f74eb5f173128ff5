"""``nst patches``, ``nst dream`` and ``nst gram``, as a user calls them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from nstcore.demo import picture_path
from nstcore.images import load, save
from nstcore.visualize import load_index

from .conftest import Run

NAMES = ("chelsea", "coffee", "rocket", "astronaut")


@pytest.fixture
def photos(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four small photographs; the cache of indices lies beside it."""
    folder = place / "photos"
    folder.mkdir()
    for name in NAMES:
        save(folder / f"{name}.png", load(picture_path(name), size=72))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    return folder


class Page(HTMLParser):
    """Tags of a page, and every address in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.addresses += [facts[name] or "" for name in ("src", "href") if name in facts]
        self.ids += [facts["id"] or ""] if "id" in facts else []
        if tag not in ("img", "meta", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def check(self) -> None:
        """Needs no network: every address is a place in the page or a picture inside of it; every element ends."""
        assert self.open == []
        for address in self.addresses:
            assert address.startswith(("#", "data:image/")), address
            assert not address.startswith("#") or address[1:] in self.ids
        assert not re.search(r"https?:|@import|url\(", self.text)
        assert len(set(self.ids)) == len(self.ids)


class TestPatches:
    def test_a_sheet(self, run: Run, photos: Path) -> None:
        code, out, err = run(
            "patches", photos, "--layer", "conv1_2", "--units", "0:3,7", "-o", "sheet.png", "--cell", "40"
        )
        assert (code, "4 units of 1 layer, 4 pictures; index" in out) == (0, True), err
        picture = load("sheet.png")
        row = 40 + 3 + 2 * 3
        assert picture.shape[:2] == (14 + 34 + 4 * row + 14, 2 * 14 + 150 + 9 * 43)
        cells = picture[48:, 164:]
        assert (cells[:40, :40] < 0.9).any()
        assert (cells[:40, 4 * 43 :] == 1).all(), "there are four pictures, so at most four patches"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["-o", "s.webp", "--layers", "all", "--cell", "96"], "WEBP holds at most 16383 pixels a side, got 1069x2"),
            (["-o", "s.jpg", "--layer", "conv5_3", "--units", "all", "--cell", "130"], "JPEG holds at most 65500"),
            (["-o", "s.png", "--layers", "all", "--units", "all"], "expects a sheet of at most 100,000,000 pixels"),
            (["-o", "s.png", "--layer", "conv1_1", "--count", "-3"], "expects --count from 1 to 100, got -3"),
        ],
    )
    def test_a_sheet_that_cannot_be_written_is_refused_before_the_work(
        self, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
    ) -> None:
        def works(*_: object, **__: object) -> None:
            raise AssertionError("the pass began")

        monkeypatch.setattr("nstcore.visualize.fill.fill_index", works)
        code, _, err = run("patches", photos, *arguments)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert words in err
        assert not (photos.parent / "cache" / "nstcore" / "patches").exists()

    def test_the_index_is_reused_by_later_calls(self, run: Run, photos: Path, place: Path) -> None:
        run("patches", photos, "--layer", "conv2_1", "--units", "0:2", "-o", "a.png")
        (index,) = (place / "cache" / "nstcore" / "patches").iterdir()
        first = index.stat().st_mtime_ns
        assert list(load_index(index).layers) == ["conv1_1", "conv1_2", "conv2_1"]
        code, out, err = run("patches", photos, "--layer", "conv1_1,conv2_1", "--units", "5", "-o", "b.html")
        assert code == 0
        assert "looking" not in err
        assert str(index) in out
        assert index.stat().st_mtime_ns == first
        kept = load_index(index).layers["conv1_1"]
        code, _, err = run("patches", photos, "--layer", "conv2_2", "--units", "5", "-o", "b.html")
        assert (code, "looking 4/4" in err) == (0, True)
        assert "looking for conv2_2: the index has conv1_1, conv1_2, conv2_1\n" in err
        assert list(load_index(index).layers) == ["conv1_1", "conv1_2", "conv2_1", "conv2_2"]
        code, _, err = run("patches", photos, "--layer", "pool1", "--units", "5", "-o", "b.html")
        assert (code, "looking for pool1: the index has" in err) == (0, True)
        code, _, err = run("patches", photos, "--layer", "conv1_2", "--units", "5", "--count", "12", "-o", "b.html")
        assert "looking again for conv1_2: the index keeps 9 patches a unit, 12 are wanted\n" in err
        for layers in ("conv1_1,conv2_1,conv2_2,pool1", "conv1_2"):
            code, _, err = run("patches", photos, "--layers", layers, "--units", "5", "-o", "b.html", "--count", "3")
            assert (code, "looking" in err) == (0, False)
        assert load_index(index).layers["conv1_1"].value.tobytes() == kept.value.tobytes()
        assert [path.name for path in index.parent.iterdir()] == [index.name]

    def test_a_damaged_index_in_the_cache_is_made_again(self, run: Run, photos: Path, place: Path) -> None:
        arguments = ("patches", photos, "--layer", "conv1_1", "--units", "0", "-o", "a.png")
        run(*arguments)
        (index,) = (place / "cache" / "nstcore" / "patches").iterdir()
        good = index.read_bytes()
        index.write_bytes(good[:100])
        code, _, err = run(*arguments)
        assert code == 0
        assert re.search(r"warning: \[patches\] .*npz is no index that can be used: .*; it is made again\n", err)
        assert index.read_bytes() == good
        index.rename("mine.npz")
        Path("mine.npz").write_bytes(good[:100])
        code, _, err = run(*arguments, "--index", "mine.npz")
        assert (code, "delete it to make a new one" in err) == (2, True)
        assert Path("mine.npz").read_bytes() == good[:100]

    @pytest.mark.parametrize(
        ("output", "words"),
        [
            ("photos/chelsea.png", "[output] photos/chelsea.png is the input"),
            ("photos/new.png", "lies in the folder of pictures photos, and would be one of them in the next call"),
            ("photos/inner/new.jpg", "lies in the folder of pictures"),
            ("link/new.png", "lies in the folder of pictures"),
            ("outside.png", "[output] outside.png is the input"),
            ("net.npz", "the suffix must be one of"),
        ],
    )
    @pytest.mark.parametrize("how", [(), ("--json",)])
    def test_no_input_is_written_over(
        self, run: Run, photos: Path, place: Path, monkeypatch: pytest.MonkeyPatch, output: str, words: str,
        how: tuple[str, ...],
    ) -> None:  # fmt: skip
        def works(*_: object, **__: object) -> None:
            raise AssertionError("the network was made")

        (photos / "inner").mkdir()
        (place / "link").symlink_to(photos)
        save("outside.png", np.zeros((9, 9, 3)))
        (photos / "linked.png").symlink_to(place / "outside.png")
        monkeypatch.setattr("nstcore.models.vgg16", works)
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        code, out, err = run("patches", "photos", "--layer", "conv1_1", "-o", output, *how)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before

    def test_the_weights_and_the_index_are_no_outputs(self, run: Run, photos: Path, place: Path) -> None:
        from nstcore.weights import embedded

        (place / "net.npz").write_bytes(b"weights")
        (place / "net.html").symlink_to(embedded("vgg16"))
        for arguments, words in (
            (("--index", "net.npz", "--weights", "net.npz"), "net.npz is the input net.npz"),
            (("-o", "net.html", "--weights", embedded("vgg16")), "net.html is the input"),
        ):
            code, _, err = run("patches", photos, "--layer", "conv1_1", *arguments)
            assert (code, words in err) == (2, True)

    def test_open_ranges_of_units(self, run: Run, photos: Path) -> None:
        code, out, _ = run(
            "patches", photos, "--layers", "conv1_2,conv2_1", "--units", "62:,:1", "-o", "p.html", "--json"
        )
        assert code == 0
        units = {layer: list(map(int, part["units"])) for layer, part in json.loads(out)["layers"].items()}
        assert units == {"conv1_2": [62, 63, 0], "conv2_1": [*range(62, 128), 0]}

    def test_the_same_photograph_twice_counts_once(self, run: Run, photos: Path) -> None:
        (photos / "zz.png").write_bytes((photos / "rocket.png").read_bytes())
        code, out, err = run("patches", photos, "--layer", "conv1_1", "--units", "1", "-o", "a.png")
        assert (code, "1 unit of 1 layer, 4 pictures" in out) == (0, True)
        assert "zz.png has the same pixels as rocket.png and does not count again\n" in err
        table = json.loads(run("patches", photos, "--layer", "conv1_1", "--units", "1", "-o", "a.png", "--json")[1])
        assert table["same"] == [{"picture": "zz.png", "as": "rocket.png"}]
        assert len(table["layers"]["conv1_1"]["units"]["1"]) == 4

    def test_a_huge_picture_is_listed(self, run: Run, photos: Path) -> None:
        save(photos / "huge.png", np.zeros((100, 60, 3)))
        arguments = ("patches", photos, "--layer", "conv1_1", "--units", "1", "-o", "a.png", "--max-pixels", "5999")
        code, out, err = run(*arguments)
        assert (code, "4 pictures" in out) == (0, True)
        assert "warning: skipped huge.png: [image]" in err
        code, _, err = run(*arguments[:-1], "10")
        assert (code, "none of the 5 pictures can be used for conv1_1: astronaut.png: [image]" in err) == (2, True)

    def test_the_network_of_the_weights(self, run: Run, photos: Path) -> None:
        from nstcore.models import AlexNet

        AlexNet(rng=np.random.default_rng(0)).save("alex.npz")
        arguments = ("patches", photos, "--units", "0", "-o", "a.png", "--weights", "alex.npz")
        code, _, err = run(*arguments, "--layer", "conv1", "--net", "vgg16")
        assert code == 2
        assert "alex.npz is of alexnet, not vgg16: leave --net out, or name another file" in err
        for net in ((), ("--net", "alexnet")):
            assert run(*arguments, "--layer", "conv1", *net)[0] == 0

    def test_pictures_of_which_there_is_nothing_left_in_deep_layers(self, run: Run, photos: Path) -> None:
        save(photos / "dot.png", np.linspace(0, 1, 27).reshape(3, 3, 3))
        code, out, _ = run("patches", photos, "--layers", "conv1_1,conv3_1", "--units", "all", "-o", "a.html", "--json")
        assert code == 0
        layers = json.loads(out)["layers"]
        assert [part["pictures_not_used"] for part in layers.values()] == [0, 1]
        names = [{row["picture"] for rows in part["units"].values() for row in rows} for part in layers.values()]
        assert ["dot.png" in some for some in names] == [True, False]
        assert (
            "1 of 5 pictures not used, such as dot.png: [vgg16] expects pictures of at least 4 x 4"
            in Path("a.html").read_text()
        )

    def test_a_page(self, run: Run, photos: Path) -> None:
        code, _, err = run(
            "patches", photos, "--layers", "conv1_1,pool1,conv2_1", "--units", "0:2", "--show", "patch,deconv,guided",
            "-o", "page.html",
        )  # fmt: skip
        assert code == 0, err
        page = Page(Path("page.html"))
        page.check()
        assert [i for i in page.ids if ":" not in i] == ["previous", "next", "single", "conv1_1", "pool1", "conv2_1"]
        assert "conv2_1:1" in page.ids
        pictures = [a for a in page.addresses if a.startswith("data:")]
        rows = json.loads(
            run("patches", photos, "--layers", "conv1_1,pool1,conv2_1", "--units", "0:2", "-o", "p.html", "--json")[1]
        )
        assert len(pictures) == 3 * sum(len(u) for la in rows["layers"].values() for u in la["units"].values())

    def test_json_is_the_table(self, run: Run, photos: Path) -> None:
        code, out, err = run("patches", photos, "--layer", "conv1_2", "--units", "4", "-o", "a.png", "--json")
        assert (code, err) == (0, "")
        table = json.loads(out)
        layer = table["layers"]["conv1_2"]
        assert (layer["receptive_field"], layer["stride"], table["pictures"]) == ([5, 5], [1, 1], 4)
        rows = layer["units"]["4"]
        assert sorted(row["picture"] for row in rows) == sorted(f"{name}.png" for name in NAMES)
        values = [row["activation"] for row in rows]
        assert values == sorted(values, reverse=True)
        assert all(row["top"] == row["row"] - 2 and row["left"] == row["column"] - 2 for row in rows)

    @pytest.mark.parametrize("kind", ["deconv", "guided", "gradient", "occlusion"])
    def test_what_excites_the_unit(self, run: Run, photos: Path, kind: str) -> None:
        code, _, err = run(
            "patches",
            photos,
            "--layer",
            "conv2_1",
            "--units",
            "9",
            "--show",
            f"patch,{kind}",
            "-o",
            "a.png",
            "--cell",
            "40",
        )
        assert code == 0, err
        cells = load("a.png")[48:, 164:]
        patch, shown = cells[:40, :40], cells[43:83, :40]
        assert shown.std() > 0.02
        assert np.abs(patch - shown).mean() > 0.02

    def test_broken_files_and_small_pictures_are_told(self, run: Run, photos: Path) -> None:
        (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
        save(photos / "dot.png", np.zeros((3, 3, 3)))
        save(photos / "small.png", load(picture_path("coffee"), size=20))
        code, out, err = run("patches", photos, "--layer", "conv3_1", "--units", "0:2", "-o", "a.png")
        assert code == 0
        assert "warning: skipped broken.jpg: [image]" in err
        assert "1 of 7 pictures not used, such as dot.png: [vgg16] expects pictures of at least 4 x 4 for" in out
        assert "conv3_1: 1 of 7 pictures smaller than the receptive field: used, their patches are padded" in out

    def test_ctrl_c_keeps_the_index(self, run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from nstcore.visualize import fill as module

        original, calls = module._look, []

        def look(*arguments: object) -> object:
            calls.append(0)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return original(*arguments)

        monkeypatch.setattr(module, "_look", look)
        arguments = ("patches", photos, "--layer", "conv1_2", "--units", "0", "-o", "a.png", "--index", "i.npz")
        code, _, err = run(*arguments)
        assert code == 130
        assert "error: interrupted after 2 of 4 pictures; the same command goes on from there (index i.npz)" in err
        assert not Path("a.png").exists()
        assert load_index("i.npz").done == 2
        code, _, err = run(*arguments)
        assert (code, len(calls)) == (0, 5)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--layer", "conv9"), "no layer 'conv9'; it has conv1_1, conv1_2, pool1"),
            (("--layer", "conv1_1", "--units", "60:65"), "a unit of conv1_1 from 0 to 63, got 64"),
            (("--layer", "conv1_1", "--units", "3-5"), "--units as 0:16, 3,7, 500: or all, got '3-5'"),
            (("--layer", "conv1_1", "--units", "5:5"), "--units as 0:16"),
            (("--layer", "conv1_1", "--units", ":"), "--units as 0:16"),
            (("--layer", "conv1_1", "--units", "\uff13"), "--units as 0:16"),
            (("--layer", "conv1_1", "--units", "1_0"), "--units as 0:16"),
            (("--layer", "conv1_1", "--units", "64:"), "a unit of conv1_1 from 0 to 63, got 64"),
            (("--layer", "conv1_1", "--units", "0:99999999999"), "a unit of conv1_1 from 0 to 63, got 64"),
            (("--layer", ","), "--layer as names with commas between"),
            (("--show", "lrp"), "to show patch, deconv, guided, gradient, occlusion, got 'lrp'"),
            (("--count", "0"), "--count from 1 to 100, got 0"),
            (("--cell", "5"), "--cell from 16 to 400, got 5"),
            (("--size", "0"), "size as a whole number of at least 1"),
            (("-o", "a.pdf"), "the suffix must be one of"),
            (("-o", "absent/a.html"), "does not exist; create it first"),
            (("--net", "resnet"), "--net vgg16, vgg19, alexnet, face_encoder, got 'resnet'"),
            (("--net", "alexnet"), "no weights are embedded"),
            (("--index", "i.json"), "--index to end in .npz"),
        ],
    )
    def test_bad_input(self, run: Run, photos: Path, arguments: tuple[str, ...], words: str) -> None:
        code, out, err = run("patches", photos, *arguments)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1
        assert not Path("patches.html").exists()

    def test_bad_folders_and_indices(self, run: Run, photos: Path, place: Path) -> None:
        (place / "empty").mkdir()
        (place / "bad").mkdir()
        (place / "bad" / "a.png").write_text("no picture")
        (place / "foreign.npz").write_bytes(b"PK\x05\x06" + bytes(18))
        for arguments, words in (
            (("empty",), "empty has no pictures"),
            (("absent",), "absent does not exist"),
            (("photo.jpg",), "photo.jpg is a file"),
            (("bad", "--layer", "conv1_1"), "the only picture cannot be used for conv1_1: a.png: [image]"),
            (("photos", "--layer", "conv1_1", "--index", "foreign.npz"), "foreign.npz is no index that can be used"),
        ):
            code, _, err = run("patches", *arguments)
            assert code == 2
            assert words in err
        run("patches", "photos", "--layer", "conv1_1", "--units", "0", "-o", "a.png", "--index", "mine.npz")
        kept = Path("mine.npz").read_bytes()
        save(photos / "new.png", np.zeros((30, 30, 3)))
        code, _, err = run("patches", "photos", "--layer", "conv1_1", "--index", "mine.npz")
        assert code == 2
        assert "mine.npz was made of other pictures" in err
        assert Path("mine.npz").read_bytes() == kept

    def test_the_face_encoder(self, run: Run, photos: Path) -> None:
        code, out, err = run(
            "patches", photos, "--net", "face_encoder", "--layers", "stem,blocks.1", "-o", "faces.html"
        )
        assert code == 0, err
        assert "32 units of 2 layers" in out
        Page(Path("faces.html")).check()


class TestDream:
    def test_side_by_side(self, run: Run, place: Path) -> None:
        arguments = ("dream", "--layer", "conv1_2", "--unit", "2,5", "--size", "32", "--steps", "4", "-o", "d.png")
        code, out, _ = run(*arguments)
        assert code == 0
        assert re.search(r"d\.png: conv1_2, unit 2 \S+ -> \S+, unit 5", out)
        picture = load("d.png")
        assert picture.shape == (32, 64, 3)
        code, out, err = run(*arguments[:-1], "again.png", "--json")
        assert (code, err) == (0, "")
        assert [row["unit"] for row in json.loads(out)["units"]] == [2, 5]
        np.testing.assert_array_equal(load("again.png"), picture)

    def test_from_a_picture(self, run: Run, place: Path) -> None:
        code, _, err = run(
            "dream", "--layer", "conv1_1", "--from", "photo.jpg", "--size", "40", "--steps", "1", "-o", "d.png"
        )
        assert code == 0, err
        photo = load("photo.jpg", size=40)
        assert load("d.png").shape == photo.shape
        assert np.abs(load("d.png") - photo).mean() < 0.1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--layer", "conv1_1", "--unit", "64"), "from 0 to 63, got 64"),
            (("--layer", "conv1_1", "--unit", "x"), "expects --unit as 0:16"),
            (("--layer", "conv1_1", "--from", "photo.jpg", "-o", "photo.jpg"), "photo.jpg is the input photo.jpg"),
            (("--layer", "conv1_1", "--from", "photo.jpg", "--max-pixels", "9"), "--max-pixels"),
            (("--layer", "x"), "no layer 'x'"),
            (("--layer", "conv1_1,conv1_2"), "expects one --layer"),
            (("--layer", "conv1_1", "-o", "d.txt"), "the suffix must be one of"),
            (("--layer", "conv1_1", "--from", "absent.png"), "absent.png does not exist"),
            (("--layer", "conv1_1", "--jitter", "-1"), "jitter of at least 0"),
            ((), "--layer"),
        ],
    )
    def test_bad_input(self, run: Run, place: Path, arguments: tuple[str, ...], words: str) -> None:
        code, _, err = run("dream", *arguments)
        assert code == 2
        assert words in err


class TestGram:
    def test_one_picture(self, run: Run, place: Path) -> None:
        code, out, err = run("gram", "photo.jpg", "--layer", "conv2_1", "-o", "g.html", "--pairs", "2")
        assert code == 0, err
        assert re.search(r"g\.html: conv2_1, most correlated: \d+ and \d+ \(0\.\d\d\)", out)
        page = Page(Path("g.html"))
        page.check()
        assert "What fires together in photo.jpg" in page.text
        assert "differ" not in page.text

    def test_two_pictures_and_patches_of_a_folder(self, run: Run, photos: Path) -> None:
        arguments = (
            "gram",
            "photo.jpg",
            "painting.png",
            "--layer",
            "conv1_2",
            "-o",
            "g.html",
            "--pairs",
            "3",
            "--images",
            photos,
        )
        code, out, err = run(*arguments, "--json")
        assert (code, err) == (0, "")
        table = json.loads(out)
        assert len(table["pairs"]) == len(table["differences"]) == 3
        shares = [row["share"] for row in table["differences"]]
        assert shares == sorted(shares, reverse=True)
        assert 0 < shares[0] <= 1
        page = Page(Path("g.html"))
        page.check()
        assert "What makes the two styles differ" in page.text
        assert "the strongest of 4 pictures" in page.text
        (photos / "broken.png").write_text("no picture")
        code, out, err = run(*arguments)
        assert (code, "; what differs most: " in out) == (0, True)
        assert "warning: skipped broken.png: [image]" in err
        assert "looking 5/5" in err
        assert "looking" not in run(*arguments)[2]
        assert json.loads(run(*arguments, "--json")[1])["skipped"][0]["picture"] == "broken.png"

    def test_it_shares_the_index_of_patches(self, run: Run, photos: Path) -> None:
        run("patches", photos, "--layer", "conv1_2", "--units", "0", "-o", "a.png")
        arguments = ("gram", "photo.jpg", "-o", "g.html", "--pairs", "1", "--images", photos, "--layer")
        assert "looking" not in run(*arguments, "conv1_2")[2]
        assert "looking for conv2_1: the index has conv1_1, conv1_2\n" in run(*arguments, "conv2_1")[2]
        assert "looking" not in run(*arguments, "conv2_1")[2]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("photo.jpg", "-o", "g.png"), "-o with the suffix .html"),
            (("absent.jpg",), "absent.jpg does not exist"),
            (("photo.jpg", "--layer", "conv1_1,conv1_2"), "expects one --layer"),
            (("photo.jpg", "--layer", "x"), "no layer 'x'"),
            (("photo.jpg", "--images", "absent"), "absent does not exist"),
            (("page.html", "-o", "page.html"), "page.html is the input page.html"),
            (("photo.jpg", "--max-pixels", "9"), "--max-pixels"),
        ],
    )
    def test_bad_input(self, run: Run, place: Path, arguments: tuple[str, ...], words: str) -> None:
        (place / "page.html").write_bytes((place / "photo.jpg").read_bytes())
        code, _, err = run("gram", *arguments)
        assert code == 2
        assert words in err

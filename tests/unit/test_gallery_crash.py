"""Galleries when things go wrong: processes that write at once or are killed, full disks; and what is forgotten."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nstcore as nst
from nstcore.errors import GalleryError

from .gallery_help import SIZE, filled, opened

ROOT = Path(nst.__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "people.db")


# ---- other processes ----


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{code}",
        *map(str, arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NSTCORE_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    process = start(code, *arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return subprocess.CompletedProcess([], 0, out, err)


WRITER = """
import numpy as np
from gallery_help import opened
path, who = sys.argv[1:]
with opened(path, timeout=60) as gallery:
    for i in range(40):
        gallery.add_many([f"{who} {i}", f"{who} {i}", "shared"], np.full((3, 16), i, np.float32))
        assert gallery.search(np.full((1, 16), i, np.float32), 1)[0][0].distance == 0
        if i % 10 == 0:
            gallery.add(f"{who} gone", np.zeros(16))
            gallery.forget(f"{who} gone")
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "people.db"
    processes = [start(WRITER, path, who) for who in ("a", "b")]  # both make the file, too
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    with opened(path) as gallery:
        gallery.check()
        people = {person.name: person.photos for person in gallery.people()}
    assert people == {"shared": 80, **{f"{who} {i}": 2 for who in "ab" for i in range(40)}}


KILLER = """
import os, random, signal, time
import numpy as np
from gallery_help import opened
path, kills = sys.argv[1], int(sys.argv[2])
random.seed(7)

def write(seed, pipe):
    # every person has exactly three photographs, or is gone; a change is told in the pipe before it and after it
    chance = random.Random(seed)
    with opened(path, timeout=60) as gallery:
        alive = [person.name for person in gallery.people()]

        def change(do, *plan):
            os.write(pipe, ("\\t".join(plan) + "\\n").encode())
            do()
            os.write(pipe, b"done\\n")

        for i in range(10**6):
            what = chance.choice(("add", "add", "rename", "merge", "remove", "forget"))
            name = f"{seed}-{i}"
            if what == "add" or len(alive) < 4:
                change(lambda: gallery.add_many([name] * 3, np.full((3, 16), i, np.float32)), "+" + name)
                alive.append(name)
                continue
            other = alive.pop(chance.randrange(len(alive)))
            if what == "rename":
                change(lambda: gallery.rename(other, name), "-" + other, "+" + name)
                alive.append(name)
            elif what == "forget":
                change(lambda: gallery.forget(other), "-" + other)
            elif what == "merge":
                gallery.merge(other, alive[0])
                gallery.unmerge(other)
                alive.append(other)
            else:
                gallery.remove(other)
                gallery.restore(other)
                alive.append(other)

def after(people, plan):
    for step in plan.split("\\t"):
        people = people | {step[1:]} if step[0] == "+" else people - {step[1:]}
    return people

expected, journals = set(), 0
for seed in range(kills):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            write(seed, writer)
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(random.uniform(0.005, 0.1))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), "the writer failed on its own"
    told = b""
    while block := os.read(reader, 65536):
        told += block
    os.close(reader)
    plan = None
    for line in told.decode().split("\\n")[:-1]:
        if line == "done":
            expected, plan = after(expected, plan), None
        else:
            plan = line
    journals += os.path.exists(path + "-journal")
    with opened(path) as gallery:
        gallery.check()
        people = gallery.people()
        found = {person.name for person in people}
        assert all(person.photos == 3 * (1 + len(person.merged)) for person in people), people
        found |= {name for person in people for name in person.merged}
        # all that was told as done, and of the one change that was under way everything or nothing
        assert found == expected or plan is not None and found == after(expected, plan), (plan, found ^ expected)
        for person in people:
            for name in person.merged:
                gallery.unmerge(name)
            if person.removed:
                gallery.restore(person.name)
        expected = found
with opened(path) as gallery:
    gallery.add("the last", np.zeros(16))  # what was begun and never used goes with the next change
left = [name for name in os.listdir(os.path.dirname(path)) if not name.startswith(".nst-")]
assert left == ["people.db"], left
print(len(expected), journals)
"""


def test_a_killed_process_leaves_a_sound_gallery(tmp_path: Path) -> None:
    """SIGKILL at 40 random moments of adding, renaming, merging, removing and forgetting."""
    path = tmp_path / "people.db"
    people, journals = map(int, run(KILLER, path, 40).stdout.split())
    assert people > 5
    assert journals > 3  # some of the kills did hit a change in the middle


FULL = """
import resource, sys
import numpy as np
from gallery_help import opened
from nstcore.errors import GalleryError
path = sys.argv[1]
with opened(path) as gallery:
    import os
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 9000,) * 2)
    done = 0
    try:
        for done in range(100_000):
            gallery.add_many([f"new {done}"] * 3, np.full((3, 16), done, np.float32))
    except GalleryError as error:
        print(done, error)
    print(len(gallery), len(gallery.search(np.zeros((1, 16)), 5)[0]))
"""


def test_a_full_disk_leaves_the_gallery_as_it_was(path: Path) -> None:
    """By the system's limit of a file's size, in a process of its own."""
    done = run(FULL, path)
    first, second = done.stdout.splitlines()
    count, message = first.split(" ", 1)
    assert "cannot be" in message
    assert "disk" in message
    assert "nothing was changed" in message
    assert second == f"{185 + 3 * int(count)} 5"
    with opened(path) as gallery:
        gallery.check()
        assert len(gallery) == 185 + 3 * int(count)
        gallery.add("room again", np.zeros(SIZE))


# ---- forgetting ----


def test_forgetting_leaves_no_trace(tmp_path: Path) -> None:
    """Names, old names, file names, digests, facts and encodings, among other people's whose rows moved about.

    Overwriting alone does leave traces here: SQLite keeps copies where it split a page.
    """
    rng = np.random.default_rng(5)
    path = tmp_path / "people.db"
    secrets: list[bytes] = []
    with opened(path) as gallery:
        for i in range(180):
            other = i % 3 > 0
            name = f"Other Person {i:03d}" if other else ("Mallory Secretname", "Alias Hiddenname")[i % 2]
            encoding = rng.standard_normal(SIZE).astype(np.float32)
            digest = rng.bytes(32)
            filler = "f" * int(rng.integers(0, 900))  # rows of many lengths, which SQLite moves from page to page
            about = {"note": f"{'plain' if other else 'tellingfact'}{i:03d}", "filler": filler}
            gallery.add(
                name, encoding, source=f"{'open' if other else 'privatefile'}{i}.jpg", digest=digest.hex(), about=about
            )
            if not other:
                secrets += [encoding.tobytes(), encoding.tobytes()[:32], encoding.tobytes()[32:], digest]
        gallery.add("Temporary Oldname", rng.standard_normal(SIZE))
        gallery.rename("Temporary Oldname", "Mallory Laternname")
        gallery.merge("Alias Hiddenname", "Mallory Secretname")
        gallery.merge("Mallory Laternname", "Alias Hiddenname")
        gallery.remove("Mallory Secretname")
    secrets += [b"Mallory", b"Secretname", b"Hiddenname", b"Laternname", b"tellingfact", b"privatefile"]
    assert sum(secret in path.read_bytes() for secret in secrets) > 240  # the search does find what is there
    with opened(path) as gallery:
        scrub, overwritten = gallery._store.scrub, []

        def watched() -> None:
            overwritten.extend(secret for secret in secrets if secret not in path.read_bytes())
            scrub()

        gallery._store.scrub = watched  # type: ignore[method-assign]
        assert gallery.forget("Mallory Secretname") == 61
        after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}  # while it is open
        unused = gallery._store._connection.execute("PRAGMA freelist_count").fetchone()[0]
    assert unused == 0
    assert 0.8 * len(secrets) < len(overwritten) < len(secrets)
    assert list(after) == ["people.db"]
    assert [file.name for file in tmp_path.iterdir()] == ["people.db"]
    for content in (after["people.db"], path.read_bytes()):
        assert [secret for secret in (*secrets, b"Oldname") if secret in content] == []
    with opened(path) as gallery:
        gallery.check()
        assert len(gallery.people()) == 120


def test_a_forgetting_during_another_ones_writing_is_not_taken_for_done(path: Path) -> None:
    """One process writes the file anew; meanwhile another one deletes somebody, and is killed before it does."""
    with opened(path) as first, opened(path) as second:
        vacuum = first._store._connection

        class Connection:
            def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
                done = vacuum.execute(statement, *values)
                if statement == "VACUUM":
                    second._store.scrub = killed  # type: ignore[method-assign]
                    with pytest.raises(KeyboardInterrupt):
                        second.forget("p8")
                return done

            def __getattr__(self, name: str) -> object:
                return getattr(vacuum, name)

        def killed() -> None:
            raise KeyboardInterrupt

        first._store._connection = Connection()  # type: ignore[assignment]
        first.forget("p7")
        with first._store.reading() as connection:
            assert connection.execute("SELECT forgotten, scrubbed FROM gallery").fetchone() == (2, 1)
    with opened(path) as third, third._store.reading() as connection:
        assert connection.execute("SELECT forgotten, scrubbed FROM gallery").fetchone() == (2, 2)


def test_forgetting_while_another_process_reads_is_told_and_finished_later(path: Path) -> None:
    with opened(path, timeout=0.05) as gallery:
        gallery.search(np.zeros((1, SIZE)))
        commit, other = gallery._store.scrub, sqlite3.connect(path, isolation_level=None)

        def scrub() -> None:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM person").fetchone()
            commit()

        gallery._store.scrub = scrub  # type: ignore[method-assign]
        with pytest.raises(GalleryError, match=r"in use by another process.*; 'p7' is deleted, the rest is"):
            gallery.forget("p7")
        assert "p7" not in [person.name for person in gallery.people()]
        other.close()
    with opened(path) as gallery, gallery._store.reading() as connection:
        assert connection.execute("SELECT forgotten, scrubbed FROM gallery").fetchone() == (1, 1)


def test_forgetting_that_was_interrupted_is_finished_on_opening(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nstcore.faces.store import Store

    def killed(_: Store) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, opened(path) as gallery:
        patch.setattr(Store, "scrub", killed)
        with pytest.raises(KeyboardInterrupt):
            gallery.forget("p7")
    before = path.stat().st_size
    scrubbed = []
    monkeypatch.setattr(Store, "scrub", lambda self, scrub=Store.scrub: (scrubbed.append(1), scrub(self))[1])
    with opened(path) as gallery:
        assert "p7" not in [person.name for person in gallery.people()]
    with opened(path):
        pass
    assert scrubbed == [1]  # once, and not again
    assert path.stat().st_size <= before

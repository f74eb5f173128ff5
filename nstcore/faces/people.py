"""Who is who in a gallery's file: names, merges and removals, each as a change of few rows.

A merge is a pointer from one person to another, and no photograph ever changes its person: taking a merge back is
removing the pointer, and everything is as it was.
"""

from __future__ import annotations

import difflib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nstcore.errors import GalleryError
from nstcore.faces._index import merged_roots
from nstcore.faces.records import Person, Photo, clean_name
from nstcore.faces.store import MAX_TEXT

_SUGGESTED_AMONG = 20_000  # names; more are not compared when a name is unknown
_MERGED_INTO = (  # a person and all who were merged into them, however indirectly
    "WITH RECURSIVE member (id) AS (SELECT ? UNION SELECT person.id FROM person, member "
    "WHERE person.merged_into = member.id) "
)


@dataclass(frozen=True)
class Row:
    """A row of the table of people."""

    id: int
    name: str
    merged_into: int | None
    removed: bool


def find(connection: sqlite3.Connection, name: object) -> Row:
    """The person of that name. Raises `GalleryError`, with names that are spelt alike."""
    found = look_up(connection, clean_name(name))
    if found is None:
        names = [row[0] for row in connection.execute("SELECT name FROM person LIMIT ?", (_SUGGESTED_AMONG,))]
        alike = difflib.get_close_matches(clean_name(name), names, 1)
        hint = f"; is it {alike[0]!r}?" if alike else ""
        raise GalleryError(f"[gallery] nobody is called {clean_name(name)!r}{hint}")
    return found


def look_up(connection: sqlite3.Connection, name: str) -> Row | None:
    """The person of that name, if there is one."""
    query = "SELECT id, name, merged_into, removed FROM person WHERE name = ?"
    row = connection.execute(query, (name,)).fetchone()
    return None if row is None else Row(row[0], row[1], row[2], bool(row[3]))


def root(connection: sqlite3.Connection, person: Row) -> Row:
    """The person at the end of the chain of merges."""
    end = merged_roots(connection).get(person.id, person.id) if person.merged_into is not None else person.id
    row = connection.execute("SELECT id, name, merged_into, removed FROM person WHERE id = ?", (end,)).fetchone()
    return Row(row[0], row[1], row[2], bool(row[3]))


def to_enrol(connection: sqlite3.Connection, name: str) -> int:
    """The number of a person who gets a photograph: somebody new, where the name is not known.

    Raises `GalleryError` for somebody who was removed.
    """
    found = look_up(connection, name)
    if found is None:
        cursor = connection.execute("INSERT INTO person (name) VALUES (?)", (name,))
        return int(cursor.lastrowid or 0)
    end = root(connection, found) if found.merged_into is not None else found
    if end.removed:
        raise GalleryError(f"[gallery] {end.name!r} has been removed; restore or forget them first")
    return found.id


def rename(connection: sqlite3.Connection, name: object, new: object) -> None:
    """Give a person another name."""
    person, wanted = find(connection, name), clean_name(new)
    if wanted == person.name:
        return
    if look_up(connection, wanted) is not None:
        raise GalleryError(f"[gallery] somebody is called {wanted!r} already; if they are one person, merge them")
    connection.execute("UPDATE person SET name = ? WHERE id = ?", (wanted, person.id))


def merge(connection: sqlite3.Connection, name: object, into: object) -> None:
    """Make one person of two."""
    person, other = find(connection, name), root(connection, find(connection, into))
    _refuse_merged(connection, person)
    if person.id == other.id:
        raise GalleryError(f"[gallery] {person.name!r} and {clean_name(into)!r} are one person already")
    for one in (person, other):
        if one.removed:
            raise GalleryError(f"[gallery] {one.name!r} has been removed; restore them before merging")
    connection.execute("UPDATE person SET merged_into = ? WHERE id = ?", (other.id, person.id))
    _count(connection, "people_changed")


def unmerge(connection: sqlite3.Connection, name: object) -> str:
    """Take a merge back; give the name of the one that it was into."""
    person = find(connection, name)
    if person.merged_into is None:
        merged = names_merged_into(connection, person.id)
        hint = f"; it has {', '.join(map(repr, merged[:3]))} in it: name one of these" if merged else ""
        raise GalleryError(f"[gallery] {person.name!r} was not merged into anybody{hint}")
    end = root(connection, person)
    if end.removed:
        raise GalleryError(
            f"[gallery] {end.name!r} has been removed, and {person.name!r} with them; restore them first"
        )
    connection.execute("UPDATE person SET merged_into = NULL WHERE id = ?", (person.id,))
    _count(connection, "people_changed")
    into = connection.execute("SELECT name FROM person WHERE id = ?", (person.merged_into,)).fetchone()
    return str(into[0])


def set_removed(connection: sqlite3.Connection, name: object, removed: bool) -> bool:
    """Take a person out of the answers, or back; give whether that changed anything."""
    person = find(connection, name)
    _refuse_merged(connection, person)
    if person.removed == removed:
        return False
    connection.execute("UPDATE person SET removed = ? WHERE id = ?", (int(removed), person.id))
    _count(connection, "photos_changed")
    return True


def forget(connection: sqlite3.Connection, name: object) -> int:
    """Delete a person and all who were merged into them; give the number of their photographs."""
    person = find(connection, name)
    connection.execute("PRAGMA defer_foreign_keys = ON")
    members = [row[0] for row in connection.execute(f"{_MERGED_INTO} SELECT id FROM member", (person.id,))]
    photos = 0
    for member in members:
        connection.execute("DELETE FROM fact WHERE photo IN (SELECT id FROM photo WHERE person = ?)", (member,))
        photos += connection.execute("DELETE FROM photo WHERE person = ?", (member,)).rowcount
        connection.execute("DELETE FROM person WHERE id = ?", (member,))
    _count(connection, "photos_changed")
    connection.execute("UPDATE gallery SET to_scrub = 1")
    return photos


def names_merged_into(connection: sqlite3.Connection, person: int) -> list[str]:
    """All who were merged into a person, however indirectly."""
    query = f"{_MERGED_INTO} SELECT name FROM person JOIN member USING (id) WHERE id <> ? ORDER BY name"
    return [row[0] for row in connection.execute(query, (person, person))]


def count_photos(connection: sqlite3.Connection, person: int) -> int:
    """How many photographs a person has, those of the merged among them."""
    query = f"{_MERGED_INTO} SELECT count(*) FROM photo WHERE person IN (SELECT id FROM member)"
    return int(connection.execute(query, (person,)).fetchone()[0])


def everybody(connection: sqlite3.Connection) -> list[Person]:
    """All people, by name."""
    counts = dict(connection.execute("SELECT person, count(*) FROM photo GROUP BY person").fetchall())
    rows = [Row(*row) for row in connection.execute("SELECT id, name, merged_into, removed FROM person ORDER BY name")]
    roots = merged_roots(connection)
    merged: dict[int, list[Row]] = {}
    for row in rows:
        if row.id in roots:
            merged.setdefault(roots[row.id], []).append(row)
    people = []
    for row in rows:
        if row.id not in roots:
            others = merged.get(row.id, [])
            photos = sum(counts.get(member.id, 0) for member in (row, *others))
            people.append(Person(row.name, photos, tuple(other.name for other in others), bool(row.removed)))
    return people


def photos(connection: sqlite3.Connection, person: Row | None = None) -> Iterator[Photo]:
    """The photographs of a person and those merged into them, or all, in the order of enrolment."""
    rows = connection.execute("SELECT id, name FROM person").fetchall() if person is None else []
    if person is not None:
        rows = connection.execute(
            f"{_MERGED_INTO} SELECT id, name FROM person JOIN member USING (id)", (person.id,)
        ).fetchall()
    names, roots = dict(rows), merged_roots(connection) if person is None else {}
    query = "SELECT id, person, source, digest, about FROM photo LEFT JOIN fact ON fact.photo = photo.id"
    if person is not None:
        query = f"{_MERGED_INTO} {query} WHERE person IN (SELECT id FROM member)"
    for number, owner, source, digest, about in connection.execute(
        f"{query} ORDER BY id", () if person is None else (person.id,)
    ):
        name = names.get(roots.get(owner, owner)) if person is None else person.name
        if name is None or owner not in names:
            raise GalleryError("[gallery] the file is damaged: a photograph is of nobody")
        yield Photo(number, name, names[owner], source, digest.hex() if digest else None, _facts(about))


def with_digest(connection: sqlite3.Connection, digest: bytes) -> Photo | None:
    """The photograph that was made of the same bytes."""
    query = (
        "SELECT photo.id, person, source, about, name, merged_into, removed FROM fact "
        "JOIN photo ON photo.id = fact.photo JOIN person ON person.id = photo.person WHERE digest = ?"
    )
    row = connection.execute(query, (digest,)).fetchone()
    if row is None:
        return None
    number, owner, source, about, name, merged_into, removed = row
    end = root(connection, Row(owner, name, merged_into, bool(removed)))
    return Photo(number, end.name, name, source, digest.hex(), _facts(about))


def _facts(text: str | None) -> dict[str, Any]:
    """What is stored about a photograph, as it was given."""
    if text is None:
        return {}
    try:
        facts = json.loads(text) if len(text) <= MAX_TEXT else None
    except (ValueError, RecursionError, TypeError):
        facts = None
    if not isinstance(facts, dict):
        raise GalleryError("[gallery] the file is damaged: the facts about a photograph cannot be read")
    return facts


def _refuse_merged(connection: sqlite3.Connection, person: Row) -> None:
    if person.merged_into is not None:
        end = root(connection, person)
        raise GalleryError(f"[gallery] {person.name!r} was merged into {end.name!r}; name that one, or unmerge first")


def _count(connection: sqlite3.Connection, what: str) -> None:
    """Tell every process that holds the gallery in memory that more than new rows has changed."""
    connection.execute(f"UPDATE gallery SET {what} = {what} + 1")

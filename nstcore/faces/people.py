"""Who is who in a gallery's file: names, merges and removals, each as a change of few rows.

A merge is a pointer from one person to the one who was named, and no photograph ever changes its person: taking a
merge back is removing the pointer, and everything is as it was. Who is meant in the end is found by following pointers.
"""

from __future__ import annotations

import difflib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from nstcore.errors import GalleryError
from nstcore.faces.records import Person, Photo, clean_name
from nstcore.faces.store import MAX_TEXT, row_sum

Key = TypeVar("Key", int, str)
_SUGGESTED_AMONG = 20_000  # names; more are not compared when a name is unknown
_ROW = "person.id, name, merged_into, removed, person.sum"
_FACT = "source, digest, about, fact.sum"
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
    row = connection.execute(f"SELECT {_ROW} FROM person WHERE name = ?", (name,)).fetchone()
    return None if row is None else _checked(row)


def with_id(connection: sqlite3.Connection, number: int) -> Row:
    """The person of that number, which something in the file points to."""
    row = connection.execute(f"SELECT {_ROW} FROM person WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise GalleryError("[gallery] the file is damaged: a photograph is of nobody")
    return _checked(row)


def root(connection: sqlite3.Connection, person: Row) -> Row:
    """The person at the end of the chain of merges."""
    if person.merged_into is None:
        return person
    return with_id(connection, merged_roots(connection)[person.id])


def merged_roots(connection: sqlite3.Connection) -> dict[int, int]:
    """Each merged person's number -> that of the one at the end of its chain of merges."""
    merged = connection.execute(f"SELECT {_ROW} FROM person WHERE merged_into IS NOT NULL")
    return ends({row.id: row.merged_into for row in map(_checked, merged)})


def ends(into: Mapping[Key, Key | None]) -> dict[Key, Key]:
    """Where each chain of pointers ends. Raises `GalleryError` for a circle.

    >>> ends({1: 2, 2: 3, 4: 1})
    {1: 3, 2: 3, 4: 3}
    """
    found: dict[Key, Key] = {}
    for start in into:
        chain, end = [], start
        while end not in found and (following := into.get(end)) is not None:
            chain.append(end)
            end = following
            if len(chain) > len(into):
                raise GalleryError("[gallery] the file is damaged: people were merged in a circle")
        found.update(dict.fromkeys(chain, found.get(end, end)))
    return {start: found[start] for start in into if start in found}


def hidden(connection: sqlite3.Connection) -> list[int]:
    """Those who were removed, and those merged into them."""
    removed = {_checked(row).id for row in connection.execute(f"SELECT {_ROW} FROM person WHERE removed")}
    if not removed:
        return []
    return sorted(removed | {person for person, end in merged_roots(connection).items() if end in removed})


def add(connection: sqlite3.Connection, name: str) -> int:
    """Add somebody of a name that nobody has; give the number."""
    number = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM person").fetchone()[0]
    values = (number, name, row_sum(number, name, None, 0))
    connection.execute("INSERT INTO person (id, name, sum) VALUES (?, ?, ?)", values)
    return int(number)


def to_enrol(connection: sqlite3.Connection, name: str) -> int:
    """The number of a person who gets a photograph: somebody new, where the name is not known.

    Raises `GalleryError` for somebody who was removed.
    """
    found = look_up(connection, name)
    if found is None:
        return add(connection, name)
    refuse_removed(connection, found)
    return found.id


def refuse_removed(connection: sqlite3.Connection, person: Row) -> None:
    """Raise `GalleryError` for somebody who was removed, or merged into somebody who was."""
    end = root(connection, person)
    if end.removed:
        raise GalleryError(f"[gallery] {end.name!r} has been removed; restore or forget them first")


def rename(connection: sqlite3.Connection, name: object, new: object) -> None:
    """Give a person another name."""
    person, wanted = find(connection, name), clean_name(new)
    if wanted == person.name:
        return
    if look_up(connection, wanted) is not None:
        raise GalleryError(f"[gallery] somebody is called {wanted!r} already; if they are one person, merge them")
    write(connection, replace(person, name=wanted))


def merge(connection: sqlite3.Connection, name: object, into: object) -> None:
    """Make one person of two."""
    person, other = find(connection, name), find(connection, into)
    _refuse_merged(connection, person)
    end = root(connection, other)
    if person.id == end.id:
        raise GalleryError(f"[gallery] {person.name!r} and {clean_name(into)!r} are one person already")
    for one in (person, end):
        if one.removed:
            raise GalleryError(f"[gallery] {one.name!r} has been removed; restore them before merging")
    write(connection, replace(person, merged_into=other.id))
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
    write(connection, replace(person, merged_into=None))
    _count(connection, "people_changed")
    return with_id(connection, person.merged_into).name


def set_removed(connection: sqlite3.Connection, name: object, removed: bool) -> bool:
    """Take a person out of the answers, or back; give whether that changed anything."""
    person = find(connection, name)
    _refuse_merged(connection, person)
    if person.removed == removed:
        return False
    write(connection, replace(person, removed=removed))
    _count(connection, "photos_changed")
    return True


def forget(connection: sqlite3.Connection, name: object) -> int:
    """Delete a person and all who were merged into them; give the number of their photographs."""
    person = find(connection, name)
    connection.execute("PRAGMA defer_foreign_keys = ON")
    photos = 0
    for member in (row.id for row in _members(connection, person.id)):
        connection.execute("DELETE FROM fact WHERE photo IN (SELECT id FROM photo WHERE person = ?)", (member,))
        photos += connection.execute("DELETE FROM photo WHERE person = ?", (member,)).rowcount
        connection.execute("DELETE FROM person WHERE id = ?", (member,))
    _count(connection, "photos_changed")
    _count(connection, "forgotten")
    return photos


def names_merged_into(connection: sqlite3.Connection, person: int) -> list[str]:
    """All who were merged into a person, however indirectly."""
    return sorted(row.name for row in _members(connection, person) if row.id != person)


def count_photos(connection: sqlite3.Connection, person: int) -> int:
    """How many photographs a person has, those of the merged among them."""
    query = f"{_MERGED_INTO} SELECT count(*) FROM photo WHERE person IN (SELECT id FROM member)"
    return int(connection.execute(query, (person,)).fetchone()[0])


def all_rows(connection: sqlite3.Connection, order: str = "id") -> list[Row]:
    """Everybody's row, by number or by name."""
    return list(map(_checked, connection.execute(f"SELECT {_ROW} FROM person ORDER BY {order}")))


def everybody(connection: sqlite3.Connection) -> list[Person]:
    """All people, by name."""
    counts = dict(connection.execute("SELECT person, count(*) FROM photo GROUP BY person").fetchall())
    rows = all_rows(connection, "name")
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
            people.append(Person(row.name, photos, tuple(other.name for other in others), row.removed))
    return people


def photos(connection: sqlite3.Connection, person: Row | None = None) -> Iterator[Photo]:
    """The photographs of a person and those merged into them, or all, in the order of enrolment."""
    query = f"SELECT photo.id, person, {_FACT} FROM photo LEFT JOIN fact ON fact.photo = photo.id"
    if person is None:
        names = {row.id: row.name for row in all_rows(connection)}
        roots, cursor = merged_roots(connection), connection.execute(f"{query} ORDER BY photo.id")
    else:
        names, roots = {row.id: row.name for row in _members(connection, person.id)}, {}
        query = f"{_MERGED_INTO} {query} WHERE person IN (SELECT id FROM member) ORDER BY photo.id"
        cursor = connection.execute(query, (person.id,))
    for number, owner, *fact in cursor:
        name = names.get(roots.get(owner, owner)) if person is None else person.name
        if name is None or owner not in names:
            raise GalleryError("[gallery] the file is damaged: a photograph is of nobody")
        yield _photo(number, name, names[owner], *fact)


def with_digest(connection: sqlite3.Connection, digest: bytes) -> Photo | None:
    """The photograph that was made of the same bytes."""
    query = f"SELECT photo.id, person, {_FACT} FROM fact JOIN photo ON photo.id = fact.photo WHERE digest = ?"
    row = connection.execute(query, (digest,)).fetchone()
    if row is None:
        return None
    number, owner, *fact = row
    person = with_id(connection, owner)
    return _photo(number, root(connection, person).name, person.name, *fact)


def write(connection: sqlite3.Connection, person: Row) -> None:
    """Change a person's row."""
    values = person.name, person.merged_into, int(person.removed)
    connection.execute(
        "UPDATE person SET name = ?, merged_into = ?, removed = ?, sum = ? WHERE id = ?",
        (*values, row_sum(person.id, *values), person.id),
    )


def _members(connection: sqlite3.Connection, person: int) -> list[Row]:
    """A person and all who were merged into them."""
    query = f"{_MERGED_INTO} SELECT {_ROW} FROM person JOIN member USING (id)"
    return list(map(_checked, connection.execute(query, (person,))))


def _checked(row: tuple[Any, ...]) -> Row:
    number, name, merged_into, removed, found = row
    if found != row_sum(number, name, merged_into, removed):
        raise GalleryError("[gallery] the file is damaged: somebody's name or state does not match its sum")
    return Row(number, name, merged_into, bool(removed))


def fact_sum(photo: int, source: str | None, digest: bytes | None, about: str) -> int:
    """The sum of a row of facts."""
    return row_sum(photo, source, digest.hex() if digest else None, about)


def _photo(
    number: int, name: str, owner: str, source: str | None, digest: bytes | None, about: str | None, found: int | None
) -> Photo:
    if about is None:
        return Photo(number, name, owner)
    if found != fact_sum(number, source, digest, about):
        raise GalleryError("[gallery] the file is damaged: the facts about a photograph do not match their sum")
    return Photo(number, name, owner, source, digest.hex() if digest else None, _facts(about))


def _facts(text: str) -> dict[str, Any]:
    """What is stored about a photograph, as it was given."""
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

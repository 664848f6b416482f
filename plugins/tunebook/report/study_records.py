"""What a study and its slides are laid out from: tables and sentences, all of them texts for readers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of a study; every cell is a text for readers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()
    """Columns that are set to the right."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A heading of the discussion and what is said under it."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commands:
    """How one run was made."""

    run: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture beside the study."""

    title: str
    file: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Everything that the templates of study and slides lay out; all of it texts for readers."""

    title: str
    made_by: str
    made_at: str
    format: int
    summary: tuple[str, ...]
    task: str
    data: str
    models: str
    methods: str
    questions: tuple[str, ...]
    runs: Table
    data_sets: Table | None
    shared: Table | None
    different: Table | None
    how_answered: tuple[str, ...]
    hardware: tuple[str, ...]
    versions: Table | None
    results: Table
    costs: Table
    expected: Table | None
    pictures: tuple[Picture, ...]
    discussion: tuple[Topic, ...]
    warnings: tuple[str, ...]
    limits: tuple[str, ...]
    not_measured: tuple[str, ...]
    commands: tuple[Commands, ...]
    again: str
    """The command that makes report and study again."""

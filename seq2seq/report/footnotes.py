"""Footnotes of a table."""

MARKS = "†‡§¶"
"""In the order of use."""


class Footnotes:
    """Gives each note a mark of its own; equal notes have one."""

    def __init__(self) -> None:
        self.marks: dict[str, str] = {}

    def mark(self, note: str | None) -> str:
        """The mark of a note; empty for none."""
        return "" if note is None else self.marks.setdefault(note, MARKS[len(self.marks) % len(MARKS)])

    @property
    def by_mark(self) -> dict[str, str]:
        return {mark: note for note, mark in self.marks.items()}

"""Tables in Markdown, and pages that hold them between marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of a table, each with its end."""
    lines = [_line(head), "|---" * len(head) + "|", *map(_line, rows)]
    return "".join(line + "\n" for line in lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def between(page: str, begin: str, end: str, content: str) -> str:
    """``page`` with ``content`` instead of what lies between two marks, which stay.

    Raises:
        ValueError: a mark that is not there exactly once, or the last before the first.
    """
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"a page needs {begin.strip()!r} once and {end.strip()!r} once, after it")
    before, rest = page.split(begin)
    return before + begin + content + end + rest.split(end)[1]

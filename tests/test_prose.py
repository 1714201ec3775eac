"""Pages are easy to read: short sentences, and each page opens with what the reader can do after it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "commands.md")
PAGES = [ROOT / "README.md", *DOCS]

MAX_WORDS = 40
USUAL_WORDS = 25
SHARE_USUAL = 0.85

ABBREVIATIONS = re.compile(r"\b(et al|e\.g|i\.e|vs|cf|Fig|Eq|Sec)\.")
LIST_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) ")


def paragraphs(text: str) -> list[str]:
    """The running text of a page: without code blocks, tables, headings, images, and link targets."""
    text = re.sub(r"^[ ]*```.*?^[ ]*```", "\n", text, flags=re.DOTALL | re.MULTILINE)
    lines = []
    for line in text.splitlines():
        if re.match(r"\s*(\||#|!\[|:::)", line):
            line = ""
        if LIST_ITEM.match(line):
            lines.append("")
            line = LIST_ITEM.sub("", line)
        lines.append(line)
    joined = re.split(r"\n\s*\n", "\n".join(lines))
    return [re.sub(r"\s+", " ", paragraph).strip() for paragraph in joined if paragraph.strip()]


def sentences(text: str) -> list[str]:
    """The sentences of a page. Inline code is one word, and so is a link's target."""
    found = []
    for paragraph in paragraphs(text):
        plain = re.sub(r"`[^`]*`", "code", paragraph)
        plain = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", plain)
        plain = ABBREVIATIONS.sub(lambda match: match[0].rstrip("."), plain)
        found += [part for part in re.split(r"(?<=[.!?])[\"*)]*\s+", plain) if re.search(r"\w", part)]
    return found


def words(sentence: str) -> int:
    return len(re.findall(r"[^\s]*\w[^\s]*", sentence))


def test_sentences_are_found():
    text = "# Head\n\nOne of two. Is `a b c` [a link](x.md)?\n\n```sh\nno text\n```\n\n- Item et al. (2025)\n- last\n"
    assert sentences(text) == ["One of two.", "Is code a link?", "Item et al (2025)", "last"]
    assert [words(sentence) for sentence in sentences(text)] == [3, 4, 4, 1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_are_short(page):
    found = sentences(page.read_text(encoding="utf-8"))
    longest = [sentence for sentence in found if words(sentence) > MAX_WORDS]
    assert not longest, f"more than {MAX_WORDS} words:\n" + "\n".join(longest)
    long = [sentence for sentence in found if words(sentence) > USUAL_WORDS]
    assert len(long) <= (1 - SHARE_USUAL) * len(found), f"more than {USUAL_WORDS} words:\n" + "\n".join(long)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_pages_open_with_what_the_reader_can_do(page):
    opening = paragraphs(page.read_text(encoding="utf-8"))[0]
    assert re.match(r"After this page you (can|know) ", opening), opening

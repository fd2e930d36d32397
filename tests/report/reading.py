"""Reads reports back: their sentences, the definitions of their figures, their tables."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

from synthetic import Made

from db import Store
from experiments.report.blocks import Block, Cards, Figure, Prose, Table
from experiments.report.frames import load
from experiments.report.pages import Page, page_of


def page(made: Made, study: str = "compare", where: str | None = None) -> Page:
    """The page of what was made, without drawing it."""
    frames = load(study, Store(made.path), where)
    return page_of(frames, str(frames.runs["experiment"].iloc[0]))


def blocks(found: Page) -> list[Block]:
    return [block for section in found.sections for block in section.blocks]


def figures(found: Page) -> dict[str, Figure]:
    return {block.name: block for block in blocks(found) if isinstance(block, Figure)}


def tables(found: Page) -> dict[str, Table]:
    return {block.name: block for block in blocks(found) if isinstance(block, Table)}


def sentences(found: Page) -> str:
    """All prose of a page, as a reader sees it."""
    said: list[str] = []
    for block in blocks(found):
        if isinstance(block, Prose):
            said += block.paragraphs
        if isinstance(block, Cards):
            for card in block.cards:
                said += [card.title, card.subtitle, card.headline]
                said += [text for part in card.parts for text in part.paragraphs]
        if isinstance(block, Figure | Table):
            said.append(block.caption)
    return "\n".join(unescape(re.sub(r"<[^>]*>", "", str(text))) for text in said)


def markup(html: str) -> str:
    """A written page without what is inside its scripts, which no HTML parser reads."""
    return re.sub(r"(<script[^>]*>).*?(?=</script>)", r"\1", html, flags=re.DOTALL)


def specs(html: str) -> dict[str, dict[str, Any]]:
    """The definitions of the figures in a written page, by name."""
    found = re.findall(r'<script type="application/json" id="spec-([^"]*)">(.*?)</script>', html)
    return {name: json.loads(text) for name, text in found}

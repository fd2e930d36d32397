"""From the store to the page: ``index.html``, ``figures/*.svg`` and ``tables/*.csv``."""

from __future__ import annotations

import base64
import functools
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
from markupsafe import Markup

from db import Store
from experiments.report import charts, words
from experiments.report.blocks import Block, Figure, Layout, Row, Section, Table, layout, slug
from experiments.report.frames import load
from experiments.report.pages import Page, page_of

__all__ = ["render"]

RESULTS = Path("results")
_GLOBALS = "window.vegaEmbed = vegaEmbed;"


def render(study: str, store: Store, out: Path | None = None, where: str | None = None) -> Path:
    """Write the report of a study and return the path of its page.

    The page is one file that needs no network. Beside it lie ``figures/`` (SVG) and ``tables/``
    (CSV). The same rows give the same files, byte for byte.

    Parameters
    ----------
    study
        The study whose runs are told of.
    store
        Where the runs are.
    out
        The folder to write to; None for ``results/STUDY``.
    where
        Tell of the runs that fit this filter instead, whatever study they belong to.

    Raises
    ------
    StoreError
        If no run is selected, or the filter is not understood. Nothing is written then.
    """
    frames = load(study, store, where)
    experiments = list(dict.fromkeys(frames.runs["experiment"].dropna().astype(str))) or [""]
    found = [page_of(frames.only(name) if name else frames, name) for name in experiments]
    page = found[0] if len(found) == 1 else _joined(study, found)
    own = study if re.fullmatch(r"[\w.-]*\w[\w.-]*", study) else slug(study)
    folder = out if out is not None else RESULTS / own
    html = _html(study, page)
    tables = _tables(page)
    figures = {
        block.name: charts.svg(block.spec, block.title)
        for section in page.sections
        for block in section.blocks
        if isinstance(block, Figure)
    }
    if out is None:  # a folder that somebody names may hold what is theirs
        for name in ("figures", "tables"):
            shutil.rmtree(folder / name, ignore_errors=True)
    _write(folder / "figures", ".svg", figures)
    _write(folder / "tables", ".csv", tables)
    _write(folder, ".html", {"index": html})
    return folder / "index.html"


def _joined(study: str, found: Sequence[Page]) -> Page:
    """Return one page for the runs of several experiments, one after the other."""
    parts = [Section(f"{p.title}: {s.title}", s.blocks, s.lead) for p in found for s in p.sections]
    data = {f"{slug(p.title)}-{name}": frame for p in found for name, frame in p.data.items()}
    return Page(f"The study {study}", "", parts, data)


def _write(folder: Path, ending: str, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        # A reader that reloads meanwhile sees the old file or the new one, never half of it.
        unfinished = folder / f".{name}{ending}"
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        unfinished.replace(folder / f"{name}{ending}")


def _tables(page: Page) -> dict[str, str]:
    shown = {b.name: csv(b.frame) for s in page.sections for b in s.blocks if isinstance(b, Table)}
    return {**{name: csv(frame) for name, frame in page.data.items()}, **shown}


def csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV: all its columns, no rounding, lists and mappings as JSON."""
    plain = frame.copy()
    for column in plain.columns:
        if any(isinstance(value, list | dict) for value in plain[column]):
            plain[column] = [
                json.dumps(v) if isinstance(v, list | dict) else v for v in plain[column]
            ]
    text: str = plain.to_csv(index=False, lineterminator="\n")
    return text


@dataclass(frozen=True)
class _Group:
    choice: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class _TableView:
    """A table's layout, its rows by choice, and its CSV as an address."""

    layout: Layout
    groups: Sequence[_Group]
    download: str

    @property
    def heads(self) -> Any:
        return self.layout.heads

    @property
    def choices(self) -> Sequence[str]:
        return self.layout.choices

    @property
    def chosen(self) -> str:
        return self.layout.chosen


def _view(block: Block) -> Any:
    if isinstance(block, Figure):
        return _json(block.spec)
    if isinstance(block, Table):
        shown = layout(block)
        groups = [
            _Group(c, list(rows)) for c, rows in groupby(shown.rows, key=lambda row: row.choice)
        ]
        return _TableView(shown, groups, _data_url(csv(block.frame)))
    return None


def _json(value: Any) -> Markup:
    """Return JSON that no HTML parser can mistake for a tag."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _data_url(text: str) -> str:
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tidy"] = words.unbroken
    return environment


@functools.cache
def _runtime() -> str:
    """Return Vega, Vega-Lite and its embedding as one script."""
    script: str = vl_convert.javascript_bundle(_GLOBALS, vl_version=charts.VL_VERSION)
    return script.replace("</script", "<\\/script")


def _asset(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]


def _html(study: str, page: Page) -> str:
    sections = [
        {
            "title": section.title,
            "anchor": section.anchor,
            "lead": section.lead,
            "blocks": [(type(b).__name__, b, _view(b)) for b in section.blocks],
        }
        for section in page.sections
    ]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            study=study,
            page=page,
            sections=sections,
            style=_asset("style.css"),
            script=_asset("page.js"),
            runtime=_runtime(),
            dark=_json(charts.DARK),
        )
    )

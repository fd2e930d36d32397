"""Write the pages' measured tables again from a store: ``python docs/measured.py [STORE]``.

A table stands between ``<!-- name -->`` and ``<!-- end -->``, below the query whose rows it is made
from: what is asked is what the page says. A table whose study the store does not have stays.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from db import Store
from experiments.intervals import wilson

PAGES = [Path(__file__).parent / name for name in ("choosing.md", "gradients.md")]
NONE = "–"
LARGE = 0.9  # the spectral radius from which a preconditioner has something to save


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def named(solver: str, window: object) -> str:
    """Return a solver's name with its window, where it has one."""
    if pd.isna(window):
        return f"`{solver}`"
    return f"`{solver}`, {'all' if float(str(window)) >= 1000 else int(float(str(window)))}"


def _count(value: float) -> str:
    return NONE if pd.isna(value) else f"{value:.0f}"


def linear(rows: pd.DataFrame) -> str:
    """Return evaluations (and products) by spectrum and solver, the limit before them."""
    rows = rows.assign(
        name=[named(s, w) for s, w in zip(rows["solver"], rows["window"], strict=True)],
        products=rows["jvps"].fillna(0) + rows["vjps"].fillna(0),
    )
    names = list(dict.fromkeys(rows["name"]))
    made = []
    for (spectrum, radius), group in rows.groupby(["spectrum", "radius"], sort=False):
        line = [f"{str(spectrum).replace('_', ' ')}, {radius:g}", _count(group["least"].median())]
        for name in names:
            here = group[group["name"] == name]
            text = _count(here["evaluations"].median())
            if here["products"].any():
                text += f" + {_count(here['products'].median())}"
            failed = int((here["converged"] < 1).sum())
            line.append(f"{text} (failed)" if failed else text)
        made.append(line)
    head = ["spectrum, ρ", "limit", *names]
    note = "A number after + counts products with the Jacobian."
    return f"{markdown(head, made)}\n\n{note}"


def scores(rows: pd.DataFrame) -> str:
    """Return the median score by solver and scale, failures counted as infinite."""
    rows = rows.assign(
        name=[named(s, w) for s, w in zip(rows["solver"], rows["window"], strict=True)],
        score=rows["score"].astype(float).where(rows["converged"] == 1).fillna(float("inf")),
    )
    scales = sorted(rows["scale"].unique())
    made = []
    for name, group in rows.groupby("name", sort=False):
        line = [str(name)]
        for scale in scales:
            here = group.loc[group["scale"] == scale, "score"]
            # The upper of the two middle ones: a failure in the middle is no number to average.
            middle = here.sort_values().iloc[len(here) // 2] if len(here) % 2 else here.median()
            failed = int((here == float("inf")).sum())
            text = NONE if middle in (float("inf"),) or pd.isna(middle) else f"{middle:.2f}"
            line.append(text + (f" ({failed} of {len(here)} failed)" if failed else ""))
        made.append(line)
    return markdown(["solver, window", *(f"s = {scale:g}" for scale in scales)], made)


def overhead(rows: pd.DataFrame) -> str:
    """Return the ratio to bare evaluations, with its quartiles, by contender and size of cell."""
    rows = rows.assign(
        size=[
            f"{b:g} × {d:g} × {h:g}"
            for b, d, h in zip(rows["batch"], rows["dim"], rows["hidden"], strict=True)
        ]
    )
    sizes = list(dict.fromkeys(rows["size"]))
    made = []
    for (contender, kind), group in rows.groupby(["contender", "kind"], sort=False):
        line = [f"{contender}", str(kind)]
        for size in sizes:
            here = group[group["size"] == size]
            if here.empty or pd.isna(here["ratio"].iloc[0]):
                line.append(NONE)
                continue
            ratio, q1, q3 = (float(here[key].iloc[0]) for key in ("ratio", "q1", "q3"))
            line.append(f"{ratio:.2f} ({q1:.2f} to {q3:.2f})")
        made.append(line)
    return markdown(["solver", "how", *sizes], made)


def freezing(rows: pd.DataFrame) -> str:
    """Return what leaving finished samples out saves."""
    made = [
        [
            str(row["contender"]),
            _count(row["evaluations"]),
            f"{row['sample_evaluations'] / row['batch']:.0f}",
            f"{100 * row['saved']:.0f} %",
            f"{row['ratio']:.2f}",
            f"{row['difference']:.0e}",
        ]
        for row in rows.to_dict("records")
    ]
    head = [
        "solver",
        "evaluations of the hardest sample",
        "of the mean sample",
        "sample evaluations saved",
        "seconds, over those without dropping",
        "largest difference of the answers",
    ]
    return markdown(head, made)


def problems(rows: pd.DataFrame) -> str:
    """Return what each solver solves, with Wilson's interval."""
    made = []
    for row in rows.to_dict("records"):
        way = row["globalisation"]
        name = f"`{row['solver']}`" + ("" if pd.isna(way) else f", {str(way).replace('_', ' ')}")
        low, high = wilson(int(row["solved"]), int(row["starts"]))
        made.append(
            [
                name,
                f"{row['standard']:.0f} of {row['standard_problems']:.0f}",
                f"{100 * row['solved'] / row['starts']:.1f} % of {row['starts']:.0f}",
                f"{100 * low:.1f} to {100 * high:.1f} %",
                _count(row["false_successes"]),
            ]
        )
    head = ["solver", "standard starts", "all starts", "95 % interval", "false successes"]
    return markdown(head, made)


def estimators(rows: pd.DataFrame) -> str:
    """Return the median error and cosine of every gradient by spectral radius."""
    rows = rows.dropna(subset=["rel_err"])
    radii = sorted(rows["radius"].unique())
    lines = []
    for gradient, group in rows.groupby("gradient"):
        by = [group[group["radius"] == radius] for radius in radii]
        texts = [
            NONE if one.empty else f"{one['rel_err'].median():.1e} ({one['cosine'].median():.3f})"
            for one in by
        ]
        first = next((one["rel_err"].median() for one in by if not one.empty), float("inf"))
        lines.append((first, [f"`{gradient}`", *texts]))
    head = ["gradient: error (cosine)", *(f"ρ = {radius:g}" for radius in radii)]
    return markdown(head, [line for _, line in sorted(lines)])


def steps(rows: pd.DataFrame) -> str:
    """Return the seconds of a training step over the Jacobian-free one's."""
    rows = rows.dropna(subset=["ratio"])
    lines = []
    for gradient, group in rows.groupby("gradient"):
        ratio, q1, q3 = (group[key].astype(float).median() for key in ("ratio", "q1", "q3"))
        error = f"{group['rel_err'].median():.1e}"
        text = f"{ratio:.2f} ({q1:.2f} to {q3:.2f})"
        lines.append((ratio, [f"`{gradient}`", text, _count(group["products"].median()), error]))
    head = ["gradient", "seconds of a step, relative", "products", "error"]
    return markdown(head, [line for _, line in sorted(lines)])


def preconditioned(rows: pd.DataFrame) -> str:
    """Return the products with the forward's inverse over those without."""
    rows = rows[rows["radius"].astype(float) >= LARGE]
    lines = []
    for (solver, trained, reltol), group in rows.groupby(["solver", "train_steps", "reltol"]):
        ratio = group["ratio"].astype(float)
        lines.append(
            [
                f"`{solver}`",
                f"trained {trained:g} steps" if trained else "fresh",
                f"{reltol:g}",
                _count(group["plain"].median()),
                f"{ratio.median():.2f} ({ratio.min():.2f} to {ratio.max():.2f})",
                str(len(ratio)),
            ]
        )
    head = ["forward solver", "model", "forward to", "products without", "ratio", "of"]
    return markdown(head, lines)


TABLES: dict[str, Callable[[pd.DataFrame], str]] = {
    "linear": linear,
    "scores": scores,
    "overhead": overhead,
    "freezing": freezing,
    "problems": problems,
    "estimators": estimators,
    "steps": steps,
    "preconditioned": preconditioned,
}


def written(page: str, store: Store) -> str:
    """Return a page with those tables written again that the store has rows for."""

    def fill(match: re.Match[str]) -> str:
        name, block = match[1], match[2]
        _, _, sql = shlex.split(block)
        rows = store.query(sql)
        if rows.empty:
            return match[0]
        return f"<!-- {name} -->\n\n```bash\n{block}```\n\n{TABLES[name](rows)}\n\n<!-- end -->"

    pattern = r"<!-- ([a-z]+) -->\n\n```bash\n(.*?)```\n(?:.*?)<!-- end -->"
    return re.sub(pattern, fill, page, flags=re.DOTALL)


if __name__ == "__main__":
    store = Store(sys.argv[1] if len(sys.argv) > 1 else None)
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8"), store), encoding="utf-8")

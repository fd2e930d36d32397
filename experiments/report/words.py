"""Numbers, units and lists as a reader says them: ``2.1 ms``, ``41 kB``, ``1e-3``, ``a, b and c``.

Sentences are :class:`markupsafe.Markup`: what comes from the store is escaped when it is put into
one, so that no name or message can become part of the page's HTML.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

import pandas as pd
from markupsafe import Markup

Number = float | int | None
Writer = Callable[[Number], str]

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def missing(value: object) -> bool:
    """Whether a cell of a frame holds nothing: None, NaN or a missing-value marker."""
    return value is None or value is pd.NA or value is pd.NaT or value != value  # noqa: PLR0124


def digits(value: float, significant: int = 3) -> str:
    """Return ``value`` with so many significant digits and no exponent: ``0.0213``, ``1234``."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    value = float(f"{value:.{significant}g}")
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text and abs(value) >= 100 else text


def count(value: Number) -> str:
    """Return a count or a median of counts: ``14``, ``14.5``, ``1.2 million`` as ``1,200,000``."""
    if missing(value) or value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def scale_of(values: Iterable[Number], unit: str) -> tuple[float, str]:
    """Return the step and name of the unit in which a whole column of ``values`` reads well.

    Parameters
    ----------
    values
        Numbers in ``unit``; missing ones and zeros are passed over.
    unit
        ``"s"`` or ``"B"``.
    """
    steps = _SECONDS if unit == "s" else _BYTES
    found = sorted(abs(v) for v in values if v is not None and not missing(v) and v != 0)
    if not found:
        return 1.0, unit
    middle = found[len(found) // 2]
    return next(((step, name) for step, name in steps if middle >= step), steps[-1])


def _scaled(value: Number, unit: str) -> str:
    if value is None or missing(value):
        return "–"
    step, name = scale_of([value], unit)
    return f"{digits(value / step)} {name}"


def seconds(value: Number) -> str:
    """Return a duration: ``2.13 ms``."""
    return _scaled(value, "s")


def size(value: Number) -> str:
    """Return bytes: ``41.2 kB`` (decimal units)."""
    return "0 B" if value == 0 else _scaled(value, "B")


def small(value: Number) -> str:
    """Return a residual or an error: ``2.1e-6``."""
    if value is None or missing(value):
        return "–"
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 1000:
        return digits(value, 2)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def tolerance(value: Number) -> str:
    """Return a tolerance: ``1e-3``."""
    if value is None or missing(value):
        return "–"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.3e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def times(ratio: Number) -> str:
    """Return a ratio: ``3.1×``."""
    return "–" if ratio is None or missing(ratio) else f"{digits(ratio, 2)}×"


def plural(number: int, noun: str, nouns: str | None = None) -> str:
    """Return ``1 run``, ``2 runs``."""
    return f"{number:,} {noun if number == 1 else (nouns or noun + 's')}"


def listed(parts: Sequence[str], word: str = "and") -> str:
    """Return ``a``, ``a and b``, ``a, b and c``; safe parts stay safe, plain ones are plain."""
    if len(parts) < 2:
        return parts[0] if parts else ""
    safe = any(isinstance(part, Markup) for part in parts)
    comma: str = Markup(", ") if safe else ", "
    join: str = Markup(f" {word} ") if safe else f" {word} "
    return comma.join(parts[:-1]) + join + (Markup.escape(parts[-1]) if safe else parts[-1])


def strong(text: object) -> Markup:
    """Return ``text``, escaped, as the thing a sentence is about."""
    return Markup("<b>{}</b>").format(text)


def names(things: Sequence[str]) -> Markup:
    """Return names, each one marked, as a list in a sentence."""
    return Markup(listed([strong(name) for name in things]))


def sentence(template: str, *values: object, **named: object) -> Markup:
    """Return ``template`` with every value escaped; those that are Markup are taken as they are."""
    return Markup(template).format(*values, **named)


_NUMBER = re.compile(r"\d[\d.,]*(?:e-?\d+)?(?: (?:[nmµ]?s|[kMGT]?B)\b|[×%])?")


def unbroken(text: str) -> Markup:
    """Return ``text``, safe, with numbers that no line may break: exponents, and with a unit."""

    def kept(match: re.Match[str]) -> str:
        found = match[0]
        return f'<span class="n">{found}</span>' if re.search("[- ]", found) else found

    parts = re.split(r"(<[^>]*>|&[^;]*;)", str(Markup.escape(text)))
    return Markup("".join(p if i % 2 else _NUMBER.sub(kept, p) for i, p in enumerate(parts)))


def capital(text: Markup) -> Markup:
    """Return ``text`` with its first letter in upper case when it starts with a letter."""
    return Markup(text[:1].upper()) + text[1:]


def run_list(runs: Sequence[int], most: int = 6) -> str:
    """Return ``run 12``, ``runs 12, 15 and 18``, ``runs 1, 2, 3, … (40)``."""
    ids = [str(run) for run in sorted(set(runs))]
    if len(ids) == 1:
        return f"run {ids[0]}"
    if len(ids) > most:
        return f"runs {', '.join(ids[:most])}, … ({len(ids)})"
    return f"runs {listed(ids)}"

"""One look a solver, everywhere: colour, dash and shape.

The colours are chosen so that any two stay apart under deuteranopia and protanopia and read on
white and on near-black. A wrapped solver has a hue near its native sister's, and its own dash and
shape: colour is never the only difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How one series is drawn; ``dash`` in pixels on and off, empty when solid."""

    colour: str
    dash: tuple[int, ...] = ()
    shape: str = "circle"


SOLVERS: Mapping[str, Look] = {
    "picard": Look("#989BA2"),
    "anderson": Look("#0072B2"),
    "broyden": Look("#D55E00"),
    "newton_krylov": Look("#009E73"),
    "newton": Look("#B06A9B"),
    "scipy_anderson": Look("#2FA7D2", (5, 3), "square"),
    "scipy_broyden1": Look("#DD8B0C", (5, 3), "square"),
    "scipy_newton_krylov": Look("#639643", (5, 3), "square"),
    "torch_lbfgs": Look("#81673E", (2, 2), "triangle-up"),
    "fallback": Look("#8208F4"),
    "scipy_hybr": Look("#844860", (5, 3), "diamond"),
    "scipy_lm": Look("#B90E07", (5, 3), "diamond"),
    "scipy_df_sane": Look("#8AA96D", (5, 3), "diamond"),
}
# Names that the table does not know: a user's own solver, or one that is configured twice.
_SPARE = ("#7A62D0", "#BE1E80", "#438333", "#5899E6", "#A0522D", "#4B8B8B")
_SPARE_DASH: tuple[tuple[int, ...], ...] = ((8, 3, 2, 3), (1, 2), (10, 4))
_SPARE_SHAPE = ("diamond", "cross", "triangle-down")

GRADIENTS: Mapping[str, Look] = {
    "unrolled": Look("#D0346F"),
    "implicit": Look("#6A6FE0"),
    "checkpointed": Look("#C77D0A"),
    "reversible": Look("#2E8B7F"),
    "jacobian_free": Look("#7A8B2A"),
    "phantom": Look("#8A5BB8"),
    "neumann": Look("#3E8EC2"),
    "shine": Look("#8B6B4A"),
}


def looks(labels: Iterable[str], known: Mapping[str, Look] = SOLVERS) -> dict[str, Look]:
    """Return a look for each label: the known ones first, in their order, then the rest by name.

    A label that is not known gets a look from its own name, so that it keeps it when other series
    come and go; only two that would share one move on to the next.
    """
    wanted = set(labels)
    found = {label: look for label, look in known.items() if label in wanted}
    taken: set[int] = set()
    for label in sorted(wanted - set(found)):
        slots = len(_SPARE) * len(_SPARE_DASH)
        slot = int(hashlib.sha256(label.encode()).hexdigest(), 16) % slots
        while slot in taken and len(taken) < slots:
            slot = (slot + 1) % slots
        taken.add(slot)
        style = slot // len(_SPARE)
        found[label] = Look(_SPARE[slot % len(_SPARE)], _SPARE_DASH[style], _SPARE_SHAPE[style])
    return found


def gradient_looks(labels: Iterable[str]) -> dict[str, Look]:
    """Return a look for each gradient; those that only differ in their adjoint differ in dash."""
    dashes: list[tuple[int, ...]] = [(), (6, 3), (2, 3), (8, 3, 2, 3)]
    found: dict[str, Look] = {}
    seen: dict[str, int] = {}
    for label in labels:
        base = label.split(" · ")[0].split(" (")[0]
        turn = seen[base] = seen.get(base, -1) + 1
        look = looks([base], GRADIENTS)[base]
        found[label] = Look(look.colour, dashes[turn % len(dashes)], look.shape)
    return found


def variant_looks(labels: Iterable[str]) -> dict[str, Look]:
    """Return a look for each label, where one solver may be there with several options.

    ``anderson (window=5)`` and ``anderson (window=20)`` have anderson's colour, and differ in dash
    and shape.
    """
    dashes: list[tuple[int, ...]] = [(), (6, 3), (2, 3), (8, 3, 2, 3), (1, 2)]
    shapes = ["circle", "square", "diamond", "triangle-up", "cross"]
    names = {label: label.split(" (", maxsplit=1)[0] for label in labels}
    bases = looks(names.values())
    found: dict[str, Look] = {}
    seen: dict[str, int] = {}
    for base, look in bases.items():
        for label in (label for label, name in names.items() if name == base):
            turn = seen[base] = seen.get(base, -1) + 1
            first = turn == 0
            found[label] = Look(
                look.colour,
                look.dash if first else dashes[turn % len(dashes)],
                look.shape if first else shapes[turn % len(shapes)],
            )
    return found

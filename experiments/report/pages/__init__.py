"""Pages: what a report says about the runs of one experiment.

A page is a function of the frames that returns :class:`Page`; it is registered under the name of
its experiment. Runs of an experiment without a page of its own get the general one.
"""

from __future__ import annotations

from collections.abc import Callable

from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from solvers.registries import Registry

__all__ = ["Page", "page_of", "pages"]

pages: Registry[Page] = Registry("report page", "deq_lab.pages")
pages.register("compare", "experiments.report.pages.compare:page")

_GENERAL = "experiments.report.pages.general:page"


def page_of(frames: Frames, experiment: str) -> Page:
    """Return the page of one experiment's runs."""
    name = experiment if experiment in pages else _GENERAL
    write: Callable[[Frames], Page] = pages.factory(name)
    return write(frames)

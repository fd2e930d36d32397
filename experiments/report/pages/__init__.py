"""Pages: what a report says about the runs of one experiment.

A page is a module with a function ``page(frames) -> Page``, listed here under the name of its
experiment. Runs of an experiment that is not listed get the general page.
"""

from __future__ import annotations

import importlib

from experiments.report.frames import Frames
from experiments.report.pages.page import Page

__all__ = ["PAGES", "Page", "page_of"]

PAGES = {
    "compare": "experiments.report.pages.compare",
    "gradients": "experiments.report.pages.gradients",
    "limit": "experiments.report.pages.limit",
    "memory": "experiments.report.pages.memory",
    "overhead": "experiments.report.pages.overhead",
    "problems": "experiments.report.pages.problems",
    "theory": "experiments.report.pages.theory",
}
_GENERAL = "experiments.report.pages.general"


def page_of(frames: Frames, experiment: str) -> Page:
    """Return the page of one experiment's runs."""
    module = importlib.import_module(PAGES.get(experiment, _GENERAL))
    found: Page = module.page(frames)
    return found

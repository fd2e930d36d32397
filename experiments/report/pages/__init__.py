"""Pages: what a report says about the runs of one experiment.

A page is a module with a function ``page(frames) -> Page``, listed here under the name of its
experiment, or of its study where several studies run the same experiment. Runs of an experiment
that is not listed get the general page.
"""

from __future__ import annotations

import importlib

from experiments.report.frames import Frames
from experiments.report.pages.page import Page
from experiments.studies import QUICK

__all__ = ["PAGES", "Page", "page_of"]

PAGES = {
    "compare": "experiments.report.pages.compare",
    "gradients": "experiments.report.pages.gradients",
    "limit": "experiments.report.pages.limit",
    "memory": "experiments.report.pages.memory",
    "overhead": "experiments.report.pages.overhead",
    "problems": "experiments.report.pages.problems",
    "theory": "experiments.report.pages.theory",
    "training": "experiments.report.pages.training",
}
STUDIES = {
    "budget": "experiments.report.pages.budget",
    "depth": "experiments.report.pages.depth",
    "language": "experiments.report.pages.language",
    "reproduce": "experiments.report.pages.reproduce",
    "runtime": "experiments.report.pages.runtime",
    "stability": "experiments.report.pages.stability",
    "vision": "experiments.report.pages.vision",
}
_GENERAL = "experiments.report.pages.general"


def page_of(frames: Frames, experiment: str) -> Page:
    """Return the page of one experiment's runs."""
    studies = {str(name).removesuffix(QUICK) for name in frames.runs["study"].dropna()}
    own = STUDIES.get(studies.pop()) if len(studies) == 1 and experiment == "training" else None
    module = importlib.import_module(own or PAGES.get(experiment, _GENERAL))
    found: Page = module.page(frames)
    return found

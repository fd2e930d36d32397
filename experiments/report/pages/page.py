"""What a page module returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from experiments.report.blocks import Section


@dataclass(frozen=True)
class Page:
    """The content of a report.

    Attributes
    ----------
    title
        What was compared, as a heading.
    question
        What the page answers, one sentence.
    sections
        In the order in which they are read.
    data
        Frames that are written as ``tables/NAME.csv`` without being shown: the drawn points, the
        traces.
    """

    title: str
    question: str
    sections: Sequence[Section]
    data: Mapping[str, pd.DataFrame] = field(default_factory=dict)

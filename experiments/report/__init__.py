"""Reports: one self-contained page a study, written from the store alone.

``load`` reads and joins the rows (``frames``), a page module says what they mean (``pages``), and
``render`` writes page, figures and tables. What pages share has a file of its own: words, colours,
charts, measures, blocks, sections.
"""

from experiments.report.render import render
from experiments.report.terminal import terminal_summary

__all__ = ["render", "terminal_summary"]

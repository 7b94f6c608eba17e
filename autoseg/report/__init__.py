"""The report: values of `content` to one HTML page. The pipeline reads the values from a results folder (`autoseg.pipeline.reporting`).

content.py       what a report is made of
page.py          all sections, one file
sections_*.py    values to plain views, one function a section
templates/       views to HTML, one template a section; the style sheet
figures.py       figures with axes as SVG, and the scales of charts in tables
planes.py        slices of a case with outlines
formatting.py    numbers and names as text
"""

# ruff: noqa: F401

from ..selection.quality_estimation import EstimatedDice
from .content import CasePicture, DatasetFacts, Missing, Plane, Report, RunFacts
from .page import render

"""The report: values of `content` to one HTML page. The pipeline reads the values from a results folder (`autoseg.pipeline.reporting`).

content.py         what a report is made of
page.py            all sections, one file
sections_*.py      values to HTML, one function a section
charts.py, svg.py  charts as SVG text
planes.py          slices of a case with contours
markup.py, style.py   elements and the style sheet
"""

from ..selection.estimated_dice import EstimatedDice
from .content import CasePicture, DatasetFacts, Missing, Plane, Report, RunFacts
from .page import render

__all__ = ["CasePicture", "DatasetFacts", "Missing", "Plane", "EstimatedDice", "Report", "RunFacts", "render"]

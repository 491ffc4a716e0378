"""The report: ``report.json`` is the truth; the terminal, HTML and Markdown are views of it.

:mod:`~edgeprune.report.schema` says what a report is. :mod:`~edgeprune.report.sections` turns one into blocks (tables,
figures, facts), and each view draws the same blocks. A new section is one function and one entry of ``SECTIONS``; a new
figure is a key in :mod:`~edgeprune.report.document`, its type in the schema, and a cell or column in the section that
shows it.
"""

from edgeprune.report.schema import validate
from edgeprune.report.views import write_views

__all__ = ["validate", "write_views"]

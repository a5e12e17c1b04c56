"""A run or a suite as one HTML file that needs nothing else: figures, tables, settings."""

from ccdgraph.report.content import Content
from ccdgraph.report.page import write_report
from ccdgraph.report.reading import read_content

__all__ = ["Content", "read_content", "write_report"]

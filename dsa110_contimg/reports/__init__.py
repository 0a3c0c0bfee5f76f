"""Reports: a template and typed parameters become an executed notebook, a page and a line in an index."""

from __future__ import annotations

from dsa110_contimg.reports.imaging import judge_product
from dsa110_contimg.reports.index import ReportRow, write_index
from dsa110_contimg.reports.metrics import Verdict, judge, judge_group, measurements
from dsa110_contimg.reports.night import NightSummary
from dsa110_contimg.reports.render import ReportProduct, run_template, template_parameters, template_path

__all__ = [
    "NightSummary",
    "ReportProduct",
    "ReportRow",
    "Verdict",
    "judge",
    "judge_group",
    "judge_product",
    "measurements",
    "run_template",
    "template_parameters",
    "template_path",
    "write_index",
]

from tidewheel.evaluation.report.drawings import draw
from tidewheel.evaluation.report.run_page import render

__all__ = ["draw", "render"]

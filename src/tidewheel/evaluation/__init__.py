from tidewheel.evaluation.drawings import draw
from tidewheel.evaluation.evaluate import evaluate
from tidewheel.evaluation.figures import Figures
from tidewheel.evaluation.report import render

__all__ = ["Figures", "draw", "evaluate", "render"]

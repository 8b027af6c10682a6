from tidewheel.evaluation.evaluate import evaluate
from tidewheel.evaluation.figures import Figures
from tidewheel.evaluation.report import draw, render

__all__ = ["Figures", "draw", "evaluate", "render"]

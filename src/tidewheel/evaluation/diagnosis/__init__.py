from tidewheel.evaluation.diagnosis.diagnose import Question, diagnose

__all__ = ["Question", "diagnose"]

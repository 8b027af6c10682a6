from tidewheel.evaluation.metrics.auc import auc, request_auc
from tidewheel.evaluation.metrics.calibration import bin_of, calibration_ratio, ece, equal_mass_edges, gaps
from tidewheel.evaluation.metrics.effective_rows import effective_rows
from tidewheel.evaluation.metrics.logloss import base_rate, logloss, normalized_entropy, row_loss
from tidewheel.evaluation.metrics.measured import Measured, ratio
from tidewheel.evaluation.metrics.ndcg import ndcg

__all__ = [
    "Measured",
    "auc",
    "base_rate",
    "bin_of",
    "calibration_ratio",
    "ece",
    "effective_rows",
    "equal_mass_edges",
    "gaps",
    "logloss",
    "ndcg",
    "normalized_entropy",
    "ratio",
    "request_auc",
    "row_loss",
]

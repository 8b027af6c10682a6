from tidewheel.evaluation.metrics.auc import PresortedAuc, auc
from tidewheel.evaluation.metrics.calibration import bin_of, binned_error, calibration_ratio, ece, equal_mass_edges
from tidewheel.evaluation.metrics.effective_rows import effective_rows
from tidewheel.evaluation.metrics.logloss import logloss, row_loss
from tidewheel.evaluation.metrics.weighted_sum import weighted_sum

__all__ = [
    "PresortedAuc",
    "auc",
    "bin_of",
    "binned_error",
    "calibration_ratio",
    "ece",
    "effective_rows",
    "equal_mass_edges",
    "logloss",
    "row_loss",
    "weighted_sum",
]

"""How many equally weighted rows say as much as these."""

from __future__ import annotations

import numpy as np


def effective_rows(weight: np.ndarray) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2 (Kish 1965, section 11.7); 0 without weight."""
    squares = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0

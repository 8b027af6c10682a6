"""Features that are null in the log of the days and were not in the evaluation: scored as unknown, then and again.

Served and re-scored scores agree then, for the log has what was scored (docs/hybrid-log.md). Legend: as in `rows`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tidewheel.evaluation.diagnosis.outcome_shifts import OFFLINE, ONLINE
from tidewheel.evaluation.diagnosis.rows import Groups
from tidewheel.evaluation.metrics import Measured, ratio, row_loss

MIN_LOST = 0.01  # of the rows, more than offline


@dataclass(frozen=True)
class Lost:
    """Shares of the rows without the feature, and by how much the log-loss is above that of the rows that have it."""

    feature: str
    online: float
    offline: float
    log_loss: Measured


def lost_features(groups: Groups, is_proven: Callable[[Measured], bool]) -> list[Lost]:
    """Features that provably more of the online rows lack, the most missed first."""
    online, offline = groups[ONLINE], groups[OFFLINE]
    found = []
    for name in online.missing:
        if name not in offline.missing:
            continue
        shares = {
            part: ratio(rows.weight, rows.missing[name].astype(np.float64), 1.0)
            for part, rows in ((ONLINE, online), (OFFLINE, offline))
        }
        now, then = (Measured(one.value, groups.placed(part, one.influence)) for part, one in shares.items())
        if now.value - then.value > MIN_LOST and is_proven(now - then):
            found.append(Lost(name, now.value, then.value, _cost(groups, online.missing[name])))
    return sorted(found, key=lambda one: one.offline - one.online)


def _cost(groups: Groups, is_lost: np.ndarray) -> Measured:
    """Log-loss of all online rows - that of those that have the feature."""
    rows = groups[ONLINE]
    loss = row_loss(rows.scores, rows.labels)
    has = (~is_lost).astype(np.float64)
    everywhere, there = ratio(rows.weight, loss, 1.0), ratio(rows.weight, loss * has, has)
    if not np.isfinite(there.value):  # no row has it: nothing to compare with
        return Measured(0.0, np.zeros(len(groups.users.codes)))
    return Measured(everywhere.value - there.value, groups.placed(ONLINE, everywhere.influence - there.influence))

"""What can go wrong in the world without leaving a trace in its logs.

`served_features`: the candidate's servers are deployed against a broken online feature source. Its batch read of items
answers in the reverse order of the keys, so that every candidate gets another one's features, and it gives rates in percent.
The log, from which offline features are made, is right: no offline evaluation can see it.

`inverted_labels`: the client sends its flags the wrong way round, so that the log says the opposite of what users did. An
evaluation on such days is as wrong as the training; users see the slates as they are, and a canary knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import numpy as np

from tidewheel.contracts.recipe import Fault
from tidewheel.contracts.schema import Entity, FeatureSpec

_KEY = "item_id"  # comes with the request, not from the source
_PERCENT = 100.0


def is_active(faults: Iterable[Fault], kind: str, moment: datetime) -> bool:
    """Whether a fault of this kind has started and not ended: `start <= moment < end`."""
    return any(fault.kind == kind and fault.start <= moment < fault.end for fault in faults)


def broken_features(columns: Mapping[str, np.ndarray], features: tuple[FeatureSpec, ...]) -> dict[str, np.ndarray]:
    """The columns of one request as the broken source serves them; the request's own columns stay as they are."""
    broken = {name: columns[name] for name in columns}
    for feature in features:
        if feature.entity is Entity.ITEM and feature.name != _KEY:
            broken[feature.name] = np.ascontiguousarray(broken[feature.name][::-1])
        if feature.name.endswith("_rate"):
            broken[feature.name] = broken[feature.name] * _PERCENT
    return broken

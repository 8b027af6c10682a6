"""The hybrid log: what servers (backend part) and clients (frontend part) write, and `ingest` joins. docs/hybrid-log.md.

```
LOG/backend/date=YYYY-MM-DD/*.parquet    one row a served candidate, with the features that scored it
LOG/frontend/date=YYYY-MM-DD/*.parquet   one row an event: sampled impressions, and every engagement
LOG/<part>/date=YYYY-MM-DD/_SUCCESS      written last: the partition is complete and will not change
```

`date` is the UTC day of arrival, so a line may be older than its partition. A partition without its marker is not read,
nor is any partition after it: the log is complete until there, its watermark.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from tidewheel.contracts.base import Contract

MARKER = "_SUCCESS"
IMPRESSION = "impression"  # the event of a sampled impression; every other event is an engagement, named like its label
SCORE_PREFIX = "score_"


class Part(StrEnum):
    BACKEND = "backend"
    FRONTEND = "frontend"


Probability = Annotated[float, Field(gt=0, le=1)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class ServedCandidate(Contract):
    """One row of the backend part: a candidate in the answer to a request. Scores are columns `score_<label>`.

    All other columns are features, with the values that were scored: null where a value was not known. Where the feature
    store did not answer at all, `is_feature_miss` is true: such a row cannot be learned from.
    """

    request_id: str = Field(min_length=1)
    user_id: Int64
    item_id: Int64
    author_id: Int64 | None = None  # owner of the item; without this column every item is its own
    served_time: AwareDatetime  # the time of the impression: known of every row, whatever came of it
    position: int | None = Field(default=None, ge=0)  # rank in the answer, from 0
    is_randomized: bool = False  # the order of this request was random
    propensity: Probability | None = None  # exact probability of what was shown; required where is_randomized
    bundle: str | None = None  # digest of the bundle that scored
    is_feature_miss: bool = False


class ClientEvent(Contract):
    """One row of the frontend part. `request_id`, `item_id` and `served_time` are those of the answer, sent back.

    An impression is logged with probability `logging_rate`, which may depend on its user and its request but on nothing
    that the user did afterwards. An engagement is always logged.
    """

    request_id: str = Field(min_length=1)
    item_id: Int64
    served_time: AwareDatetime
    event: str = Field(min_length=1)  # `impression`, or an engagement: click, long_view, ...
    event_time: AwareDatetime
    logged_time: AwareDatetime  # when it arrived here
    logging_rate: Probability  # of an impression of this user or request


# Column -> (Parquet type as Arrow names it, null allowed, column may be left out).
COLUMNS: dict[Part, dict[str, tuple[str, bool, bool]]] = {
    Part.BACKEND: {
        "request_id": ("string", False, False),
        "user_id": ("int64", False, False),
        "item_id": ("int64", False, False),
        "author_id": ("int64", True, True),
        "served_time": ("timestamp[us, tz=UTC]", False, False),
        "position": ("int32", True, True),
        "is_randomized": ("bool", False, False),
        "propensity": ("double", True, False),
        "bundle": ("string", True, True),
        "is_feature_miss": ("bool", False, True),
    },
    Part.FRONTEND: {
        "request_id": ("string", False, False),
        "item_id": ("int64", False, False),
        "served_time": ("timestamp[us, tz=UTC]", False, False),
        "event": ("string", False, False),
        "event_time": ("timestamp[us, tz=UTC]", False, False),
        "logged_time": ("timestamp[us, tz=UTC]", False, False),
        "logging_rate": ("double", False, False),
    },
}


def partition_name(arrival: datetime) -> str:
    """`date=YYYY-MM-DD`: the folder of what arrived at this time (UTC)."""
    return f"date={arrival.date().isoformat()}"


def is_feature_column(name: str) -> bool:
    """Whether a column of the backend part is a feature."""
    return name not in COLUMNS[Part.BACKEND] and not name.startswith(SCORE_PREFIX)

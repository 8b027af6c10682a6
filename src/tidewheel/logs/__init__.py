"""Logs become canonical impressions: adapters, judged rows, as-of counters."""

from tidewheel.logs.ingest import IngestResult, ingest
from tidewheel.logs.session import embedded_session
from tidewheel.logs.sources import check_features, counter_names, time_span

__all__ = ["IngestResult", "check_features", "counter_names", "embedded_session", "ingest", "time_span"]

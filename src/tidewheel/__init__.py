"""tidewheel: retrain a recommendation ranker from its own logs and roll each new model out safely."""

__version__ = "0.1.0"

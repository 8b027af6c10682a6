"""Rolls a candidate out in steps, each judged by a sequential test."""

from tidewheel.rollout.controller import StoredJournal
from tidewheel.rollout.local import StartServer, run_canary
from tidewheel.rollout.replay import ReplayTraffic
from tidewheel.rollout.router import Server
from tidewheel.rollout.traffic import Outcome, Request, SelectiveTraffic, Traffic

__all__ = [
    "Outcome",
    "ReplayTraffic",
    "Request",
    "SelectiveTraffic",
    "Server",
    "StartServer",
    "StoredJournal",
    "Traffic",
    "run_canary",
]

"""Judgement of what was seen of a cluster: facts in, findings out."""

from tidewheel.cluster.checks.all import findings

__all__ = ["findings"]

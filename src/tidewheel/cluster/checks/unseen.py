"""What could not be looked at is said, not passed over."""

from __future__ import annotations

from tidewheel.cluster.api import Unseen, Why
from tidewheel.cluster.finding import Finding, needed, optional

REMEDIES = {
    Why.ABSENT: "nothing, where this cluster has none of it",
    Why.FORBIDDEN: "let an administrator of the cluster run this, or give this account the verb",
    Why.REFUSED: "renew the credentials of this account",
    Why.SILENT: "run it again when the API server answers",
    Why.UNTRUSTED: "fetch the kubeconfig of this cluster again",
    Why.STRANGE: "run it again; if it stays so, look into the API server's log",
    Why.LATE: "run it again when the API server answers faster",
}


def not_seen(name: str, answer: Unseen) -> Finding:
    """Optional where this account may not look and never will; needed where a look that would have been possible failed."""
    found, remedy = f"could not be looked at: {answer.words}", REMEDIES[answer.why]
    if answer.why in (Why.FORBIDDEN, Why.ABSENT):
        return optional(name, found, "an account that may look", remedy)
    return needed(name, found, "an answer", remedy)

"""Whether an API server answers, and as whom it knows us."""

from __future__ import annotations

from tidewheel.cluster.api import Answer, Unseen, Why
from tidewheel.cluster.connection import Place
from tidewheel.cluster.finding import Finding, needed, well

ANONYMOUS = "system:anonymous"


def contact(place: Place, version: Answer, identity: Answer) -> list[Finding]:
    """Where a finding is not well, nothing else of the cluster can be said."""
    where = f"{place.server} (context {place.context})"
    if isinstance(version, Unseen):
        return [_no_answer(place, where, version)]
    if "gitVersion" not in version:
        return [_no_answer(place, where, Unseen(Why.STRANGE, "its /version is not that of Kubernetes"))]
    reached = well("api server", f"{where} answers")
    if isinstance(identity, Unseen):
        if identity.why is Why.REFUSED or ANONYMOUS in identity.words:
            return [reached, _unknown(place, identity.words)]
        if identity.why in (Why.ABSENT, Why.FORBIDDEN):
            return [reached, well("account", f"user {place.user} of the kubeconfig; the API server does not say more")]
        return [_no_answer(place, where, identity)]
    user = identity.get("status", {}).get("userInfo", {})
    name = user.get("username", "")
    if name in ("", ANONYMOUS):
        return [reached, _unknown(place, "no credentials arrived, so the API server calls this account anonymous")]
    groups = ", ".join(group for group in user.get("groups", ()) if group != "system:authenticated")
    return [reached, well("account", f"{name}{f' of {groups}' if groups else ''}")]


def _no_answer(place: Place, where: str, unseen: Unseen) -> Finding:
    expected = "an API server that answers /version within seconds"
    match unseen.why:
        case Why.REFUSED | Why.FORBIDDEN:
            return _unknown(place, unseen.words)
        case Why.SILENT | Why.LATE:
            remedy = (
                "check that the cluster runs, the network or proxy to it, and that the context is the right one: "
                "kubectl config get-contexts"
            )
            return needed("api server", f"{where} does not answer: {unseen.words}", expected, remedy)
        case Why.UNTRUSTED:
            remedy = (
                "fetch the kubeconfig of this cluster again: its certificate-authority-data is missing or of another cluster, "
                "or a proxy answers instead"
            )
            return needed("api server", f"{where} cannot be trusted: {unseen.words}", expected, remedy)
        case _:
            remedy = "choose the context of a cluster: kubectl config use-context; another server may have its address"
            return needed("api server", f"{where} answers, but not as Kubernetes does: {unseen.words}", expected, remedy)


def _unknown(place: Place, words: str) -> Finding:
    return needed(
        "account",
        f"{place.server} refused the credentials of user {place.user or '(none)'} in context {place.context}: {words}",
        "a token or certificate that is valid now",
        "they may have expired, belong to another cluster, or a plugin gave none: log in again, renew the user's token in the "
        "kubeconfig, or choose another context with kubectl config use-context",
    )

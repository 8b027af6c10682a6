"""A server that somebody else runs, behind an address: asked like a child process, never started or stopped."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from tidewheel.serving.client import Answer, Client


class RemoteServer:
    """Pods behind one address, all of which should serve `bundle`. Any number of threads may ask; each keeps a connection."""

    def __init__(self, url: str, bundle: str) -> None:
        """
        Raises:
            ContractError: the address is none.
        """
        self.url = url
        self.bundle = bundle
        self._local = threading.local()
        Client(url)

    def infer(self, features: Mapping[str, np.ndarray], parameters: Mapping[str, Any] | None = None) -> Answer:
        """See `Client.infer`."""
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = Client(self.url)
        return client.infer(features, parameters)

    def is_alive(self) -> bool:
        """One of its pods may be gone and another come: what does not answer is counted as an error, not as an end."""
        return True

    def stop(self) -> None:
        """Nothing: it is not ours."""

"""Serves a bundle over the Open Inference Protocol v2."""

from tidewheel.serving.client import Answer, Client
from tidewheel.serving.process import ServerProcess, start_server

__all__ = ["Answer", "Client", "ServerProcess", "start_server"]

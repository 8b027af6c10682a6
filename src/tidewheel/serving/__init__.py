"""Serves a bundle over the Open Inference Protocol v2."""

from tidewheel.serving.client import Answer, Client
from tidewheel.serving.process import ServerProcess, start_server
from tidewheel.serving.remote import RemoteServer

__all__ = ["Answer", "Client", "RemoteServer", "ServerProcess", "start_server"]

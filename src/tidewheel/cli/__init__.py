"""The command line. `tidewheel --help` imports nothing heavy."""

from tidewheel.cli.app import main

__all__ = ["main"]

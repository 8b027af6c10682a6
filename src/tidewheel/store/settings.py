"""Settings of a pod: files below `/etc/tidewheel`, a folder a ConfigMap or Secret, a file a variable of the environment."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from pathlib import Path

from tidewheel.contracts.placement import MOUNTED

_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


def take_settings(environment: MutableMapping[str, str], root: Path = Path(MOUNTED)) -> None:
    """Set what is mounted and not set yet. Where nothing is mounted, on a laptop, nothing happens."""
    for path in sorted(root.glob("*/*")):
        if _VARIABLE.fullmatch(path.name) and path.is_file():
            environment.setdefault(path.name, path.read_text(encoding="utf-8").strip())

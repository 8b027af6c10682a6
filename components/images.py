"""Which image a step runs in, read from images/images.toml: the one place that says so."""

import os
import tomllib
from pathlib import Path

from tidewheel import __version__

TABLE = Path(__file__).parents[1] / "images" / "images.toml"


def image_of(step: str) -> str:
    """`<registry>/tidewheel/<image>:<version>`; the registry comes from `$TIDEWHEEL_REGISTRY`, default `registry.local`."""
    registry = os.environ.get("TIDEWHEEL_REGISTRY", "registry.local")
    for image, entry in tomllib.loads(TABLE.read_text(encoding="utf-8")).items():
        if step in entry["steps"]:
            return f"{registry}/tidewheel/{image}:{__version__}"
    raise LookupError(f"images.toml has no image for step {step}")

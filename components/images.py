"""Which image a step runs in, read from images/images.toml: the one place that says so."""

import json
import os
import tomllib
from pathlib import Path

from tidewheel import __version__
from tidewheel.errors import ConfigError

TABLE = Path(__file__).parents[1] / "images" / "images.toml"
DIGESTS_VARIABLE = "TIDEWHEEL_IMAGE_DIGESTS"


def image_of(step: str) -> str:
    """`<registry>/tidewheel/<image>:<version>`; the registry comes from `$TIDEWHEEL_REGISTRY`, default `registry.local`.

    It is `<registry>/tidewheel/<image>@sha256:…` where `$TIDEWHEEL_IMAGE_DIGESTS` names the file that `make images` wrote.

    Raises:
        LookupError: images.toml has no image for the step.
        ConfigError: that file is not there, or pins no such image.
    """
    registry = os.environ.get("TIDEWHEEL_REGISTRY", "registry.local")
    for image, entry in tomllib.loads(TABLE.read_text(encoding="utf-8")).items():
        if step in entry["steps"]:
            return _pinned(image, f"{registry}/tidewheel/{image}:{__version__}")
    raise LookupError(f"images.toml has no image for step {step}")


def _pinned(image: str, tag: str) -> str:
    file = os.environ.get(DIGESTS_VARIABLE)
    if not file:
        return tag
    try:
        known: dict[str, str] = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{DIGESTS_VARIABLE}: {file} cannot be read ({error}); make images, or unset the variable") from error
    if tag not in known:
        raise ConfigError(f"{DIGESTS_VARIABLE}: {file} pins no {tag}; make images IMAGES={image}, or unset the variable")
    return known[tag]

"""The child of `BackgroundRegistry`: verbs from stdin, answers to the stdout it was given."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

NICENESS = 10  # it may not slow down the servers whose latency is being judged


def main() -> None:
    """One JSON line a call, one a answer, until stdin ends; whatever MLflow prints goes to stderr."""
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from tidewheel.registry.mlflow import MlflowRegistry

    given = json.loads(sys.argv[1])
    registry = MlflowRegistry(given["tracking_uri"], given["model"], given["bundles"])
    verbs: dict[str, Callable[..., Any]] = {
        "register": registry.register,
        "versions": registry.versions,
        "aliases": registry.aliases,
        "point": registry.point,
        "record": registry.record,
    }
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        try:
            answer = {"value": verbs[verb](*arguments)}
        except Exception as error:  # the asker raises it again, with its text
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

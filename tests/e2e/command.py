"""The command line as a user types it: a fresh process, its exit code, its streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
KUAIRAND = ROOT / "recipes" / "kuairand.yaml"
KUAIRAND_DATA = ROOT.parent / "shared" / "data" / "kuairand_pure_std"
PROGRAM = [sys.executable, "-c", "from tidewheel.cli import main; main()"]

# A world that turns in a fraction of the quickstart's time: fewer requests, a wider margin.
SMALL = (
    "source.requests_per_day=1500",
    "validate_data.max_psi=5",
    "validate_data.max_label_psi=5",
    "evaluate.max_calibration_error=0.9",
    "evaluate.max_ece=0.5",
    "evaluate.claims=[{metric: auc, margin: 0.3}, {metric: logloss, margin: 0.3}]",
    "evaluate.max_slice_drop={auc: 0.5}",
    "evaluate.max_replay_drop=0.5",
    "evaluate.min_rank_agreement=-0.9",
    "evaluate.min_auc={click: 0.52, long_view: 0.52}",
    "deploy.max_calibration_error=0.8",
    "deploy.max_score_shift=0.9",
    "deploy.steps=[{share: 0.5, min_requests: 200, max_requests: 3000}]",
    "deploy.max_engagement_drop=0.3",
)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def last_line(self) -> str:
        return self.err.strip().splitlines()[-1]


def environment(home: Path | None = None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without a tidewheel of its own."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("TIDEWHEEL_")}
    return found | ({"TIDEWHEEL_HOME": str(home)} if home else {}) | dict(extra or {})


def tidewheel(*arguments: str | Path, home: Path | None = None, cwd: Path | None = None, timeout: float = 600) -> Ended:
    """Run the command to its end."""
    ended = subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, env=environment(home), cwd=cwd, timeout=timeout
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]

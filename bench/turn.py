"""How long a turn on a real log takes, and how much of it is overhead.

    python bench/turn.py --data DIR [--turns 2]

Overhead is what is not work: the orchestrator, and in every step the start of its process, imports, engines starting and
manifests (`overhead_seconds` in run.json). Peer: the same steps without overhead, i.e. the work alone, in the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "kuairand.yaml")
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        for _ in range(options.turns):
            measure(options.recipe, options.data, home)


def measure(recipe: Path, data: Path, home: str) -> None:
    """One turn, as a user starts it; prints a row a step and the shares."""
    command = [sys.executable, "-c", "from tidewheel.cli import main; main()", "run", "--json"]
    started = time.monotonic()
    ended = subprocess.run(
        [*command, "--recipe", str(recipe), "--data", str(data), "--home", home], stdout=subprocess.PIPE, check=True
    )
    wall = time.monotonic() - started
    report = json.loads(ended.stdout)
    print(f"\n{report['run_id']}: {report['outcome']}, train {report['datasets']['train']['rows']:,} rows")
    print(f"{'step':<14} {'seconds':>8} {'overhead':>9}")
    for step in report["steps"]:
        print(f"{step['name']:<14} {step['seconds']:8.1f} {step['overhead_seconds']:9.1f}")
    in_steps = sum(step["seconds"] for step in report["steps"])
    overhead = sum(step["overhead_seconds"] for step in report["steps"])
    print(f"{'between steps':<14} {wall - in_steps:8.1f} {wall - in_steps:9.1f}")
    print(f"{'turn':<14} {wall:8.1f} {overhead + wall - in_steps:9.1f}")
    with_orchestrator = (overhead + wall - in_steps) / wall
    print(f"overhead of the steps: {overhead / wall:.0%} of the turn; with the orchestrator {with_orchestrator:.0%}")


if __name__ == "__main__":
    main()

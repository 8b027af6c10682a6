"""The embedded canary: over two real server processes, judged between batches of real requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import DeployConfig, LabelConfig
from tidewheel.contracts.rollout import CanaryResult
from tidewheel.rollout.canary import Canary
from tidewheel.rollout.controller import Controller, Journal, MemoryJournal
from tidewheel.rollout.plan import Arm
from tidewheel.rollout.router import Server, routing
from tidewheel.rollout.traffic import Traffic

StartServer = Callable[[Path], Server]


def run_canary(
    config: DeployConfig,
    labels: Sequence[LabelConfig],
    production: Path | None,
    candidate: Path,
    traffic: Traffic,
    start: StartServer,
    progress: Progress = silent,
    journal: Journal | None = None,
) -> CanaryResult:
    """Lead the candidate through the steps of `config` against production, and say what was seen.

    The verdict is `Successful` only if every step is. Without production (the first release) the candidate alone is
    asked: errors and calibration must be proven within their limits. Servers are stopped however this ends.

    Args:
        labels: of the recipe; in replay the log-loss of the gated ones is judged.
        traffic: from its beginning; what the journal holds of it is passed over.
        start: starts a server of a bundle's folder, e.g. `tidewheel.serving.start_server`.
        journal: of this candidate against this production; what an earlier controller wrote there counts.

    Raises:
        ContractError: a server refused its bundle, or the journal is damaged.
        RetryableError: a server did not start, or another controller took the lead.
    """
    canary = Canary(config, has_control=production is not None, is_closed_loop=traffic.is_closed_loop)
    controller = Controller(canary, journal or MemoryJournal(), progress)
    if controller.has_ended:
        return canary.result()
    with ExitStack() as stack:
        servers = _start_servers(stack, start, production, candidate)
        router = stack.enter_context(routing(config, labels, servers, traffic))
        controller.resume(router)
        while not controller.has_ended:
            controller.advance(router)
    return canary.result()


def _start_servers(stack: ExitStack, start: StartServer, production: Path | None, candidate: Path) -> dict[Arm, Server]:
    """Both at once; whatever did start is stopped when the stack unwinds, also where the other did not."""
    folders = {Arm.CANDIDATE: candidate} | ({} if production is None else {Arm.CONTROL: production})

    def started(folder: Path) -> Server:
        server = start(folder)
        stack.callback(server.stop)
        return server

    with ThreadPoolExecutor(len(folders)) as starters:
        futures = {arm: starters.submit(started, folder) for arm, folder in folders.items()}
    return {arm: future.result() for arm, future in futures.items()}

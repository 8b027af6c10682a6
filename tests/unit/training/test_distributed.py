"""Training on Ray: what one process trains, whoever of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from tests.unit.training.networks import SMALL_NETWORK
from tidewheel.contracts.learning import OptimizerConfig, TrainConfig
from tidewheel.errors import ConfigError, RetryableError
from tidewheel.ranker.model import Ranker
from tidewheel.store import Store
from tidewheel.training.checkpoint import KIND
from tidewheel.training.train import fit_here, new_ranker

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from tidewheel.training.distributed import FAILURE, Failure, _may_start, fit_distributed  # noqa: E402  (imports ray's door)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONFIG = TrainConfig(
    engine="ray",
    num_workers=2,
    network=SMALL_NETWORK,
    # Long enough that it is not over before Ray notices that a node manager is gone, which took it 13 s.
    optimizer=OptimizerConfig(epochs=500, batch_size=256, learning_rate=0.001),
    checkpoint_every_steps=20,
    task_weighting="uncertainty",
)
SHORT = CONFIG.model_copy(update={"optimizer": CONFIG.optimizer.model_copy(update={"epochs": 2})})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def undisturbed(tiny_run, encoded) -> Ranker:
    return together(tiny_run, encoded, CONFIG, None)[0]


def together(tiny_run, encoded, config: TrainConfig, store: Store | None):
    return fit_distributed(*encoded, tiny_run.recipe.labels, config, None, lambda share, words: None, store)


def assert_equal_weights(one: Ranker, other: Ranker) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def processes(word: str) -> list[psutil.Process]:
    """The processes below this one with a word in their command line."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if word in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not is_so():
        time.sleep(0.02)


def kill_once(store: Store, word: str) -> Callable[[], bool]:
    """Kill the first process with that word after the first checkpoint; call what this returns to know whether it happened."""
    killed: list[int] = []

    def watch() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not killed:
            if store.folders(KIND) and (victims := processes(word)):
                os.kill(victims[0].pid, signal.SIGKILL)
                killed.append(victims[0].pid)
            time.sleep(0.02)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return lambda: thread.join(300) is None and bool(killed)


def test_two_workers_train_what_one_process_trains(tiny_run, encoded):
    alone, _ = fit_here(*encoded, tiny_run.recipe.labels, SHORT)
    ranker, report = together(tiny_run, encoded, SHORT, None)
    start = new_ranker(encoded[0].rates, encoded[1], SHORT.seed)
    for name, value in ranker.state_dict().items():
        moved = (alone.state_dict()[name] - start.state_dict()[name]).abs().max()
        assert (value - alone.state_dict()[name]).abs().max() <= 0.02 * moved + 1e-6, name
    assert (report.steps, report.rows) == (16, 2000)  # of the two workers the first reports: every other row

    again, said = fit_distributed(*encoded, tiny_run.recipe.labels, SHORT, None, lambda share, words: None, None, NotAgain())
    assert_equal_weights(again, ranker)
    assert said == report


class NotAgain:
    """A driver where the result of an earlier call lies already: a step that was killed once its driver had ended."""

    owner = "here"

    def run(self, folder: Path, has_ended: Callable[[], bool], tell: Callable[[str], None]) -> str | None:
        raise AssertionError("it trains again what was trained")


@pytest.mark.parametrize(
    ("driver", "says"),
    [
        (lambda folder: "exit code 1: no disk", r"Ray's driver died \(exit code 1: no disk\); run again"),
        (lambda folder: None, "it left no result"),
        (
            lambda folder: Failure(kind="RetryableError", message="workers were lost").write(folder / FAILURE),
            "workers were lost",
        ),
    ],
    ids=["died", "silent", "failed"],
)
def test_a_driver_without_a_result_leaves_nothing_to_the_next_try(
    tiny_run, encoded, driver: Callable[[Path], str | None], says: str
) -> None:
    class Ends:
        owner = says

        def run(self, folder: Path, has_ended: Callable[[], bool], tell: Callable[[str], None]) -> str | None:
            ended = driver(folder)
            return ended if isinstance(ended, str) else None

    before = {*encoded[0].folder.iterdir()}
    with pytest.raises(RetryableError, match=says):
        fit_distributed(*encoded, tiny_run.recipe.labels, SHORT, None, lambda share, words: None, None, Ends())
    assert {*encoded[0].folder.iterdir()} == before


def test_a_driver_whose_head_is_taken_away_for_ever_is_started_so_often(tmp_path: Path) -> None:
    """Nobody else counts: who gives it a new head knows of no failure."""
    config = SHORT.model_copy(update={"max_failures": 1, "max_preemption_failures": 2})
    assert [_may_start(tmp_path, config) for _ in range(4)] == [True, True, True, True]
    assert not (tmp_path / FAILURE).exists()
    assert not _may_start(tmp_path, config)
    failure = Failure.read(tmp_path / FAILURE)
    assert failure.kind == "RetryableError"
    assert "lost 4 times" in failure.message


def test_what_a_driver_of_an_earlier_step_said_is_forgotten(tmp_path: Path) -> None:
    Failure(kind="RetryableError", message="of before").write(tmp_path / FAILURE)
    assert _may_start(tmp_path, SHORT)
    assert not (tmp_path / FAILURE).exists()


@pytest.mark.parametrize("victim", ["RayTrainWorker", "gcs_server", "raylet/raylet", "tidewheel.training"])
def test_whoever_is_killed_training_goes_on_bit_by_bit(tiny_run, encoded, store: Store, undisturbed: Ranker, victim: str):
    """A worker, Ray's head, its node manager, the driver."""
    was_killed = kill_once(store, victim)
    ranker, report = together(tiny_run, encoded, CONFIG, store)
    assert was_killed()
    assert report.resumed_at >= CONFIG.checkpoint_every_steps
    assert report.resumed_at + report.steps == 4000
    assert_equal_weights(ranker, undisturbed)
    assert store.folders(KIND) == []
    assert processes("raylet/raylet") == []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that takes no workers and a node that takes both, each with a node manager of its own."""
    found = Cluster()
    add_node(found, num_cpus=0)
    add_node(found, num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", found.address)
    yield found
    found.shutdown()


def add_node(cluster: Cluster, num_cpus: int) -> None:
    """Ray gives a node 30 s to start, which is not always enough on a busy machine: then try again."""
    for tries_left in (2, 1, 0):
        try:
            cluster.add_node(num_cpus=num_cpus)
            return
        except Exception as error:
            if not tries_left or "timed out during startup" not in str(error):
                raise


def take_away_node(cluster: Cluster) -> None:
    """Reclaim the node of the workers as a cloud does with spot nodes, two seconds after saying so; another one joins."""
    (node,) = cluster.worker_nodes
    add_node(cluster, num_cpus=1)
    command = [f"{Path(sys.executable).parent}/ray", "drain-node", "--address", cluster.address, "--node-id", node.node_id]
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "reclaimed", "--deadline-remaining-seconds", "2"]
    subprocess.run([*command, *reason], check=True, capture_output=True)
    time.sleep(2)
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.parametrize(("failures", "preemptions"), [(0, 1), (9, 0)], ids=["allowed", "once too often"])
def test_a_node_that_is_taken_away_does_not_count_as_a_failure(
    tiny_run, encoded, store: Store, undisturbed: Ranker, cluster: Cluster, failures: int, preemptions: int
):
    config = CONFIG.model_copy(update={"max_failures": failures, "max_preemption_failures": preemptions})
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(together, tiny_run, encoded, config, store)
        wait_until(lambda: bool(store.folders(KIND)))
        take_away_node(cluster)
        if preemptions == 0:
            with pytest.raises(RetryableError, match="more often than max_preemption_failures 0"):
                training.result()
            return
        ranker, report = training.result()
    assert report.resumed_at >= CONFIG.checkpoint_every_steps
    assert_equal_weights(ranker, undisturbed)


def test_another_number_of_workers_goes_on_within_rounding(tiny_run, encoded, store: Store, undisturbed: Ranker):
    no_second_try = CONFIG.model_copy(update={"max_failures": 0})
    was_killed = kill_once(store, "tidewheel.training")
    with pytest.raises(Exception, match="driver died"):
        together(tiny_run, encoded, no_second_try, store)
    assert was_killed()
    ranker, report = fit_here(
        *encoded, tiny_run.recipe.labels, CONFIG.model_copy(update={"engine": "in_process"}), checkpoints=store
    )
    assert report.resumed_at >= CONFIG.checkpoint_every_steps
    for name, value in ranker.state_dict().items():
        if name != "log_variances":
            torch.testing.assert_close(value, undisturbed.state_dict()[name], atol=0.02, rtol=0.02)


def test_a_loss_that_explodes_is_not_tried_again(tiny_run, encoded, store: Store):
    wild = SHORT.model_copy(update={"optimizer": SHORT.optimizer.model_copy(update={"learning_rate": 1e20})})
    with pytest.raises(ConfigError, match=r"the loss is (nan|inf) at step \d+"):
        together(tiny_run, encoded, wild, store)

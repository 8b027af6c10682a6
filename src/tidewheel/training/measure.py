"""How fast training is on this machine, and how much of that its input takes: `tidewheel bench train`."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from pydantic import Field

from tidewheel.contracts.base import Contract
from tidewheel.contracts.learning import TrainConfig
from tidewheel.contracts.progress import Progress, silent
from tidewheel.contracts.recipe import LabelConfig
from tidewheel.contracts.schema import FeatureSpec
from tidewheel.contracts.training import TrainingReport
from tidewheel.ranker.network import Network
from tidewheel.training import loop
from tidewheel.training.encode import encoded_rows, fitted_encoders
from tidewheel.training.loader import RandomRows, RowSource, ShuffledRows
from tidewheel.training.rows import EncodedRows
from tidewheel.training.train import new_ranker, objective_of


class Measured(Contract):
    """`roofline_rows_per_second` is of random tensors of the same shape that lie in memory; `input_efficiency` is the median
    over the rounds of real / roofline, each round measuring both, one after the other.
    """

    rows: int
    batch_size: int
    steps: int
    rounds: int
    threads: int
    device: str
    encoded_rows_per_second: float
    encoded_bytes_a_row: float
    rows_per_second: float
    data_wait_share: float
    roofline_rows_per_second: float | None = None
    input_efficiency: float | None = None
    input_efficiencies: tuple[float, ...] = ()
    peak_memory_bytes: int = Field(ge=0)


def measure(
    train_dir: Path,
    features: tuple[FeatureSpec, ...],
    labels: tuple[LabelConfig, ...],
    config: TrainConfig,
    steps: int,
    rounds: int,
    with_roofline: bool,
    progress: Progress = silent,
) -> Measured:
    """Train for `steps` steps, `rounds` times, on the rows of a folder of Parquet; nothing is kept.

    Raises:
        ConfigError, ContractError: as `train`.
    """
    loop.check_device(config.device)
    loop.use_threads()
    names = tuple(label.name for label in labels)
    with tempfile.TemporaryDirectory(prefix="tidewheel-bench-") as name:
        began = time.monotonic()
        encoders = fitted_encoders(train_dir, features, names, Path(name))
        rows = encoded_rows(train_dir, encoders, names, Path(name))
        encoding = time.monotonic() - began
        progress(0.1, f"{len(rows):,} rows encoded")
        network = Network.of(config.network, encoders, names)
        real, ceiling = [], []
        random = RandomRows.like(rows, config.optimizer.batch_size, config.seed, config.device)
        for number in range(rounds):
            if with_roofline:
                ceiling.append(_try(random, rows, network, labels, config, steps))
            real.append(_try(ShuffledRows(rows), rows, network, labels, config, steps))
            progress(0.1 + 0.9 * (number + 1) / rounds, f"{real[-1].rows_per_second:,.0f} rows a second")
    shares = tuple(a.rows_per_second / b.rows_per_second for a, b in zip(real, ceiling, strict=False))
    return Measured(
        rows=len(rows),
        batch_size=config.optimizer.batch_size,
        steps=real[0].steps,
        rounds=rounds,
        threads=torch.get_num_threads(),
        device=config.device,
        encoded_rows_per_second=len(rows) / encoding,
        encoded_bytes_a_row=4.0 * rows.manifest.layout.width,
        rows_per_second=median(report.rows_per_second for report in real),
        data_wait_share=median(report.data_wait_share for report in real),
        roofline_rows_per_second=median(report.rows_per_second for report in ceiling) if ceiling else None,
        input_efficiency=median(shares) if shares else None,
        input_efficiencies=shares,
        peak_memory_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


def _try(
    source: RowSource,
    rows: EncodedRows,
    network: Network,
    labels: tuple[LabelConfig, ...],
    config: TrainConfig,
    steps: int,
) -> TrainingReport:
    ranker = new_ranker(rows.rates, network, config.seed, config.task_weighting).to(config.device)
    objective = objective_of(labels, config, config.device, ranker.log_variances)
    return loop.fit(ranker, source, config.optimizer, objective, config.seed, max_steps=steps)

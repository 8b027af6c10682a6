"""Whether the two graphs of a bundle are one model: what its weights say, with its calibrators and without."""

from __future__ import annotations

import filecmp
from pathlib import Path
from tempfile import TemporaryDirectory

from tidewheel.contracts.bundle import ModelEntry
from tidewheel.ranker.calibration import Calibrators
from tidewheel.ranker.export import export_graph
from tidewheel.ranker.model import load_ranker


def twin_fault(folder: Path, entry: ModelEntry) -> str | None:
    """Why a model's files are not one student and its uncalibrated twin, or None.

    Export is deterministic, so both graphs are made again from weights and calibrators and must be the same bytes.

    Raises:
        ContractError: weights, network or calibrators are damaged or do not fit together.
    """
    ranker = load_ranker(folder / entry.weights, folder / entry.network)
    calibrators = Calibrators.read(folder / entry.calibrators)
    if missing := sorted(set(ranker.network.labels) - set(calibrators.by_label)):
        return f"{entry.calibrators} has no calibrator for {', '.join(missing)}; distill again"
    with TemporaryDirectory() as scratch:
        again = Path(scratch) / "graph.onnx"
        for graph, by in ((entry.graph, calibrators), (entry.uncalibrated_graph, None)):
            export_graph(ranker, again, by)
            if not filecmp.cmp(folder / graph, again, shallow=False):
                sources = entry.weights + (f" with {entry.calibrators}" if by else "")
                return f"{graph} is not the graph of {sources}: the twins are two models; distill again"
    return None

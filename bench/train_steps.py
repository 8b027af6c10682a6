"""What a training step is made of, each part beside the way torch does it by default: CPU time on one thread, in one run.

    python -m bench.train_steps [--batch-size 1024] [--compile]

Tensors are random, of the sizes of recipes/kuairand.yaml: 14 categorical features with 49,371 ids, 12 numbers, 4 labels.
CPU time of the thread, not wall time: it says the same on a machine that does other work. `--compile` needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from tidewheel.contracts.learning import OptimizerConfig
from tidewheel.contracts.network import NetworkConfig
from tidewheel.ranker.kernels import lookup, relu_dropout
from tidewheel.ranker.loss import multi_task_loss
from tidewheel.ranker.model import Ranker
from tidewheel.ranker.network import Network
from tidewheel.training.optimizer import BETAS, EPSILON, Optimizer

SIZES = (32769, 8193, 8193, 16, 25, 10, 9, 10, 8, 9, 4, 13, 6, 106)
NUMBERS, LABELS = 12, ("click", "long_view", "like", "profile_enter")
ROUNDS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--ids", type=int, nargs="*", default=[1_000_000], help="sizes of larger tables to update")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size = options.batch_size
    rows = torch.stack([torch.randint(0, n, (size,)) for n in SIZES], dim=1) + torch.tensor(offsets())
    h = torch.randn(3, size, 128)
    compare(
        "embedding, with its gradient",
        with_gradient(lambda table: lookup(rows, table), sum(SIZES), 8),
        with_gradient(lambda table: nn.functional.embedding(rows, table), sum(SIZES), 8),
    )
    compare(
        "relu and dropout, with gradient",
        with_gradient(lambda x: relu_dropout(x, 0.1, True), *h.shape),
        with_gradient(lambda x: nn.functional.dropout(torch.relu(x), 0.1), *h.shape),
    )
    compare("AdamW of the embedding table", *adamw(sum(SIZES), 8))
    for ids in (sum(SIZES), *options.ids):
        compare(f"update of {ids:,} ids: touched, all", *updates(ids, 8, len(SIZES) * size))
    whole = step(size)
    print(f"{'':<34} {'':>9} {'':>9} {'':>6}  rows/s a core")
    line("a whole step, float32", milliseconds(whole), None, size)
    compare_steps("  with bfloat16 products", whole, step(size, precision="bfloat16"), size)
    compare_steps("  with torch's dropout, lookup", whole, step(size, is_plain=True), size)
    if options.compile:
        compare_steps("  with torch.compile", whole, step(size, is_compiled=True), size)


def offsets() -> list[int]:
    return [sum(SIZES[:at]) for at in range(len(SIZES))]


def milliseconds(work: Callable[[], object]) -> float:
    for _ in range(5):
        work()
    found = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        work()
        found.append(1000 * (time.thread_time() - began))
    return median(found)


def compare(what: str, ours: Callable[[], object], torchs: Callable[[], object]) -> None:
    line(what, milliseconds(ours), milliseconds(torchs), None)


def compare_steps(what: str, base: Callable[[], object], other: Callable[[], object], size: int) -> None:
    """Both again, so that they are compared in one moment."""
    line(what, milliseconds(other), milliseconds(base), size)


def line(what: str, ours: float, other: float | None, size: int | None) -> None:
    beside = "" if other is None else f"{other:9.2f} {ours / other:6.2f}"
    print(f"{what:<34} {ours:9.2f} {beside:<16} {'' if size is None else f' {1000 * size / ours:,.0f}'}", flush=True)


def with_gradient(compute: Callable[[Tensor], Tensor], *shape: int) -> Callable[[], object]:
    value = torch.randn(*shape, requires_grad=True)
    gradient = torch.randn_like(compute(value))

    def work() -> None:
        compute(value).backward(gradient)
        value.grad = None

    return work


def adamw(rows: int, width: int) -> tuple[Callable[[], object], Callable[[], object]]:
    value = nn.Parameter(torch.randn(rows, width))
    ours = Optimizer([("embeddings.table", value)], OptimizerConfig(), torch.ones(1))
    gradient = torch.randn(rows, width)

    def fused() -> None:
        value.grad = gradient
        ours.step(0.5)

    first, second = torch.zeros_like(gradient), torch.zeros_like(gradient)

    @torch.no_grad()
    def plain() -> None:
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        value.mul_(0.9999)
        value.addcdiv_(first, second.sqrt().div_(0.5).add_(EPSILON), value=-1e-4)

    return fused, plain


def updates(ids: int, width: int, touched: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """AdamW of a table from the gradients of `touched` lookups: of the rows that they touch alone, and of all."""
    table = nn.Parameter(torch.randn(ids, width))
    first, second = torch.zeros(ids, width), torch.zeros(ids, width)
    rows, gradients = torch.randint(0, ids, (touched,)), torch.randn(touched, width)
    optimizer = Optimizer([("embeddings.table", table)], OptimizerConfig(), torch.ones(1))

    def of_all() -> None:
        table.grad = torch.zeros_like(table).index_add_(0, rows, gradients)
        optimizer.step(0.5)

    @torch.no_grad()
    def of_touched() -> None:
        own, places = torch.unique(rows, return_inverse=True)
        summed = torch.zeros(len(own), width).index_add_(0, places, gradients)
        value, moment, square = table[own], first[own], second[own]
        arguments = {"lr": 1e-4, "beta1": BETAS[0], "beta2": BETAS[1], "weight_decay": 0.1, "eps": EPSILON}
        flags = {"amsgrad": False, "maximize": False}
        torch._fused_adamw_([value], [summed], [moment], [square], [], [torch.tensor(1.0)], **arguments, **flags)
        for of, new in ((table, value), (first, moment), (second, square)):
            of[own] = new

    return of_touched, of_all


def step(size: int, precision: str = "float32", is_plain: bool = False, is_compiled: bool = False) -> Callable[[], object]:
    """One step of the default ranker on one batch."""
    import tidewheel.ranker.layers as layers
    import tidewheel.ranker.model as model

    network = Network(config=NetworkConfig(), sizes=SIZES, num_numbers=NUMBERS, labels=LABELS)
    ranker = Ranker(network).train()
    optimizer = Optimizer(ranker.named_parameters(), OptimizerConfig(batch_size=size), torch.ones(len(LABELS)))
    ids = torch.stack([torch.randint(0, n, (size,)) for n in SIZES], dim=1).int()
    numbers, labels = torch.randn(size, NUMBERS), (torch.rand(size, len(LABELS)) < 0.3).float()
    weights, tasks = torch.ones(size), torch.ones(len(LABELS))
    forward = torch.compile(ranker) if is_compiled else ranker

    def work() -> None:
        if is_plain:
            layers.lookup = model.lookup = nn.functional.embedding  # type: ignore[assignment]
            layers.relu_dropout = lambda h, rate, training: nn.functional.dropout(torch.relu(h), rate, training)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = forward(ids, numbers)
        multi_task_loss(logits.float(), labels, weights, tasks).backward()
        optimizer.step(0.5)
        layers.lookup, layers.relu_dropout, model.lookup = lookup, relu_dropout, lookup

    return work


if __name__ == "__main__":
    main()

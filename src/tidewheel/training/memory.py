"""Out of memory, said so that the next try can succeed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tidewheel.errors import RetryableError

# What the allocators of torch and ONNX Runtime say: their errors have no class of their own on a CPU.
SIGNS = ("DefaultCPUAllocator", "can't allocate memory", "Failed to allocate memory", "bad_alloc", "bad allocation")


@contextmanager
def enough_memory(step: str, batch_size: int) -> Iterator[None]:
    """Inside, tensors are made.

    Raises:
        RetryableError: there was no memory for one: more of it, or smaller batches, would let the same work succeed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not (on_gpu or isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS)):
            raise
        what = "a GPU with more memory" if on_gpu else "more memory for the step"
        said = str(error).strip().splitlines()
        raise RetryableError(
            f"{step}: out of memory ({said[0] if said else type(error).__name__}); "
            f"give it {what}, or lower {step}.optimizer.batch_size ({batch_size})"
        ) from error

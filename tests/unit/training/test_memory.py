"""Out of memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tidewheel.errors import RetryableError
from tidewheel.training.memory import enough_memory

HUNGRY = textwrap.dedent("""
    import resource
    import torch
    from tidewheel.training.memory import enough_memory

    torch.zeros(1)
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, now + 2**28))
    with enough_memory("train", 65536):
        torch.zeros(2**30)
""")


def test_an_allocation_that_fails_says_what_to_raise_and_what_to_lower():
    ended = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("tidewheel.errors.RetryableError: train: out of memory (")
    assert last.endswith("give it more memory for the step, or lower train.optimizer.batch_size (65536)")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_other_ways_to_say_so_are_understood(error: Exception):
    with pytest.raises(RetryableError, match="distill: out of memory"), enough_memory("distill", 1):
        raise error


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shape"), enough_memory("train", 1):
        raise RuntimeError("shape mismatch")

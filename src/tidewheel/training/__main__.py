"""`python -m tidewheel.training [--one-a-node] FOLDER`: the driver of distributed training, see distributed.py."""

import argparse
from pathlib import Path

from tidewheel.training.distributed import drive

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tidewheel.training")
    parser.add_argument("--one-a-node", action="store_true")
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    drive(asked.folder, asked.one_a_node)

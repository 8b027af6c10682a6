"""`python -m tidewheel.training FOLDER`: the driver of distributed training, see distributed.py."""

import sys
from pathlib import Path

from tidewheel.training.distributed import drive

if __name__ == "__main__":
    drive(Path(sys.argv[1]))

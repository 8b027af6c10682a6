"""Groups over a cap as files beside the training rows: what else a loader needs to select as the sampler did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather

from tidewheel.contracts.sampling import SamplePlan
from tidewheel.errors import ContractError
from tidewheel.sampling.loader import EXPECTED, GROUP

FOLDER = "caps"


def write_groups(folder: Path, groups: Sequence[pa.Table]) -> None:
    """Write `folder/caps/<number>.arrow` for each cap of the plan, in its order."""
    for number, table in enumerate(groups):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        ids = pa.int64() if pa.types.is_integer(table.schema.field(GROUP).type) else pa.large_string()
        table = table.cast(pa.schema([(GROUP, ids), (EXPECTED, pa.int64())]))  # engines have several types of text
        feather.write_feather(table.combine_chunks(), folder / FOLDER / f"{number}.arrow", compression="lz4")


def read_groups(folder: Path, plan: SamplePlan) -> list[pa.Table]:
    """The groups of a published dataset, for `tidewheel.sampling.loader.select`.

    Raises:
        ContractError: a file is missing or damaged.
    """
    try:
        return [feather.read_table(folder / FOLDER / f"{number}.arrow") for number in range(len(plan.caps))]
    except (OSError, pa.ArrowInvalid) as error:
        raise ContractError(f"{folder}: groups over a cap cannot be read ({error}); run sample again") from error

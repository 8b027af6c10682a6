"""What `tidewheel gc` keeps."""

from __future__ import annotations

from pydantic import Field

from tidewheel.contracts.base import Contract


class RetentionRules(Contract):
    """`releases`: so many earlier productions that are still trusted, the last to serve first: what can be gone back to.
    `days`: whatever served, was decided about or ran within so many days. What may teach is kept beside that.
    """

    releases: int = Field(default=3, ge=1)
    days: int = Field(default=30, ge=0)

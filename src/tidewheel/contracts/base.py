"""What every contract shares: frozen, strict models with one canonical JSON form and one digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tidewheel.errors import ContractError


class Contract(BaseModel):
    """A frozen model that refuses unknown keys. Its JSON has sorted keys, so equal values have equal bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    def to_json(self) -> str:
        return canonical_json(self.model_dump(mode="json", by_alias=True), indent=2)

    def write(self, path: Path) -> Path:
        """Write the canonical JSON to `path`; a reader never sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self.to_json() + "\n", encoding="utf-8")
        return partial.replace(path)

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """Parse JSON text.

        Raises:
            ContractError: the text is not JSON or not this contract; the message names `where` and the first fault.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ContractError(f"{where}: {first_fault(error)}") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a contract from a file.

        Raises:
            ContractError: the file is missing, truncated or not this contract.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ContractError(f"{path}: cannot be read ({error.strerror})") from error
        return cls.parse(text, str(path))


def canonical_json(value: Any, indent: int | None = None) -> str:
    """JSON with sorted keys and no NaN: equal values give equal text.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)


def digest_of(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`, a contract or plain JSON data."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True)
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def first_fault(error: ValidationError) -> str:
    """The first fault of a validation in one line: `place: what was expected (found ...)`."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "document"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    found = fault.get("input")
    shown = "" if isinstance(found, dict | list) or fault["type"] == "missing" else f", found {found!r}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {message[0].lower() + message[1:]}{shown}{more}"

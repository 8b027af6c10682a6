"""The door to S3-compatible object stores: every call ends, by an answer or by one error that says who must act."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import s3fs
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from tidewheel.errors import ConfigError, ContractError, RetryableError
from tidewheel.store.disk import room_in

T = TypeVar("T")

KINDS = ("directory", "file")  # s3fs's words
WRITER = "tidewheel-writer"  # metadata of a created object: who made it
BROKEN = (
    aws.HTTPClientError,
    aws.ConnectionError,
    aws.IncompleteReadError,
    ResponseParserError,
    aiohttp.ClientError,
    ConnectionError,
    TimeoutError,
)
BUSY_CODES = frozenset({"SlowDown", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted"})
BUSY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """How long and how often a store is asked before it counts as down.

    The waits between attempts are drawn from [0, min(longest_wait, first_wait · 2^k)] ("full jitter": writers that failed
    together do not come back together). An attempt may take `attempt_seconds` and what its bytes take at
    `slowest_bytes_per_second`; silence of `silence_seconds` ends it earlier.
    """

    attempts: int = 6
    first_wait_seconds: float = 0.25
    longest_wait_seconds: float = 10.0
    connect_seconds: float = 5.0
    silence_seconds: float = 20.0
    attempt_seconds: float = 30.0
    slowest_bytes_per_second: float = 2.0**18
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Found:
    """What a listing says of an object."""

    bytes: int
    modified: datetime


class Objects:
    """Objects under `s3://bucket/prefix`. Endpoint and credentials come from the standard `AWS_*` variables.

    Retries live here alone: those of s3fs and botocore are off, or a call would be tried 6 × 5 × 5 times.
    """

    def __init__(self, url: str, patience: Patience) -> None:
        self.url = url.rstrip("/")
        self._root = self.url.removeprefix("s3://")
        self._patience = patience
        self._fs: Any = s3fs.S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={
                "retries": {"total_max_attempts": 1},
                "connect_timeout": patience.connect_seconds,
                "read_timeout": patience.silence_seconds,
            },
        )
        self._fs.retries = 1

    def read(self, key: str) -> bytes | None:
        """An object's bytes, None where there is none. For small ones."""
        try:
            return bytes(self._call("read", key, self._fs.cat_file, max_concurrency=1))  # more would ask for the size first
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> None:
        self._call("write", key, self._fs.pipe_file, data, size=len(data))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless its name is taken (`If-None-Match: *`); False where it is.

        An answer may be lost after the object was made, and the next attempt then finds the name taken: by ourselves, if
        the object carries the token of this call.
        """
        token = uuid.uuid4().hex
        try:
            self._call("create", key, self._fs.pipe_file, data, size=len(data), mode="create", Metadata={WRITER: token})
        except FileExistsError:
            return self._call("look at", key, self._fs.metadata, refresh=True).get(WRITER) == token
        return True

    def upload(self, path: Path, key: str) -> None:
        self._call("upload", key, lambda place, **how: self._fs.put_file(str(path), place, **how), size=path.stat().st_size)

    def download(self, key: str, path: Path, size: int) -> None:
        """Copy an object of `size` bytes to a file of this machine.

        Raises:
            ContractError: there is none.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with room_in(path.parent):
                self._call("download", key, lambda place, **how: self._fs.get_file(place, str(path), **how), size=size)
        except FileNotFoundError as error:
            raise ContractError(f"{self.url}/{key}: is missing; restore it or run again") from error

    def remove(self, key: str) -> None:
        self._call("remove", key, self._fs.rm_file)

    def below(self, prefix: str) -> dict[str, Found]:
        """Key relative to `prefix` -> what is found, at any depth."""
        listed = self._call("list", prefix, self._fs.find, detail=True)
        start = len(f"{self._root}/{prefix}/")
        # A store may keep a folder that was emptied and list it.
        files = {name[start:]: info for name, info in listed.items() if info["type"] == "file"}
        return {place: Found(info["size"], info["LastModified"]) for place, info in files.items()}

    def within(self, prefix: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the objects directly under `prefix`, each sorted."""
        try:
            listed = self._call("list", prefix, self._fs.ls, detail=True, refresh=True)
        except FileNotFoundError:
            return [], []
        names = {kind: sorted(i["name"].rsplit("/", 1)[1] for i in listed if i["type"] == kind) for kind in KINDS}
        return names["directory"], [name for name in names["file"] if name]  # an emptied folder may list itself

    def _call(self, operation: str, key: str, call: Callable[..., T], *arguments: Any, size: int = 0, **how: Any) -> T:
        """Ask until there is an answer.

        Raises:
            FileNotFoundError: there is no such object.
            FileExistsError: its name is taken.
            RetryableError: no answer, or errors only, in all attempts.
            ConfigError: the store refuses.
        """
        patience = self._patience
        seconds = patience.attempt_seconds + size / patience.slowest_bytes_per_second
        retrying = Retrying(
            stop=stop_after_attempt(patience.attempts),
            wait=wait_random_exponential(multiplier=patience.first_wait_seconds, max=patience.longest_wait_seconds),
            retry=retry_if_exception(is_transient),
            sleep=patience.sleep,
        )
        try:
            return retrying(call, f"{self._root}/{key}", *arguments, timeout=seconds, **how)
        except RetryError as error:
            last = error.last_attempt.exception()
            raise RetryableError(
                f"store {self.url}: {operation} {key} failed in {patience.attempts} attempts ({_words(last)}); "
                "see that the store answers, then run again"
            ) from last
        except (aws.BotoCoreError, OSError) as error:
            code = _response(error).get("Error", {}).get("Code")
            if code == "PreconditionFailed":  # s3fs knows only Amazon's words for it
                raise FileExistsError(key) from error
            if code != "NoSuchBucket" and isinstance(error, FileNotFoundError | FileExistsError):
                raise
            if isinstance(error, OSError) and code is None and not isinstance(error, PermissionError):
                raise  # of this machine's disk, not of the store
            raise ConfigError(
                f"store {self.url}: refuses to {operation} {key} ({_words(error)}); "
                "check the address, the AWS_* variables and what these credentials may do"
            ) from error


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later."""
    response = _response(error)
    if response:
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in BUSY_STATUS or response.get("Error", {}).get("Code") in BUSY_CODES
    return isinstance(error, BROKEN)


def _response(error: BaseException | None) -> dict[str, Any]:
    """What the store answered, where it answered at all; s3fs keeps it one error deeper."""
    for found in (error, getattr(error, "__cause__", None)):
        if isinstance(found, aws.ClientError):
            return dict(found.response)
    return {}


def _words(error: BaseException | None) -> str:
    """One line: the store's own code, else the kind of error and its text."""
    answer = _response(error)
    if answer:
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return f"{answer.get('Error', {}).get('Code')}, HTTP {status}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(f"{type(error).__name__}: {error}".split())

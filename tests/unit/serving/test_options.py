"""What the command line of a server asks for, and which of it cannot be meant."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from tidewheel.errors import ConfigError
from tidewheel.serving.gate import Limits
from tidewheel.serving.options import limits_of, parse

DIGEST = "7" * 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to serve; name a --bundle, a --store and a --digest, or"),
        (["--store", "s3://bucket/x"], "--store: needs a --digest"),
        (["--store", "s3://bucket/x", "--digest", ""], "--digest: is empty, so no bundle was released yet"),
        (["--store", "s3://bucket/x", "--digest", " "], "no bundle was released yet"),
        (["--store", "", "--digest", DIGEST], "--store: is empty"),
        (["--store", "", "--digest", ""], "--store: is empty"),
        (["--store", "s3://bucket/x", "--digest", "$(TIDEWHEEL_BUNDLE)"], "is no digest of a bundle; expected 64 digits"),
        (["--store", "s3://bucket/x", "--digest", "../" * 21 + "x"], "is no digest of a bundle"),
        (["--store", "x", "--digest", DIGEST, "--bundle", "y"], "--bundle and --store contradict each other"),
        (["--store", "x", "--digest", DIGEST, "--follow", "x", "quickstart"], "--store and --follow contradict each other"),
        (["--digest", DIGEST], "nothing to serve"),
        (["--follow", "x", "quickstart", "--digest", DIGEST], "--digest: goes with a --store or a --bundle"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(arguments)
    assert message in str(error.value)
    assert (error.value.exit_code, "\n" in str(error.value)) == (2, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--store", "s3://bucket/x", "--digest", DIGEST, "--cache", "/tmp/bundles"],
        ["--bundle", "folder"],
        ["--bundle", "folder", "--digest", DIGEST],
        ["--follow", "s3://bucket/x", "quickstart"],
        ["--follow", "s3://bucket/x", "quickstart", "--bundle", "folder"],
    ],
)
def test_what_can_be_meant_is_taken(arguments: list[str]) -> None:
    assert asdict(limits_of(parse(arguments))) == asdict(Limits())


def test_every_limit_is_what_its_option_says() -> None:
    options = parse(["--bundle", "x", "--max-waiting", "7", "--idle-seconds", "0.5"])
    assert asdict(limits_of(options)) == asdict(Limits(max_waiting=7, idle_seconds=0.5))


def test_a_log_in_a_bucket_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--bundle", "x", "--log", "s3://bucket/log"])
    assert ended.value.code == 2
    assert "--log: s3://bucket/log: expected a folder" in capsys.readouterr().err

"""The engine's faults, as its client raises them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.errors import AnalysisException
from pyspark.errors.exceptions.connect import SparkConnectGrpcException

from tidewheel.errors import ContractError, RetryableError
from tidewheel.logs.engine_faults import engine_faults_named, words_of

GONE = """<_InactiveRpcError of RPC that terminated with:
\tstatus = StatusCode.UNAVAILABLE
\tdetails = "failed to connect to all addresses"
\tdebug_error_string = "UNKNOWN:Error received from peer"
>"""


def test_an_engine_that_is_gone_is_worth_another_try() -> None:
    want = r"log: the dataframe engine did not answer \(UNAVAILABLE: failed to connect"
    with pytest.raises(RetryableError, match=want), engine_faults_named(Path("log")):
        raise SparkConnectGrpcException(GONE)


def test_what_the_engine_cannot_read_is_the_logs_fault() -> None:
    internal = GONE.replace("UNAVAILABLE", "INTERNAL").replace("failed to connect to all addresses", "Parquet error: EOF")
    want = r"log: the log cannot be read \(Parquet error: EOF\)"
    with pytest.raises(ContractError, match=want), engine_faults_named(Path("log")):
        raise SparkConnectGrpcException(internal)
    want = r"the log cannot be read \(no such column\)"
    with pytest.raises(ContractError, match=want), engine_faults_named(Path("log")):
        raise AnalysisException("no such column\nand much more")


def test_a_fault_without_words_is_a_fault_all_the_same() -> None:
    assert words_of("") == ("", "no message")

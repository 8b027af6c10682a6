"""Tables for people: what is read as one word stays one, whatever the width."""

from __future__ import annotations

import pytest

from tidewheel.cli.output import table

COLUMNS = ("bundle", "serves", "reason")
DIGESTS = ("2df14913c95f", "799f7b4d7454")
REASON = "step 1: calibration of click: predicted / actual 5.631 in [3.799, 8.347], " + "limit 1 ± 0.2 " * 60


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    table(COLUMNS, [(*DIGESTS, REASON.replace("[", "\\["))])
    return capsys.readouterr().out.splitlines()


def test_what_goes_into_a_file_is_one_line_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    _, row = printed(capsys)
    assert row.split() == [*DIGESTS, *REASON.split()]


def test_a_narrow_terminal_folds_text_and_no_digest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    _, first, *more = printed(capsys)
    assert first.split()[:2] == list(DIGESTS)
    assert more
    assert " ".join([*first.split()[2:], *(word for line in more for word in line.split())]) == " ".join(REASON.split())
    assert max(map(len, (first, *more))) <= 60


def test_where_there_is_no_room_at_all_everything_is_folded_and_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    found = "".join(printed(capsys)[1:])
    assert all(found.count(letter) == "".join((*DIGESTS, REASON)).count(letter) for letter in "0123456789:[")

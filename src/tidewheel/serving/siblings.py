"""What the processes of one server know of each other: each writes what it has counted into a folder, once a second.

Whoever is asked for metrics adds it all up, so the answer is the server's, whichever of its processes it came to. Of itself a
process says what holds now, of the others what held a second ago. What a process has counted stays when it is gone, or the
server's counters would go back: who takes its place goes on from there.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import Metric

COUNTED = ("counter", "histogram")
_SUFFIX = ".metrics"
# Gauges that are no sums: what those processes say that say anything, and how many processes there are.
_Together = Callable[[list[float], int], float]
_TOGETHER: dict[str, _Together] = {
    "tidewheel_bundle_info": lambda found, processes: max(found),
    "tidewheel_bundle_share": lambda found, processes: sum(found) / processes,
    "tidewheel_assignment_number": lambda found, processes: min(found),  # in force where all have it
}
_Family = tuple[str, str, str, list[tuple[str, tuple[tuple[str, str], ...], float]]]


class Siblings:
    """One process among those of its server.

    Args:
        folder: where all of them write.
        place: this one's, from 0 on; whoever had it before is gone.
        beats: a pipe to who watches over the processes (`processes`).
    """

    def __init__(self, folder: Path, place: int, beats: int) -> None:
        self._folder = folder
        self._file = _file(folder, place)
        self._before = _read(self._file)[1] if self._file.exists() else []
        self._said = ""
        self._beats = beats
        os.set_blocking(beats, False)

    def beat(self) -> None:
        """Say that this process is alive."""
        with suppress(BlockingIOError, BrokenPipeError):  # nobody looks; where nobody is, `--exit-on-stdin-eof` ends this
            os.write(self._beats, b"\n")

    def publish(self, families: Iterable[Metric]) -> None:
        """Let the others know. A folder that cannot be written is said once, and tried again the next time."""
        try:
            _write(self._file, True, [*map(_plain, families), *self._before])
            self._said = ""
        except OSError as error:
            if str(error) != self._said:
                print(f"tidewheel serving: metrics of this process are not renewed: {error}", file=sys.stderr, flush=True)
            self._said = str(error)

    def with_others(self, families: Iterable[Metric]) -> Iterator[Metric]:
        """The families of the whole server; `families` are this process's."""
        found, num_processes = [*map(_plain, families), *self._before], 1
        for path in sorted(self._folder.glob("*" + _SUFFIX)):
            if path != self._file:
                is_alive, more = _read(path)
                found += more
                num_processes += is_alive
        return merged(found, num_processes)


def bury(folder: Path, place: int) -> None:
    """Say that the process of this place is gone: what it has counted stays, what it held is gone with it."""
    file = _file(folder, place)
    if file.exists():
        counted = [family for family in _read(file)[1] if family[2] in COUNTED]
        _write(file, False, [_plain(family) for family in merged(counted, 0)])


def merged(found: Sequence[_Family], num_processes: int) -> Iterator[Metric]:
    """Families of the same name as one: samples added up, or as `_TOGETHER` says."""
    kinds: dict[str, tuple[str, str]] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for name, text, kind, samples in found:
        kinds.setdefault(name, (text, kind))
        of_name = values.setdefault(name, {})
        for sample, labels, value in samples:
            of_name.setdefault((sample, labels), []).append(value)
    for name, (text, kind) in kinds.items():
        family = Metric(name, text, kind)
        together = _TOGETHER.get(name, _sum)
        for (sample, labels), numbers in values[name].items():
            family.add_sample(sample, dict(labels), together(numbers, num_processes))
        yield family


def _sum(numbers: list[float], num_processes: int) -> float:
    return sum(numbers)


def _file(folder: Path, place: int) -> Path:
    return folder / f"{place}{_SUFFIX}"


def _plain(family: Metric) -> _Family:
    samples = [(sample.name, tuple(sample.labels.items()), float(sample.value)) for sample in family.samples]
    return family.name, family.documentation, family.type, samples


def _write(file: Path, is_alive: bool, families: Sequence[_Family]) -> None:
    partial = file.with_suffix(".partial")
    partial.write_bytes(marshal.dumps((is_alive, list(families))))
    partial.replace(file)


def _read(file: Path) -> tuple[bool, list[_Family]]:
    is_alive, families = marshal.loads(file.read_bytes())
    return bool(is_alive), list(families)

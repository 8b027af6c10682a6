"""What is in use, as a cgroup of either version says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.pods.usage import Usage, in_use

VERSION_2 = {"memory.current": "5000000\n", "memory.stat": "anon 3000000\ninactive_file 1200000\nactive_file 300000\nshmem 9\n"}
VERSION_1 = {
    "memory.usage_in_bytes": "5000000\n",
    "memory.stat": "inactive_file 7\nactive_file 7\ntotal_inactive_file 1200000\ntotal_active_file 300000\n",
}


def cgroup(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="ascii")
    return folder


@pytest.mark.parametrize("files", [VERSION_1, VERSION_2])
def test_pages_of_files_are_not_in_use(tmp_path: Path, files: dict[str, str]) -> None:
    assert in_use(cgroup(tmp_path, files)) == 3_500_000


@pytest.mark.parametrize(("place", "files"), [("", VERSION_2), ("memory", VERSION_1)])
def test_the_most_that_was_seen_is_kept(tmp_path: Path, place: str, files: dict[str, str]) -> None:
    folder = cgroup(tmp_path / place, files)
    usage = Usage(is_pod=True, root=tmp_path)
    with usage.watched():
        pass
    for name in ("memory.current", "memory.usage_in_bytes"):
        if (folder / name).exists():
            (folder / name).write_text("2000000")
    usage.look()

    assert usage.peak_bytes == 3_500_000


def test_a_laptop_tells_what_this_process_held() -> None:
    held = bytearray(b"x" * 50_000_000)

    assert (Usage(is_pod=False).peak_bytes or 0) > len(held)


def test_a_pod_without_a_cgroup_to_read_tells_what_its_process_held(tmp_path: Path) -> None:
    usage = Usage(is_pod=True, root=tmp_path)
    with usage.watched():
        pass

    assert (usage.peak_bytes or 0) > 0

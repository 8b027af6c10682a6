"""The chart's page is made of its values and their comments: it cannot tell of a value that is not there."""

from __future__ import annotations

import json

from tests.helm.gpu_node_pools.chart import CHART, VALUES
from tests.helm.test_readme import LINE

HEAD = """# gpu-node-pools

GPU node pools declared once and rendered for Karpenter (AWS, Azure), GKE or Cluster API, with what exposes their devices and
with Kueue's flavors, queues and priorities.
[docs/operations/gpu-node-pools.md](../../docs/operations/gpu-node-pools.md) says how to run it.

Values are strict: what is not listed here is refused, and so are pools that their provider cannot make and quotas of more GPUs
than a pool can have.

| value | default | meaning |
| --- | --- | --- |
"""


def rows() -> list[tuple[str, str, str]]:
    """(value, default, meaning) of every commented line; a key without a comment must only hold others."""
    found = []
    places: list[str] = []
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        if not (match := LINE.match(line)):
            continue
        places[len(match["indent"]) // 2 :] = [match["key"]]
        if match["meaning"]:
            found.append((".".join(places), default_of(places), match["meaning"].replace("|", "\\|")))
        else:
            assert not match["value"].strip() or "resources" in places, f"{line}: says nothing"
    return found


def default_of(places: list[str]) -> str:
    value = VALUES
    for place in places:
        value = value[place]
    return json.dumps(value, ensure_ascii=False)


def test_the_readme_is_made_of_the_values(golden: bool) -> None:
    found = rows()
    lines = []
    for value, default, meaning in found:
        is_section = any(other.startswith(f"{value}.") for other, _, _ in found)
        lines.append(f"| `{value}` | {'' if is_section else f'`{default}`'} | {meaning} |\n")
    text = HEAD + "".join(lines)
    path = CHART / "README.md"
    if golden:
        path.write_text(text, encoding="utf-8")

    assert path.read_text(encoding="utf-8") == text, "make golden"

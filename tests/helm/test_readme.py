"""The chart's page is made of its values and their comments: it cannot tell of a value that is not there."""

from __future__ import annotations

import json
import re

from tests.helm.chart import CHART, VALUES

HEAD = """# ranker-serving

The served ranker on Kubernetes, as an Argo Rollouts `Rollout` whose steps tidewheel judges, or as a plain `Deployment`.
[docs/operations/serving-on-kubernetes.md](../../docs/operations/serving-on-kubernetes.md) says how to run it.

Values are strict: what is not listed here is refused. Objects that Kubernetes defines (tolerations, affinity, peers of a
NetworkPolicy, `rollout.trafficRouting`) are passed on as they are.

| value | default | meaning |
| --- | --- | --- |
"""
LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]\w*):(?P<value>.*?)(?:  # (?P<meaning>.*))?$")


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
            assert not match["value"].strip() or places[0] == "resources" or "resources" in places, f"{line}: says nothing"
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

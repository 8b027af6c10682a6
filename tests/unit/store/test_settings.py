from __future__ import annotations

from pathlib import Path

from tidewheel.store.settings import take_settings


def mount(root: Path, name: str, **values: str) -> None:
    """A volume as the kubelet makes it: files are links into a folder with a time in its name."""
    data = root / name / "..2026_01_12"
    data.mkdir(parents=True)
    (root / name / "..data").symlink_to(data)
    for key, value in values.items():
        (data / key.replace("__", ".")).write_text(value)
        (root / name / key.replace("__", ".")).symlink_to(data / key.replace("__", "."))


def test_what_is_mounted_becomes_the_environment(tmp_path: Path) -> None:
    mount(tmp_path, "tidewheel", TIDEWHEEL_STORE="s3://bucket/prefix\n", notes__md="not a variable")
    mount(tmp_path, "tidewheel-store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    (tmp_path / "tidewheel-mlflow").mkdir()  # an optional Secret that is not there
    environment = {"AWS_ACCESS_KEY_ID": "of the pod itself"}

    take_settings(environment, tmp_path)

    assert environment == {
        "TIDEWHEEL_STORE": "s3://bucket/prefix",
        "AWS_ACCESS_KEY_ID": "of the pod itself",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def test_a_laptop_has_nothing_mounted(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    take_settings(environment, tmp_path / "nowhere")
    assert environment == {}

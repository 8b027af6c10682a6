"""Builds and pushes the images of images.toml, each from images/Containerfile, and writes which digest each name got.

    python images/build.py --registry registry.example [--builder COMMAND] [--base IMAGE] [IMAGE...]

Standard library only. The builder is docker, podman, buildah, or any command that takes CONTEXT TAG [build arguments], builds,
pushes, and prints as its last line the name under which it pushed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DIGESTS = ROOT / "images" / "digests.json"  # what $TIDEWHEEL_IMAGE_DIGESTS may name; components/images.py reads it
IN_THE_WHEEL = ("src", "components", "pipelines", "pyproject.toml", "README.md", "LICENSE")
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
SBOM = "sbom.cdx.json"
SDK = "kfp"  # its executor needs nothing of what it requires, so it is installed without


@dataclass(frozen=True)
class Image:
    """A row of images.toml."""

    name: str
    title: str
    extras: tuple[str, ...]
    steps: tuple[str, ...]
    has_java: bool

    @property
    def target(self) -> str:
        """Of the Containerfile: what Kubeflow gives steps to, or what starts by itself."""
        return "step" if self.steps else "server"


@dataclass(frozen=True)
class Pushed:
    """An image in its registry; no size where the registry does not say it to who has no credentials."""

    digest: str
    compressed_bytes: int | None


def images(table: Path = ROOT / "images" / "images.toml") -> dict[str, Image]:
    rows = tomllib.loads(table.read_text(encoding="utf-8"))
    return {
        name: Image(name, row["title"], tuple(row["extras"]), tuple(row["steps"]), row.get("java", False))
        for name, row in rows.items()
    }


def requirements(image: Image, project: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is installed with all that it requires, and what without."""
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(text for extra in image.extras for text in optional[extra])]
    sdk = [text for text in optional["pipeline"] if re.split(r"[=<>\[ ]", text)[0] == SDK] if image.steps else []
    return sorted(set(wanted)), sdk


# --- what a build reads ---------------------------------------------------------------------------------------------


def make_wheel(folder: Path) -> Path:
    """The wheel of this working tree, from a copy: a stale build folder would keep files that were deleted."""
    source, out = folder / "source", folder / "wheel"
    for name in IN_THE_WHEEL:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(origin, source / name)
    # One time for all files, so that equal sources give an equal wheel, and a builder's cache holds.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _git("log", "-1", "--format=%ct") or "315532800"}
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(source)]
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return next(out.glob("*.whl"))


def make_context(folder: Path, image: Image, wheel: Path, project: dict[str, Any]) -> Path:
    """A folder with exactly what the Containerfile copies."""
    folder.mkdir()
    for origin in (ROOT / "images" / "Containerfile", ROOT / "constraints.txt", wheel):
        shutil.copy2(origin, folder)
    for name, lines in zip(("requirements.txt", "kfp.txt"), requirements(image, project), strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def revision() -> str:
    """The commit, with `-dirty` behind it when the tree is not that commit; empty outside git."""
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


# --- builders -------------------------------------------------------------------------------------------------------


def build_and_push(builder: str, context: Path, tag: str, arguments: Sequence[str]) -> Pushed:
    """Build the context and push it.

    Raises:
        subprocess.CalledProcessError: the builder failed; its own words are on stderr.
        urllib.error.URLError: only the registry knows the digest, and does not show it.
    """
    arguments = ["--file", str(context / "Containerfile"), *arguments]
    told = context.with_name(f"{context.name}.digest")
    match builder:
        case "docker":  # an attestation would make an index of the image, with another digest than the image's
            options = ["--provenance=false", "--push", "--metadata-file", str(told), "--tag", tag, *arguments]
            _run("docker", "buildx", "build", *options, str(context))
            return Pushed(json.loads(told.read_text(encoding="utf-8"))["containerimage.digest"], _size(tag))
        case "podman" | "buildah":
            # Docker's format keeps the health check.
            _run(builder, "build", "--layers", "--format", "docker", "--tag", tag, *arguments, str(context))
            _run(builder, "push", "--digestfile", str(told), tag)
            return Pushed(told.read_text(encoding="utf-8").strip(), _size(tag))
    lines = _run(*shlex.split(builder), str(context), tag, *arguments).split()
    return pushed(lines[-1] if lines else tag)


def extract(builder: str, context: Path, tag: str, arguments: Sequence[str], into: Path) -> None:
    """Build a stage of the Containerfile and copy its files out."""
    options = [*arguments, "--output", f"type=local,dest={into}"]
    if builder in ("docker", "podman", "buildah"):
        verb = ["docker", "buildx", "build"] if builder == "docker" else [builder, "build", "--layers"]
        _run(*verb, "--file", str(context / "Containerfile"), *options, str(context))
    else:
        _run(*shlex.split(builder), str(context), tag, "--file", str(context / "Containerfile"), *options)


def _run(*command: str) -> str:
    """Standard output; what the command says on standard error is shown."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


# --- the registry ---------------------------------------------------------------------------------------------------


def pushed(name: str) -> Pushed:
    """Digest and compressed size of an image as its registry has it.

    Raises:
        urllib.error.URLError: the registry does not show it to who has no credentials, or is not there.
    """
    host, path = name.split("/", 1)
    repository, tag = path.rsplit(":", 1)
    scheme = "http" if re.match(r"(localhost|127\.)", host) else "https"
    request = urllib.request.Request(
        f"{scheme}://{host}/v2/{repository}/manifests/{tag}", headers={"Accept": ", ".join(MANIFESTS)}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        body = answer.read()
    manifest = json.loads(body)
    layers = [manifest["config"], *manifest["layers"]] if "layers" in manifest else None
    size = sum(layer["size"] for layer in layers) if layers else None
    return Pushed(f"sha256:{hashlib.sha256(body).hexdigest()}", size)


def _size(tag: str) -> int | None:
    try:
        return pushed(tag).compressed_bytes
    except urllib.error.URLError:
        return None


def remember(tag: str, digest: str, file: Path) -> str:
    """Note `tag -> name@digest` beside what the file holds; returns the latter."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    pinned = f"{tag.rsplit(':', 1)[0]}@{digest}"
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({**known, tag: pinned}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(file)
    return pinned


# --- the command ----------------------------------------------------------------------------------------------------


def make(image: Image, tag: str, version: str, context: Path, builder: str, base: str) -> Pushed:
    """Build one image, with its inventory's digest as a label, and push it."""
    arguments = ["--build-arg", f"SYSTEM={'java' if image.has_java else 'plain'}"]
    if base:
        arguments += ["--build-arg", f"BASE={base}"]
    found = context.with_name(f"{context.name}.sbom")
    extract(builder, context, f"{tag}-sbom", [*arguments, "--target", "sbom"], found)
    digest = hashlib.sha256((found / SBOM).read_bytes()).hexdigest()
    labels = {"TITLE": image.title, "VERSION": version, "REVISION": revision(), "SBOM_DIGEST": f"sha256:{digest}"}
    for key, value in labels.items():
        arguments += ["--build-arg", f"{key}={value}"]
    return build_and_push(builder, context, tag, [*arguments, "--target", image.target])


def main(arguments: list[str] | None = None) -> int:
    """Build what is named, or all; prints a line an image: name@digest, compressed size, seconds."""
    parser = argparse.ArgumentParser(prog="images/build.py", description="Build and push the images of images.toml.")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="default: all")
    parser.add_argument("--registry", default="registry.local")
    parser.add_argument("--builder", default="docker", help="docker, podman, buildah or a command: CONTEXT TAG [arguments]")
    parser.add_argument("--base", default="", help="a Debian with Python 3.11; default: that of the Containerfile")
    options = parser.parse_args(arguments)
    known = images()
    if unknown := sorted(set(options.images) - set(known)):
        parser.error(f"images.toml has no {', '.join(unknown)}; it has {', '.join(known)}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    with tempfile.TemporaryDirectory(prefix="tidewheel-images-") as scratch:
        wheel = make_wheel(Path(scratch))
        for name in options.images or known:
            started = time.monotonic()
            tag = f"{options.registry}/tidewheel/{name}:{version}"
            context = make_context(Path(scratch) / name, known[name], wheel, project)
            try:
                there = make(known[name], tag, version, context, options.builder, options.base)
            except subprocess.CalledProcessError as error:
                print(f"images/build.py: {name}: {error.cmd[0]} ended with {error.returncode}", file=sys.stderr)
                return 1
            except urllib.error.URLError as error:
                print(f"images/build.py: {name}: was pushed, but its registry does not show it: {error}", file=sys.stderr)
                return 1
            size = "size unknown" if there.compressed_bytes is None else f"{there.compressed_bytes / 1e6:.0f} MB"
            print(f"{remember(tag, there.digest, DIGESTS)}  {size}  {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Environments of their own for others' programs, which ask for packages that ours does not go with.

Each is made once, in the cache folder of the user, and used from then on. It appears by renaming, so that
half of one is never used. Remove the folder `~/.cache/oncoseg-benchmarks` (or that in `XDG_CACHE_HOME`) when
you need the room.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parent

TORCH_INDEX = ("--extra-index-url", "https://download.pytorch.org/whl/cpu")
"""Has the small CPU build of torch; PyPI's brings CUDA."""

PIP_OPTIONS = ("--disable-pip-version-check", "--quiet", "--retries", "1", "--timeout", "30")
"""A computer without network is told soon; whoever has a bad one runs the command again."""


PYTHON = Path("bin", "python")
"""In an environment's folder."""

MADE_OF = "made-of.json"
"""Says what was installed, so that an environment made of something else is not used."""


class Peer(NamedTuple):
    """Somebody else's program.

    Attributes:
        name: as its authors write it.
        package: on PyPI.
        version: the one that is compared with.
        installs: arguments of `pip install`, one call each, in the root of the repository.
        driver: a script of ours that calls it, run by its own Python.
    """

    name: str
    package: str
    version: str
    installs: tuple[tuple[str, ...], ...]
    driver: Path


NNUNET = Peer(
    "nnU-Net",
    "nnunetv2",
    "2.8.1",
    (
        # what its networks ask for (timm, torchvision) has no part in evaluating, so it stays out
        (
            "--no-deps",
            "nnunetv2==2.8.1",
            "batchgenerators==0.25.5",
            "acvl-utils==0.2.6",
            "dynamic-network-architectures==0.4.4",
        ),
        (*TORCH_INDEX, "-c", "constraints.txt", "torch", "blosc2", "nibabel", "scikit-image", "SimpleITK"),
    ),
    HERE / "_peers" / "score_with_nnunet.py",
)
"""Of its evaluation everything that is imported, and nothing else."""

PANOPTICA = Peer(
    "panoptica",
    "panoptica",
    "2.1.7",
    (("panoptica==2.1.7", "nibabel==5.4.2"),),
    HERE / "_peers" / "score_with_panoptica.py",
)
"""Whole, with nibabel for reading files."""

PEERS = (NNUNET, PANOPTICA)


class Unavailable(Exception):
    """A peer cannot be installed; says why."""


def folder_of(peer: Peer) -> Path:
    """Where its environment is, or would be."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Path(cache) / "oncoseg-benchmarks" / f"{peer.package}-{peer.version}-{python}"


def python_of(peer: Peer, install: bool = True) -> Path:
    """The Python of its environment, which is made first where it is not there yet.

    Args:
        peer: whose.
        install: False only uses what is there.

    Raises:
        Unavailable: it cannot be installed, or is not and shall not be.
    """
    folder = folder_of(peer)
    recipe = json.dumps(peer.installs)
    made_of = folder / MADE_OF
    if not made_of.is_file() or made_of.read_text(encoding="utf-8") != recipe:
        if not install:
            raise Unavailable(f"{peer.name} {peer.version} is not installed in {folder}")
        print(f"Installing {peer.name} {peer.version} into {folder}, once …", file=sys.stderr, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as scratch:
            whole = Path(scratch) / "environment"
            _make(peer, whole)
            (whole / MADE_OF).write_text(recipe, encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            whole.rename(folder)
    return folder / PYTHON


def _make(peer: Peer, folder: Path) -> None:
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"no environment can be made in {folder}: {error}") from error
    python = folder / PYTHON
    for number, arguments in enumerate(peer.installs, 1):
        names = [name for name in arguments if not name.startswith(("-", "http", "constraints"))]
        print(f"  {number}/{len(peer.installs)}: {', '.join(names)} …", file=sys.stderr, flush=True)
        _run([python, "-m", "pip", "install", *PIP_OPTIONS, *arguments])
    _run([python, "-I", peer.driver, "--help"])


def _run(command: list[object]) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["it says nothing"]
        raise Unavailable(f"{' '.join(map(str, command))} ended with {done.returncode}: {lines[-1]}")

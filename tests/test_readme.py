"""What the documents show works: the README's Python example as a script, and every command line."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError

from oncoseg.cli import FIELD_COMMANDS, app
from oncoseg.cli.data import parse_data
from oncoseg.cli.fields import check_flags, from_tokens
from oncoseg.cli.recipes import changed
from oncoseg.datasets import DATASETS
from oncoseg.errors import OncosegError
from oncoseg.fingerprint import Fingerprint
from oncoseg.phantom import PHANTOMS
from oncoseg.recipe import Recipe
from oncoseg.recipe_plan import plan_recipe
from oncoseg.recipes import RECIPES, get_recipe
from oncoseg.split import PARTS
from oncoseg.studies import STUDIES, open_study
from oncoseg.studies.study import Study
from tiny import tiny_data

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

COMMAND_LINES = ("", "sh", "bash", "console")
"""Languages of fenced blocks that hold commands."""

IMAGES = Fingerprint(((240, 240, 155),), ((1.0, 1.0, 1.0),))
"""Of the data that command lines plan for."""

BETWEEN = set("$();<>|&")
"""What stands between commands."""

SMALL = """
import oncoseg
from oncoseg import processes
from tiny import tiny_recipe

oncoseg.get_recipe = lambda name: tiny_recipe()
processes.available_processors = lambda: 2
"""
"""Put before the README's example: the system shrunk to tiny data, prepared by two processes."""


def test_the_python_example_runs_as_a_script(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENTS[0].read_text(encoding="utf-8"), re.DOTALL)
    example = re.sub(r'("training\.max_epochs": )\d+', r"\g<1>1", example)
    (tmp_path / "example.py").write_text(SMALL + example, encoding="utf-8")
    data = tiny_data(tmp_path / "tiny")
    (tmp_path / "data").mkdir()
    data["mri"].rename(tmp_path / "data" / "brats")
    data["ct"].rename(tmp_path / "data" / "lidc")
    tiny_data(tmp_path / "new", mri=1, ct=0)["mri"].rename(tmp_path / "new_patients")
    places = os.pathsep.join(str(ROOT / folder) for folder in ("src", "tests"))
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": places, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "first" / "report" / "index.html").is_file()
    assert (tmp_path / "masks" / "BraTS2021_00000.nii.gz").is_file()


def commands(text: str, program: str) -> Iterator[list[str]]:
    """What follows a program's name in a document's code blocks, fenced or indented by four."""
    language = None
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            language = line[3:].strip() if language is None else None
        elif (language in COMMAND_LINES or line.startswith("    ")) and f" {program} " in f" {line}":
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            for between, words in groupby(lexer, lambda word: set(word) <= BETWEEN):
                command = list(words)
                if not between and program in command:
                    yield command[command.index(program) + 1 :]


def shown(program: str) -> list[Any]:
    """Every command line of a program in the documents, as test parameters."""
    return [
        pytest.param(words, id=f"{document.name}: {shlex.join(words)}")
        for document in DOCUMENTS
        for words in commands(document.read_text(encoding="utf-8"), program)
    ]


def recipe_named(name: str | None) -> Recipe:
    """The recipe of a command line; any for one in a file of the reader's own, or the run's."""
    return get_recipe(next(iter(RECIPES)) if name is None or name.endswith(".json") else name)


def study_named(name: str | None) -> Study:
    """Likewise of a study."""
    return open_study(next(iter(STUDIES)) if name is None or name.endswith(".json") else name)


VALUES: dict[str, Callable[[Any], Any]] = {
    "recipe": recipe_named,
    "name": recipe_named,
    "data": parse_data,
    "kind": PHANTOMS.__getitem__,
    "layout": DATASETS.__getitem__,
    "split": PARTS.index,
}
"""Parameters whose values a command checks only when it runs, and how."""


def understand(words: list[str]) -> str:
    """Parse a command line as `oncoseg` does, without running it; gives the name of what it would run."""
    command, bound, _ = app.parse_args(
        [word for word in words if word != "--debug"], exit_on_error=False, print_error=False
    )
    given = bound.arguments
    if words[:1] in (["study"], ["studies"]):
        understand_study(dict(given))
        return str(command.__name__)
    for name in VALUES.keys() & given.keys():
        VALUES[name](given[name])
    if words and words[0] in FIELD_COMMANDS:
        recipe = recipe_named(given.get("recipe"))
        if words[0] == "plan":  # what it changes need not fit before it has planned the rest
            fields = from_tokens(given.get("fields", {}))
            check_flags(recipe, fields, FIELD_COMMANDS[words[0]])
            plan_recipe(recipe.with_only(given["only"]), IMAGES, 4, fields)
        else:
            changed(recipe, given.get("fields", {}), FIELD_COMMANDS[words[0]], given.get("only"))
        assert parse_data(given.get("data", [])).keys() <= recipe.modalities.keys()
    return str(command.__name__)


def understand_study(given: Mapping[str, Any]) -> None:
    """Check what `study` checks when it runs."""
    study = study_named(given.get("name")).with_changes(from_tokens(given.get("fields", {})))
    runs = study.runs(given.get("only_group") or (), given.get("only_variant") or ())
    check_flags(runs[0].recipe, from_tokens(given.get("fields", {})), FIELD_COMMANDS["study"])
    assert parse_data(given.get("data") or []).keys() <= runs[0].recipe.modalities.keys()


@pytest.mark.parametrize("words", shown("oncoseg"))
def test_every_command_shown_is_understood(words: list[str]) -> None:
    assert understand(words) in {"list_all", *words}


PAGE = """
oncoseg is prose
```python
from oncoseg import x
```
```
oncoseg recipes show x > y.json && oncoseg demo  # oncoseg: it's the end
$ oncoseg train a \\
    --crop '[64,64]'
```
oncoseg again

    oncoseg inspect z
"""


def test_commands_are_found_in_every_kind_of_block() -> None:
    expected = [["recipes", "show", "x"], ["demo"], ["train", "a", "--crop", "[64,64]"], ["inspect", "z"]]
    assert list(commands(PAGE, "oncoseg")) == expected
    assert any("README" in str(one.id) for one in shown("oncoseg"))


@pytest.mark.parametrize(
    "line",
    [
        "report",
        "report runs/first runs/second",
        "evaluate runs/first --splt test",
        "evaluate runs/first --split tests",
        "evaluate runs/first --threshold half",
        "recipes show unified",
        "phantom brain out",
        "predict runs/first new --modalty ct --out masks",
        "train unified-mri-ct --data data/lidc --out x",
        "train unified-mri-ct --data pet=data/pet --out x",
        "train unified-mri-ct --training.max-epoch 3 --out x",
        "train unified-mri-ct --training.max-epochs three --out x",
        "prepare unified-mri-ct --data mri=a --modalities.mri.missing substitutes",
        "study aspp --data mri=a --out x",
        "study aspp-attention --data ct=a --out x",
        "study aspp-attention --data mri=a --out x --only-group T1",
        "study aspp-attention --data mri=a --out x --training.max-epoch 3",
        "studies show aspp",
    ],
)
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    with pytest.raises((CycloptsError, OncosegError, LookupError, ValueError, AssertionError)):
        understand(shlex.split(line))


@pytest.mark.parametrize("words", shown("make"))
def test_every_make_target_shown_exists(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in words:
        assert "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE)

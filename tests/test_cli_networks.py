"""`oncoseg networks`: which networks there are, and what each takes."""

import inspect
import sys

import pytest

from oncoseg.cli import main
from oncoseg.models import MODELS
from oncoseg.models.about import about

Capture = pytest.CaptureFixture[str]


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_list_has_every_network_and_what_it_is(capsys: Capture) -> None:
    assert main(["networks"]) == 0
    printed = capsys.readouterr().out
    for name in MODELS:
        (line,) = [line for line in printed.splitlines() if line.split()[:1] == [name]]
        assert about(name).title in line


@pytest.mark.parametrize("name", MODELS)
def test_every_argument_is_shown_with_its_meaning_although_monai_is_absent(
    name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("monai", "einops"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main(["networks", "show", name]) == 0
    printed = capsys.readouterr()
    takes = [p.name for p in inspect.signature(MODELS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [one.name for one in about(name).arguments] == [one for one in takes if one != "spatial_dims"]
    assert all(len(one.meaning.split()) >= 2 for one in about(name).arguments)
    for argument in about(name).arguments:
        assert f" {argument.name} " in printed.out
    assert "Source: " in printed.err
    assert f"--network.name {name} --network.arguments." in printed.out


def test_the_arguments_of_one_network_by_hand(capsys: Capture) -> None:
    assert main(["networks", "show", "unetr"]) == 0
    printed = capsys.readouterr()
    rows = {line.split()[0]: words(line) for line in printed.out.splitlines() if line.split()}
    assert rows["img_size"].startswith("img_size int | [int, …] 256 largest image that it will see")
    assert rows["dropout"] == "dropout float 0.0 probability, in the transformer."
    assert "spatial_dims" not in rows, "it follows preparation.spatial_dims"
    assert "UNETR (Hatamizadeh et al. 2022)" in printed.err
    assert main(["networks", "show", "attention-unet"]) == 0
    rows = {line.split()[0]: words(line) for line in capsys.readouterr().out.splitlines() if line.split()}
    assert rows["context"].startswith("context aspp | spp | none none atrous spatial")
    assert rows["attention"].startswith("attention true | false true False joins")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["networks", "shwo"], "did you mean `networks show`?"),
        (["networks", "segresnet"], "did you mean `networks show segresnet`?"),
        (["networks", "show", "segrsnet"], "did you mean 'segresnet'?"),
    ],
)
def test_what_there_is_not_is_one_sentence(command: list[str], message: str, capsys: Capture) -> None:
    assert main(command) == 2
    assert message in words(capsys.readouterr().err)


def test_the_help_of_training_says_where_the_arguments_are(capsys: Capture) -> None:
    assert main(["train", "unified-mri-ct", "--help"]) == 0
    assert "`oncoseg networks show` lists them" in words(capsys.readouterr().out.replace("│", " "))

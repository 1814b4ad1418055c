"""What a run remembers of how it came about: calls, versions, what was stated about the data, energy."""

import json
import platform
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import oncoseg
from oncoseg import hardware
from oncoseg.cli import main
from oncoseg.errors import DataError
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training import meter
from oncoseg.training.meter import Meter
from oncoseg.training.record import package_versions, revision
from oncoseg.training.sources import Sources
from runs import stopping_at
from tiny import tiny_recipe


def test_the_record_says_with_what_and_on_what_a_run_was_trained(whole: RunFolder) -> None:
    record = whole.record()
    (call,) = record["calls"]
    assert call["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert call["packages"]["numpy"] == np.__version__
    assert call["packages"]["oncoseg"] == oncoseg.__version__
    assert call["hardware"]["torch"] == torch.__version__
    assert call["precision"] == "32-true"
    assert call["processor_seconds"] > 0
    assert (call["energy_joules"] is None) == (call["energy_note"][:9] != "processor")
    assert record["seeds"] == {"split": 0, "training": 0}
    assert record["data"]["ct"]["fingerprint"] == whole.data()["ct"]["fingerprint"]
    assert record["data"]["ct"]["licence"] == record["data"]["mri"]["origin"] == "not stated"


def test_the_record_holds_no_path_and_no_name(whole: RunFolder, data: Mapping[str, Path]) -> None:
    text = (whole.path / "record.json").read_text()
    home = str(Path.home())
    for name in (str(whole.path), str(data["mri"].parent), str(Path(oncoseg.__file__).parent), home + "/"):
        assert name not in text


def test_no_name_and_no_content_of_a_run_folder_tells_machine_user_or_home(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(socket, "gethostname", lambda: "secret-host")
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME"):
        monkeypatch.setenv(name, "secret-name")
    monkeypatch.setenv("HOME", str(tmp_path / "secret-home"))
    out = tmp_path / "run"
    train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(4))
    resume(out, store=store, workers=0)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert [path for path in files if path.parent.name == "tensorboard"]
    for path in files:
        assert "secret" not in str(path.relative_to(out))
        assert b"secret" not in path.read_bytes(), path.name


def test_every_call_is_kept_with_where_it_started_and_why_it_ended(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # two steps of pretraining, then four in each of two epochs
    train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(3))
    resume(out, store=store, workers=0, monitor=stopping_at(3))
    resume(out, store=store, workers=0)
    calls = RunFolder(out).record()["calls"]

    def place(stage: str, epoch: int | None, steps: int) -> dict[str, object]:
        return {"stage": stage, "epoch": epoch, "steps_of_epoch": steps}

    assert [(call["from"], call["to"]) for call in calls] == [
        (place("pretrain", 1, 0), place("joint", 1, 1)),
        (place("joint", 1, 1), place("joint", 1, 4)),
        (place("joint", 1, 4), place("end", None, 0)),
    ]
    assert [call["ended"].split()[0] for call in calls] == ["SIGTERM", "SIGTERM", "all"]
    in_all = RunFolder(out).record()["in_all"]
    assert in_all["processor_seconds"] == pytest.approx(sum(call["processor_seconds"] for call in calls))


def test_a_call_that_was_killed_stays_in_the_record(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    def kill(status: object) -> None:
        if getattr(status, "stage", "") == "joint":
            raise LookupError  # nothing is written any more, as with kill -9

    out = tmp_path / "run"
    with pytest.raises(LookupError):
        train(tiny_recipe(), data, out, store=store, workers=0, monitor=kill)
    resume(out, store=store, workers=0)
    killed, last = RunFolder(out).record()["calls"]
    assert killed["ended"] is None
    assert killed["to"] == {"stage": "pretrain", "epoch": 2, "steps_of_epoch": 0}
    assert last["ended"] == "all epochs are done"


def test_going_on_in_another_number_format_or_on_another_device_is_told(
    data: Mapping[str, Path], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = tmp_path / "run", []
    recipe = tiny_recipe(training__precision="auto", training__max_epochs=1)
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: {"avx512f"})
    train(recipe, data, out, store=store, workers=0, monitor=stopping_at(2), warn=said.append)
    resume(out, store=store, workers=0, monitor=stopping_at(1), warn=said.append)
    assert said == []
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: {"avx512f", "amx_bf16"})
    monkeypatch.setattr(hardware, "_cpu_model", lambda: "another one")
    resume(out, store=store, workers=0, warn=said.append)
    (text,) = said
    assert "goes on otherwise than it was trained so far: precision bf16-mixed (before: 32-true)" in text
    assert ", processor another one (before: " in text
    assert "not be bit for bit" in text
    calls = RunFolder(out).record()["calls"]
    assert [call["remarks"] for call in calls] == [[], [], said]


def test_a_run_of_before_there_were_records_gets_one(
    data: Mapping[str, Path], store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(), data, out, store=store, workers=0, monitor=stopping_at(1))
    (out / "record.json").unlink()
    resume(out, store=store, workers=0)
    assert len(RunFolder(out).record()["calls"]) == 1


def test_licence_and_origin_are_kept_as_stated(data: Mapping[str, Path], store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = tiny_recipe(training__pretrain_epochs=0, training__max_epochs=1)
    said = {"licences": {"mri": "CC BY 4.0"}, "origins": {"mri": "doi:10.1000/1"}}
    train(recipe, Sources(data, **said), out, store=store, workers=0, monitor=stopping_at(1))
    resume(out, store=store, workers=0, licences={"ct": "CC0"})
    kept = RunFolder(out).record()["data"]
    assert (kept["mri"]["licence"], kept["mri"]["origin"]) == ("CC BY 4.0", "doi:10.1000/1")
    assert (kept["ct"]["licence"], kept["ct"]["origin"]) == ("CC0", "not stated")
    assert RunFolder(out).data()["ct"]["licence"] == "CC0"
    with pytest.raises(DataError, match=r"licence is stated for 'mr', .* did you mean 'mri'"):
        train(recipe, Sources(data, licences={"mr": "CC0"}), tmp_path / "b", store=store, workers=0)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("given", ["CC0", "mri=", "=CC0"])
def test_a_statement_needs_a_modality_and_a_text(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "unified-mri-ct", "--licence", given, "--out", "x"]) == 2
    assert "Expected --licence NAME=TEXT" in capsys.readouterr().err


def test_packages_that_are_not_there_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncoseg.training.record.PACKAGES", ("torch", "no-such-package"))
    assert set(package_versions()) == {"oncoseg", "torch"}


def test_the_revision_is_the_commit_of_the_code_itself(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    code, installed = tmp_path / "code", tmp_path / "installed"
    for folder in (code, installed):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    assert revision(code) is None, "no repository"
    git("init", "-q")
    git("add", "code")
    git("commit", "-q", "-m", "begin")
    assert revision(code) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    assert revision(installed) is None, "within another project's repository, but no part of it"
    (code / "__init__.py").write_text("changed")
    assert revision(code) == {"commit": git("rev-parse", "HEAD"), "changed": True}


def counter(rapl: Path, name: str, microjoules: int, largest: int = 1_000_000_000) -> Path:
    zone = rapl / name
    zone.mkdir(parents=True)
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{largest}\n")
    return zone / "energy_uj"


def test_energy_is_added_up_over_packages_and_when_a_counter_begins_again(tmp_path: Path) -> None:
    one = counter(tmp_path, "intel-rapl:0", 5_000_000)
    two = counter(tmp_path, "intel-rapl:1", 900_000_000)
    counter(tmp_path, "intel-rapl:0:0", 0)
    read = Meter(rapl=tmp_path).read
    one.write_text("7000000")
    two.write_text("100000000")  # 100 J up to the end of its range, and 100 J more
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("50000000")  # a part of the first
    assert read()["energy_joules"] == 202
    one.write_text("8000000")
    assert read()["energy_joules"] == 203


def test_a_budget_begun_before_counts_no_minutes_of_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [7200.0]
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    later = Meter(entered=3600.0, rapl=tmp_path)
    now[0] += 90
    assert (later.entered, later.read()["minutes"]) == (3600.0, 1.5)
    assert Meter(rapl=tmp_path).entered == 7290.0


def test_energy_that_cannot_be_measured_is_null_with_the_reason(tmp_path: Path) -> None:
    found = Meter(rapl=tmp_path / "nothing").read()
    assert found["energy_joules"] is None
    assert "no energy counter" in found["energy_note"]
    counter(tmp_path, "intel-rapl:0", 1).unlink()
    found = Meter(rapl=tmp_path).read()
    assert found["energy_joules"] is None
    assert "may not be read" in found["energy_note"]
    json.dumps(found)


def test_waiting_for_slices_is_told_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(meter.time, "monotonic", lambda: clock.now)
    counted = Meter()
    for _ in range(2):
        clock.now += 100
        with counted.waiting():
            clock.now += 20
    assert counted.read()["waiting_seconds"] == 40
    assert "17% of the time went by waiting" in str(counted.waited_in_words(240))
    assert counted.waited_in_words(401) is None  # less than a tenth
    short = Meter()
    with short.waiting():
        clock.now += 29
    assert short.waited_in_words(30) is None

import json
from pathlib import Path
from typing import Any

import pytest

from oncoseg import training_data
from oncoseg.errors import DataError
from tiny import tiny_data, tiny_recipe


def test_both_sides_are_prepared_and_the_test_set_is_not(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=5, ct=4)
    loaded = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0)
    assert [len(loaded.train["mri"]), len(loaded.validation["mri"])] == [3, 1]
    assert len(loaded.split["mri"]["test"]) == 1
    folders = [path for path in (tmp_path / "store").glob("*/*") if path.is_dir()]
    assert len(folders) == 4 + 3
    for name in data:
        used = {case.patient for case in [*loaded.train[name], *loaded.validation[name]]}
        assert used.isdisjoint(loaded.split[name]["test"])
        listed = {**loaded.split[name]["train"], **loaded.split[name]["validation"]}
        assert used == set(listed)


def test_the_record_says_what_was_used(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, mri=3, ct=3)
    for path in (tmp_path / "mri").glob("*/*_t2.nii.gz"):
        path.unlink()
    recipe = tiny_recipe(modalities__mri__missing="substitute")
    loaded = training_data.load(recipe, data, tmp_path / "store", workers=0)
    record = loaded.data["mri"]
    assert record["path"] == str(data["mri"].resolve())
    assert (record["layout"], record["cases"], record["patients"]) == ("brats", 3, 3)
    assert record["substituted_channels"] == {"T2": "FLAIR"}
    assert loaded.data["ct"]["substituted_channels"] == {}
    json.dumps(loaded.data)


def test_the_fingerprint_follows_the_images_and_not_their_place(tmp_path: Path) -> None:
    first = training_data.load(tiny_recipe(), tiny_data(tmp_path / "a", 3, 3), tmp_path / "store", workers=0)
    moved = training_data.load(tiny_recipe(), tiny_data(tmp_path / "b", 3, 3), tmp_path / "store", workers=0)
    more = training_data.load(tiny_recipe(), tiny_data(tmp_path / "c", 4, 3), tmp_path / "store", workers=0)
    prints = [[one.data[name]["fingerprint"] for name in ("mri", "ct")] for one in (first, moved, more)]
    assert prints[0] == prints[1]
    assert prints[2][0] != prints[0][0]
    assert prints[2][1] == prints[0][1]


def test_a_given_split_is_used(tmp_path: Path) -> None:
    data = tiny_data(tmp_path, 4, 4)
    store = tmp_path / "store"
    drawn = training_data.load(tiny_recipe(), data, store, workers=0)
    turned = {
        name: {"train": side["test"], "validation": side["validation"], "test": side["train"]}
        for name, side in drawn.split.items()
    }
    given = training_data.load(tiny_recipe(training__seed=5), data, store, split=turned, workers=0)
    assert given.split == turned
    assert [case.patient for case in given.train["mri"]] == list(turned["mri"]["train"])


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_split_with_nobody_on_a_side_is_refused(tmp_path: Path, part: str) -> None:
    data = tiny_data(tmp_path, 3, 3)
    drawn = training_data.load(tiny_recipe(), data, tmp_path / "store", workers=0).split
    with pytest.raises(DataError, match=f"no case under {part} for ct"):
        training_data.load(
            tiny_recipe(), data, tmp_path / "store", split=drawn | {"ct": drawn["ct"] | {part: {}}}, workers=0
        )
    with pytest.raises(DataError, match="no case under train for ct"):
        training_data.load(tiny_recipe(), data, tmp_path / "store", split={"mri": drawn["mri"]}, workers=0)


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"seed": 0}', '{"modalities": 3}', '{"modalities": [1]}']
)
def test_a_split_file_of_another_form_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=r"Cannot read the split .*expected a file like"):
        training_data.read_split(tmp_path / "split.json")


@pytest.mark.parametrize(
    "given", [{}, {"mri": "x"}, {"mri": "x", "ct": "y", "pet": "z"}, {"mr": "x", "ct": "y"}]
)
def test_one_folder_is_needed_for_each_modality(given: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"needs data for mri and ct; got .*--data mri=PATH --data ct=PATH"):
        training_data.check_modalities(tiny_recipe(), given)


def test_the_store_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert training_data.default_store() == tmp_path / "oncoseg" / "prepared"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert training_data.default_store() == tmp_path / ".cache" / "oncoseg" / "prepared"

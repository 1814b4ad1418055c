"""Whatever the settings and wherever it is stopped, a run ends as if it never had been."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from oncoseg.losses import LOSSES
from oncoseg.run_folder import RunFolder
from oncoseg.train import resume, train
from oncoseg.training.optimisers import OPTIMISERS
from oncoseg.training.schedules import SCHEDULES
from runs import assert_same, stopping_at
from tiny import tiny_recipe

EXAMPLES = 4
"""Each is two trainings; raise it for a search that takes longer."""

one_of = st.sampled_from
CHANGES = st.fixed_dictionaries(
    {
        "training__optimiser__name": one_of(sorted(OPTIMISERS)),
        "training__schedule__name": one_of(sorted(SCHEDULES)),
        "modalities__mri__loss__name": one_of(sorted(LOSSES)),
        "modalities__ct__loss__name": one_of(sorted(LOSSES)),
        "training__pretrain_epochs": one_of([0, 1]),
        "training__max_epochs": one_of([1, 2]),
        "training__batch_size": one_of([3, 4, 5]),
        "training__accumulate": one_of([1, 2, 3]),
        "training__tumour_share": one_of([None, 0.3, 0.5]),
        "training__average_decay": one_of([None, 0.9]),
        "training__patience": one_of([None, 1]),
        "training__clip_norm": one_of([None, 0.5]),
        "training__precision": one_of(["32-true", "bf16-mixed"]),
        "training__extensions": one_of([[], [1]]),
        "training__seed": st.integers(0, 99),
        "augmentation__crop": one_of([None, [12, 8]]),
        "network__arguments__deep_supervision": st.booleans(),
        "network__arguments__features": one_of([[4, 8], [4, 4, 8]]),
    }
)
STOPS = st.lists(st.integers(1, 8), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


# an example that fails is not made smaller: that would train a hundred times more
@settings(max_examples=EXAMPLES, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(changes=CHANGES, stops=STOPS)
def test_any_run_goes_on_as_if_it_never_was_stopped(
    data: Mapping[str, Path], store: Path, out: Path, changes: dict[str, Any], stops: list[int]
) -> None:
    recipe, whole, stopped = tiny_recipe(**changes), RunFolder(out / "whole"), RunFolder(out / "stopped")
    for run in (whole, stopped):
        shutil.rmtree(run.path, ignore_errors=True)
    train(recipe, data, whole.path, store=store, workers=0)
    outcome = train(recipe, data, stopped.path, store=store, workers=0, monitor=stopping_at(stops[0]))
    for step in stops[1:]:
        outcome = resume(stopped.path, store=store, workers=0, monitor=stopping_at(step))
    assert outcome.finished or resume(stopped.path, store=store, workers=0).finished
    assert_same(stopped, whole)

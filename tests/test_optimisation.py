"""Optimisers, schedules and averaged weights, against numbers computed by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from oncoseg.errors import RecipeError
from oncoseg.training import optimisers, schedules
from oncoseg.training.averages import AverageWeights


def weight(value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value]))


def moved(
    name: str, arguments: dict[str, float], decay: float = 0.0, gradients: tuple[float, ...] = (2.0,)
) -> float:
    """Where the weight 1 goes with these gradients and a rate of 0.1."""
    parameter = weight()
    optimiser = optimisers.build(name, [parameter], 0.1, decay, arguments)
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient])
        optimiser.step()
    return parameter.item()


@pytest.mark.parametrize(
    ("name", "arguments", "decay", "gradients", "expected"),
    [
        ("sgd", {"momentum": 0.0}, 0.0, (2.0,), 1 - 0.2),
        ("sgd", {"momentum": 0.0}, 0.5, (2.0,), 1 - 0.1 * 2.5),
        # Nesterov: gradient + momentum · velocity; first 2 + 0.5·2 = 3, then velocity 0.5·2 + 4 = 5: 4 + 2.5
        ("sgd", {"momentum": 0.5}, 0.0, (2.0, 4.0), 1 - 0.1 * (3 + 6.5)),
        ("adam", {}, 0.0, (2.0,), 1 - 0.1),  # the first step is the rate, whatever the gradient
        ("adamw", {}, 0.0, (2.0,), 1 - 0.1),
        ("adamw", {}, 0.5, (2.0,), 1 * (1 - 0.1 * 0.5) - 0.1),
        ("adam", {"beta1": 0.0, "beta2": 0.0}, 0.0, (2.0, -5.0), 1 - 0.1 + 0.1),
    ],
)
def test_steps_by_hand(
    name: str, arguments: dict[str, float], decay: float, gradients: tuple[float, ...], expected: float
) -> None:
    assert moved(name, arguments, decay, gradients) == pytest.approx(expected, rel=1e-6)


def rates(
    name: str, steps: int, arguments: dict[str, float], scores: dict[int, float] | None = None
) -> list[float]:
    """The rate before each step and after the last; `scores` are of the epochs that end after a step."""
    optimiser = torch.optim.SGD([weight()], lr=1.0)
    schedule, found = schedules.build(name, optimiser, steps, arguments), []
    for step in range(steps):
        found.append(schedule.rate)
        optimiser.step()
        schedule.after_step()
        if scores is not None:
            schedule.after_epoch(scores[step])
    return [*found, schedule.rate]


def test_schedules_by_hand() -> None:
    assert rates("constant", 3, {}) == [1, 1, 1, 1]
    assert rates("polynomial", 4, {"power": 2.0}) == pytest.approx([1, 9 / 16, 1 / 4, 1 / 16, 0])
    wave = [(1 + math.cos(math.pi * step / 5)) / 2 for step in range(5)]
    assert rates("cosine", 4, {}) == pytest.approx(wave)
    lifted = [0.1 + 0.9 * height for height in wave]
    assert rates("cosine", 9, {"cycles": 2, "lowest_share": 0.1}) == pytest.approx(lifted * 2)
    # nine rates, the third of which is the peak: up from 1/25 in 2 steps, down to 1/250000 in 6
    up, down = (1 - 1 / 25) / 2, (1 - 1 / 250_000) / 6
    expected = [1 / 25, 1 / 25 + up, *(1 - down * step for step in range(7))]
    one_cycle = rates("one-cycle", 8, {"warmup_share": 1 / 3})
    assert one_cycle == pytest.approx(expected)


def test_a_plateau_is_so_many_epochs_without_a_better_score() -> None:
    scores = dict(enumerate([0.1, 0.2, 0.2, 0.1, math.nan, 0.3, 0.3, 0.3]))
    found = rates("plateau", 8, {"factor": 0.5, "patience": 1, "lowest_rate": 0.3}, scores)
    # worse twice in a row after the best at step 1: halved after step 3; again after 7, to the lowest
    assert found == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.3]


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_a_schedule_goes_on_where_its_state_was_taken(name: str) -> None:
    def made() -> tuple[torch.optim.Optimizer, schedules.Schedule]:
        optimiser = torch.optim.SGD([weight()], lr=1.0, momentum=0.9)
        return optimiser, schedules.build(name, optimiser, 10, {})

    def go(optimiser: torch.optim.Optimizer, schedule: schedules.Schedule, steps: int) -> list[float]:
        seen = []
        for _ in range(steps):
            optimiser.step()
            schedule.after_step()
            schedule.after_epoch(0.5)
            seen.append(schedule.rate)
        return seen

    whole = go(*made(), 10)
    optimiser, schedule = made()
    begun = go(optimiser, schedule, 4)
    other, later = made()
    other.load_state_dict(optimiser.state_dict())
    later.restore(schedule.state())
    assert begun + go(other, later, 6) == whole


@pytest.mark.parametrize(
    ("build", "name", "arguments", "message"),
    [
        (optimisers.build, "sdg", {}, "Unknown optimiser 'sdg'; did you mean 'sgd'"),
        (optimisers.build, "sgd", {"momentun": 0.9}, "takes no argument 'momentun'; did you mean 'momentum'"),
        (optimisers.build, "adam", {"beta1": 2.0}, "does not take .*: expected a beta1 of .* below 1, got 2"),
        (optimisers.build, "adamw", {"beta2": 1.0}, "expected a beta2 of at least 0 and below 1, got 1"),
        (optimisers.build, "sgd", {"momentum": 1.5}, "a momentum of at least 0 and below 1, got 1.5"),
        (schedules.build, "polynomial", {"power": -2}, "expected a power of 0 or more, got -2"),
        (schedules.build, "plateau", {"factor": 1.5}, r"a factor between 0 and 1, got 1.5\.$"),
        (schedules.build, "plateau", {"lowest_rate": -1}, "a lowest_rate of 0 or more, got -1"),
        (schedules.build, "cosine", {"lowest_share": 2}, "a lowest_share between 0 and 1, got 2"),
        (schedules.build, "cosin", {}, "Unknown schedule 'cosin'; did you mean 'cosine'"),
        (
            schedules.build,
            "cosine",
            {"cycles": 1.5},
            "expected a whole number of cycles",
        ),
        (schedules.build, "one-cycle", {"warmup_share": 1.0}, "expected warmup_share between 0 and 1"),
        (schedules.build, "constant", {"power": 1.0}, "takes no argument 'power'"),
    ],
)
def test_what_cannot_be_is_explained(
    build: Any, name: str, arguments: dict[str, float], message: str
) -> None:
    given = ([weight()], 0.1, 0.0) if build is optimisers.build else (torch.optim.SGD([weight()], lr=1.0), 5)
    with pytest.raises(RecipeError, match=message):
        build(name, *given, arguments)


def test_averages_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    put = lambda value: nn.init.constant_(network.weight, value)  # noqa: E731
    put(0.0)
    average = AverageWeights(network, 0.15)
    put(10.0)
    average.after_step(network)  # decay min(0.15, 1/10): 0.1·0 + 0.9·10
    put(20.0)
    average.after_step(network)  # decay min(0.15, 2/11): 0.15·9 + 0.85·20
    with average.in_place(network):
        assert network.weight.item() == pytest.approx(0.15 * 9 + 0.85 * 20)
    assert network.weight.item() == 20.0


def test_averages_go_on_and_count_only_numbers_that_can_be_averaged() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = AverageWeights(network, 0.9)
    network(torch.randn(4, 2))
    average.after_step(network)
    other = AverageWeights(network, 0.9)
    other.restore(average.state())
    with other.in_place(network):
        assert network[1].num_batches_tracked == 1
        assert (network[1].running_mean != 0).all()
    with pytest.raises(ValueError, match="another network"):
        other.restore({"values": {}, "steps": 0})

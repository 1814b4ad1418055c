"""Optimisers, schedules and averaged weights, against numbers computed by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from oncoseg.errors import RecipeError
from oncoseg.training import optimisers, schedules
from oncoseg.training.averages import AverageWeights
from oncoseg.training.choices import optimiser_of, schedule_of
from tiny import tiny_recipe


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
    assert rates("cosine", 4, {}) == pytest.approx(
        [1, 3 / 4, 1 / 4, 0, 0]
    )  # (1 + cos 0°, 60°, 120°, 180°) / 2
    assert rates("cosine", 5, {"lowest_share": 0.2}) == pytest.approx(
        [0.2 + 0.8 * wave for wave in (1, (2 + math.sqrt(2)) / 4, 1 / 2, (2 - math.sqrt(2)) / 4, 0, 0)]
    )
    # 3 and 2 steps; the last is repeated after the end
    assert rates("cosine", 5, {"cycles": 2}) == pytest.approx([1, 1 / 2, 0, 1, 0, 0])
    assert rates("cosine", 1, {}) == [1, 1]
    # nine rates, the third of which is the peak: up from 1/25 in 2 steps, down to 1/250000 in 6
    up, down = (1 - 1 / 25) / 2, (1 - 1 / 250_000) / 6
    expected = [1 / 25, 1 / 25 + up, *(1 - down * step for step in range(7))]
    one_cycle = rates("one-cycle", 8, {"warmup_share": 1 / 3})
    assert one_cycle == pytest.approx(expected)


@pytest.mark.parametrize(("cycles", "steps"), [(1, 2), (1, 97), (2, 4), (3, 10), (5, 99)])
def test_every_wave_of_the_cosine_reaches_its_lowest_rate(cycles: int, steps: int) -> None:
    found = rates("cosine", steps, {"cycles": cycles, "lowest_share": 0.25})[:-1]
    assert found[-1] == min(found) == 0.25
    assert found.count(0.25) == found.count(1.0) == cycles
    tops = [step for step, rate in enumerate(found) if rate == 1.0]
    lengths = {end - begin for begin, end in zip(tops, [*tops[1:], steps], strict=True)}
    assert lengths <= {steps // cycles, -(-steps // cycles)}


def test_a_cosine_begun_by_an_older_version_goes_on_at_its_step() -> None:
    optimiser = torch.optim.SGD([weight()], lr=1.0)
    older = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, T_0=5)
    for _ in range(2):
        optimiser.step()
        older.step()
    other = torch.optim.SGD([weight()], lr=1.0)
    schedule = schedules.build("cosine", other, 4, {})
    other.load_state_dict(optimiser.state_dict())
    schedule.restore(older.state_dict())
    other.step()
    schedule.after_step()
    assert schedule.rate == 0


def test_a_last_step_of_one_cycle_is_one_before_the_lowest() -> None:
    """As documented: published runs were laid out so."""
    *_, before, last, after = rates("one-cycle", 100, {})
    assert after == pytest.approx(1 / 250_000)
    assert last - after == pytest.approx(before - last)


def momenta(optimiser: str, arguments: dict[str, float], schedule: str = "one-cycle") -> list[float]:
    """Momentum or beta1 at each of eight steps."""
    recipe = tiny_recipe(
        training__optimiser={"name": optimiser, "arguments": arguments},
        training__schedule={"name": schedule, "arguments": {}},
    )
    made = optimiser_of(recipe, [weight()])
    going, found = schedule_of(recipe, made, 8), []
    for _ in range(8):
        group = made.param_groups[0]
        found.append(group["momentum"] if "momentum" in group else group["betas"][0])
        made.step()
        going.after_step()
    return found


@pytest.mark.parametrize(
    ("optimiser", "arguments"),
    [
        ("sgd", {"momentum": 0.0}),
        ("sgd", {"momentum": 0.99}),
        ("adam", {"beta1": 0.5}),
        ("adamw", {"beta1": 0.9, "beta2": 0.99}),
    ],
)
def test_a_momentum_that_is_chosen_is_kept_by_one_cycle(optimiser: str, arguments: dict[str, float]) -> None:
    assert momenta(optimiser, arguments) == [next(iter(arguments.values()))] * 8


@pytest.mark.parametrize(("optimiser", "arguments"), [("sgd", {}), ("adamw", {}), ("adam", {"beta2": 0.9})])
def test_one_cycle_moves_the_momentum_against_the_rate(optimiser: str, arguments: dict[str, float]) -> None:
    # nine places, of which 0.3 · 9 − 1 = 1.7 lead up to the peak: 0.95 down to 0.85, up again in 6.3
    expected = [0.95, 0.95 - 0.1 / 1.7, *(0.85 + 0.1 * (step - 1.7) / 6.3 for step in range(2, 8))]
    assert momenta(optimiser, arguments) == pytest.approx(expected)
    assert momenta(optimiser, arguments, "cosine") == [0.99 if optimiser == "sgd" else 0.9] * 8


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
        (
            schedules.build,
            "plateau",
            {"lowest_rate": -1},
            "lowest_rate from 0 to the learning rate .* got -1",
        ),
        (schedules.build, "cosine", {"lowest_share": 2}, "expected lowest_share from 0 to 1, got 2"),
        (schedules.build, "cosin", {}, "Unknown schedule 'cosin'; did you mean 'cosine'"),
        (
            schedules.build,
            "cosine",
            {"cycles": 1.5},
            "expected a whole number of cycles",
        ),
        (schedules.build, "cosine", {"cycles": 0}, "expected a whole number of cycles"),
        (schedules.build, "cosine", {"cycles": 50}, "for each cycle in every stage, got 50 cycles for 5"),
        (schedules.build, "cosine", {"cycles": 3}, "for each cycle in every stage, got 3 cycles for 5"),
        (schedules.build, "cosine", {"lowest_share": 1.5}, "expected lowest_share from 0 to 1, got 1.5"),
        (schedules.build, "plateau", {"patience": 2.9}, "whole number of epochs as patience, got 2.9"),
        (schedules.build, "plateau", {"patience": -1}, "whole number of epochs as patience, got -1"),
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

"""What both training loops share: the running mean of the weights, and checkpoints that a training goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from scripts.pocket.training import Budget, Mismatch, Training, first_checkpoint, load_checkpoint, load_mean, save


def start(path: Path, minutes: float = 1.0) -> Training:
    """A training of one weight, which goes on from `path` when it is there."""
    model = nn.Linear(1, 1, bias=False)
    state = load_checkpoint(path)
    if state:
        model.load_state_dict(state["model"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Training(path, model, [optimizer], Budget(minutes, 60, "cpu", 0), 0.9, state, {"scaling": 2.0})


def weight(training: Training) -> float:
    return float(next(training.model.parameters()).detach())


def step(training: Training) -> None:
    """Descend by the learning rate, .5."""
    training.update(next(training.model.parameters()).sum(), 0.5)


def test_a_training_goes_on_with_weights_mean_time_and_facts(tmp_path: Path) -> None:
    first = start(tmp_path / "net.pt")
    before = weight(first)
    for _ in range(3):
        step(first)
    assert weight(first) == pytest.approx(before - 1.5, abs=1e-4)
    first.save()
    again = start(tmp_path / "net.pt")
    assert (weight(again), again.step, again.seconds) == (weight(first), 3, first.seconds)
    state = load_checkpoint(tmp_path / "net.pt")
    assert state is not None
    assert state["scaling"] == 2.0
    step(first)
    step(again)
    with first.averaged(), again.averaged():
        assert weight(again) == pytest.approx(weight(first))


def test_the_mean_is_between_the_steps_and_the_weights_come_back(tmp_path: Path) -> None:
    training = start(tmp_path / "net.pt")
    for _ in range(20):
        step(training)
    now = weight(training)
    with training.averaged():
        mean = weight(training)
        assert now + 0.5 < mean < now + 9.5
    assert weight(training) == now
    training.save()
    loaded = nn.Linear(1, 1, bias=False)
    state = load_checkpoint(tmp_path / "net.pt")
    assert state is not None
    load_mean(loaded, state)
    assert float(loaded.weight.detach()) == pytest.approx(mean)


def test_no_time_is_no_training_and_a_checkpoint_is_due_at_the_end(tmp_path: Path) -> None:
    assert start(tmp_path / "net.pt", minutes=0).progress == 1
    training = start(tmp_path / "net.pt", minutes=1)
    assert not training.due
    training.seconds = 60
    assert training.due


def test_a_checkpoint_of_an_older_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    assert load_checkpoint(path) is None
    model = nn.Linear(1, 1)
    save(path, first_checkpoint(model))
    assert load_checkpoint(path) is not None
    save(path, {**first_checkpoint(model), "ema": model.state_dict()})
    with pytest.raises(Mismatch, match=r"net\.pt is of an older version"):
        load_checkpoint(path)

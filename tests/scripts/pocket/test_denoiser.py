"""What the denoiser's training rests on: a grown network that begins as the one it was, and Muon's update."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTokenizer

from scripts.pocket.conditions import PHRASES
from scripts.pocket.export import load_exported, load_kept
from scripts.pocket.lessons import FEW, Denoiser, Lessons, doubted, misread
from scripts.pocket.marks import LIGHTS
from scripts.pocket.model import LATENT_CHANNELS, TEXT_WIDTH, build_unet, grown
from scripts.pocket.muon import Muon
from scripts.pocket.pairs import SEEN, Pair
from scripts.pocket.training import Mismatch

SHIPPED = Path(__file__).resolve().parents[3] / "diffgen/models/pocket"


def test_new_layers_start_as_the_identity() -> None:
    torch.manual_seed(0)
    larger = build_unet()
    before = larger.config.layers_per_block
    fewer = tuple(min(1, layers) for layers in before)
    assert sum(before) > sum(fewer), "there is something to grow"
    smaller = UNet2DConditionModel.from_config({**larger.config, "layers_per_block": fewer})
    larger.load_state_dict(grown(smaller.state_dict(), larger))
    inputs = torch.randn(1, smaller.config.in_channels, 16, 24), torch.tensor([999]), torch.randn(1, 5, TEXT_WIDTH)
    with torch.no_grad():
        small, large = smaller(*inputs).sample, larger(*inputs).sample
    assert float((small - large).abs().max()) < 1e-4 * float(small.abs().max())


def test_weights_of_the_same_shape_stay_as_they_are() -> None:
    unet = build_unet()
    state = unet.state_dict()
    same = grown(state, unet)
    assert list(same) == list(state)
    assert all(torch.equal(same[name], state[name]) for name in state)


def test_an_update_has_all_its_singular_values_near_one() -> None:
    torch.manual_seed(0)
    start = torch.randn(24, 8, 3, 3)
    weight = torch.nn.Parameter(start.clone())
    tall = torch.nn.Parameter(torch.zeros(40, 24))
    # One strong direction: plain descent would move along it alone.
    weight.grad = (torch.randn(24, 1) @ torch.randn(1, 72) + 0.05 * torch.randn(24, 72)).view_as(start)
    tall.grad = torch.randn(40, 24)
    Muon([weight, tall], lr=0.1, weight_decay=0).step()
    for moved, side in (((start - weight.detach()).flatten(1), 72), (-tall.detach(), 40)):
        values = torch.linalg.svdvals(moved) / (0.1 * 0.2 * side**0.5)
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.3


def test_it_finds_the_minimum() -> None:
    torch.manual_seed(0)
    goal, weight = torch.randn(12, 20), torch.nn.Parameter(torch.zeros(12, 20))
    optimizer = Muon([weight], lr=0.2, weight_decay=0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        optimizer.zero_grad()
        (weight - goal).square().mean().backward()
        optimizer.step()
    assert float((weight - goal).abs().mean()) < 0.05 * float(goal.abs().mean())


def test_lights_that_are_missed_cost_much_though_few_cells_have_one() -> None:
    shown = torch.zeros(2, len(SEEN), 20, 20)
    lamps = shown[:, len(SEEN) - len(LIGHTS) :]
    lamps[:, :, 4:6, 4:8] = 1
    logits = torch.full_like(shown, -3.0)
    found = logits.clone()
    found[:, len(SEEN) - len(LIGHTS) :][lamps > 0] = 3.0
    scene, missed = misread(logits, shown)
    assert scene == misread(found, shown)[0], "the scene's parts are counted apart"
    cells = 16  # of a kind in the batch
    assert float(missed - misread(found, shown)[1]) == pytest.approx(3 * cells / (cells + FEW), rel=0.01)


def test_where_a_light_may_be_is_doubted_and_a_cell_round_it() -> None:
    logits = torch.full((1, len(SEEN), 10, 12), -9.0, requires_grad=True)
    with torch.no_grad():
        logits[0, 0] = 9.0  # sky is no light
        logits[0, -1, 4, 6] = 9.0
    doubt = doubted(logits)
    assert doubt.shape == (1, 1, 20, 24)
    assert not doubt.requires_grad, "the weight of an error must not teach to find nothing"
    assert float(doubt[0, 0, 8:10, 12:14].min()) > 0.99
    assert float(doubt[0, 0, 6, 10]) > 0.5
    assert float(doubt[0, 0, :4].max()) < 0.01


def test_a_look_gives_what_painting_reads_beside_it() -> None:
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(SHIPPED / "tokenizer")
    denoiser = Denoiser(tokenizer)
    noisy, source = torch.randn(2, 1, LATENT_CHANNELS, 16, 24)
    ids = tokenizer(["make it night"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        answer, seen = denoiser(noisy, source, torch.tensor([999]), ids)
        looked = denoiser.look(noisy, source, torch.tensor([999]), ids)
        again, _ = denoiser(noisy, source, torch.tensor([999]), ids)
    assert torch.equal(looked, seen)
    assert torch.equal(again, answer), "a look stops the UNet, painting does not"


def test_conditions_that_are_not_taught_are_to_stay_as_the_kept_model_paints_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is to be learned where the model that is trained is the kept one; with other weights there is."""
    torch.manual_seed(0)
    monkeypatch.setattr("scripts.pocket.lessons.LAST_STEPS", (999,) * 4)
    pipe, kept = load_exported(SHIPPED)
    source, target = torch.randn(2, LATENT_CHANNELS, 16, 16).half() * 0.5
    noise, mask, maps = torch.randn(2, 16, 16).half(), torch.zeros(1, 16, 16), torch.zeros(len(SEEN), 8, 8)
    pairs = [Pair(name, 50, source, target, noise, mask, maps) for name in ("night", "rain", "night/unlit")]
    pool = SimpleNamespace(add=lambda _rng: None, batch=lambda *_: pairs, kept=lambda name: name != "rain")
    presets: dict[str, list[str]] = {name: [] for name in PHRASES}

    def errors(model: Denoiser, keep: Denoiser | None) -> dict[str, float]:
        weight = torch.ones(LATENT_CHANNELS)
        lessons = Lessons(model, pipe.vae, pool, pipe.tokenizer, presets, 1.0, weight, False, keep)
        lessons.paint(np.random.default_rng(0))
        return {name: values[0] for name, values in lessons.losses.items() if name[0] != "("}

    alike = errors(copy.deepcopy(kept), kept)
    assert alike["rain"] > 0.1
    assert alike["night"] == pytest.approx(0, abs=1e-4)
    assert alike["night/unlit"] == pytest.approx(0, abs=1e-4)
    other = copy.deepcopy(kept)
    with torch.no_grad():
        other.unet.conv_out.bias += 0.5
    assert errors(other, kept)["night"] > 0.1
    assert errors(copy.deepcopy(kept), None)["night"] > 0.1, "without one, the target of the pair counts"


def test_a_kept_model_has_the_same_latents() -> None:
    pipe, _ = load_exported(SHIPPED)
    scaling = pipe.vae.config.scaling_factor
    assert not any(p.requires_grad for p in load_kept(SHIPPED, scaling, pipe.tokenizer).parameters())
    with pytest.raises(Mismatch, match="latents"):
        load_kept(SHIPPED, 2 * scaling, pipe.tokenizer)

"""What every editor promises, on each family of pipeline."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from diffgen.dataset.geometry import View
from diffgen.editing.editor import EditBatch
from diffgen.editing.pipelines.prompts import Prompts
from diffgen.errors import NotFinite, OutOfMemory, UsageError
from diffgen.models.pipelines import SPECS
from tests.editing.tiny_models import Calls, denoiser, job, picture, settings

pytestmark = pytest.mark.editors

FAMILY = {
    **dict.fromkeys(("sd", "sdxl", "lcm", "sd3", "flux", "schnell", "zimage"), "img2img"),
    **dict.fromkeys(
        ("ip2p", "xl_ip2p", "pocket_like", "cosxl", "kontext", "klein", "klein_base", "qwen_plus", "longcat"),
        "instruct",
    ),
}
VARIANTS = ("schnell", "klein_base")  # which differ from flux and klein in guidance only
MODELS = tuple(name for name in FAMILY if name not in VARIANTS)
FLOW = {"sd3", "flux", "schnell", "zimage", "kontext", "klein", "klein_base", "qwen_plus", "longcat"}  # sides in 16 px
ONE_BY_ONE = {"qwen_plus", "longcat"}  # one picture a call, whose prompt is read with it
ONE_PASS = {"lcm", "flux", "schnell", "kontext", "klein"}  # guidance is a number that the model reads, or nothing
PIX2PIX = {"ip2p", "xl_ip2p", "pocket_like", "cosxl"}


CLASS = {
    "sd": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline", "lcm": "LatentConsistencyModelPipeline",
    "sd3": "StableDiffusion3Pipeline", "flux": "FluxPipeline", "zimage": "ZImagePipeline",
    "ip2p": "StableDiffusionInstructPix2PixPipeline", "xl_ip2p": "StableDiffusionXLInstructPix2PixPipeline",
    "pocket_like": "StableDiffusionInstructPix2PixPipeline", "cosxl": "StableDiffusionXLInstructPix2PixPipeline",
    "kontext": "FluxKontextPipeline", "klein": "Flux2KleinPipeline", "qwen_plus": "QwenImageEditPlusPipeline",
    "longcat": "LongCatImageEditPipeline",
}  # fmt: skip


def differing(*fields: str) -> list[str]:
    """The first model for each value that these fields of a PipelineSpec have: what depends on nothing else is tested on
    those. What every pipeline does by its own code (geometry, batches, seeds, guidance) is tested on all of MODELS."""
    first: dict[Any, str] = {}
    for name in MODELS:
        first.setdefault(repr([getattr(SPECS[CLASS[name]], field) for field in fields]), name)
    return list(first.values())


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def editor(model: str, load: Any, request: pytest.FixtureRequest) -> Any:
    return load(request.getfixturevalue(model))


def asked(model: str, **changes: Any) -> Any:
    own = {"pocket_like": {"severity": "{prompt} {percent}"}, "lcm": {"scheduler": "lcm"}}.get(model, {})
    return settings(FAMILY[model], **(own | changes))


def one(editor: Any, wanted: Any, image: Any, **changes: Any) -> np.ndarray:
    return editor.edit(EditBatch([image], [job(wanted, **changes)]))[0].image


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (8, 128), (72, 40)])
def test_size_out_is_size_in(editor: Any, model: str, height: int, width: int) -> None:
    unit = 16 if model in FLOW else 8
    image = picture(0, -(-height // unit) * unit, -(-width // unit) * unit)
    made = one(editor, asked(model), image)
    assert made.shape == image.shape
    assert made.dtype == np.uint8


def clear_vae(monkeypatch: pytest.MonkeyPatch, editor: Any) -> None:
    """An autoencoder that shows what its latents hold: each cell's mean colour, in three of its channels."""
    import torch

    codec = editor._codec
    channels = codec.encode([picture(0)]).shape[1]

    def coded(pixels: Any) -> Any:
        cells = torch.nn.functional.avg_pool2d(pixels, codec.factor)
        return torch.nn.functional.pad(cells, (0, 0, 0, 0, 0, channels - 3))

    monkeypatch.setattr(codec, "coded", coded)
    monkeypatch.setattr(codec, "pixels", lambda z: torch.nn.functional.interpolate(z[:, :3], scale_factor=codec.factor))


@pytest.mark.parametrize("strength", [0.0, 0.02])
def test_what_is_in_a_place_stays_there(
    model: str, strength: float, load: Any, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registration: a pattern of black and white cells comes out where it went in."""
    editor = load(request.getfixturevalue(model), fresh=True)
    clear_vae(monkeypatch, editor)
    cell = editor._codec.factor
    rows, columns = 48 // cell, 80 // cell
    pattern = np.random.default_rng(1).integers(0, 2, (rows, columns))
    image = np.repeat(np.repeat(pattern, cell, 0), cell, 1)[..., None].repeat(3, 2).astype(np.uint8) * 255
    if model == "pocket_like":
        strength /= 5  # above, the picture is the model's own
    # the schedule of EDM begins at its end when it has one step
    made = one(editor, asked(model, strength=strength, steps=2 if model == "cosxl" else 1), image)
    if strength == 0:
        assert np.abs(made.astype(int) - image).max() <= 1
    seen = made.mean(2).reshape(rows, cell, columns, cell).mean((1, 3))
    likeness = [
        [(np.roll(pattern - pattern.mean(), (y, x), (0, 1)) * (seen - seen.mean())).sum() for x in range(columns)]
        for y in range(rows)
    ]
    assert np.argmax(likeness) == 0


def test_a_batch_of_different_sources_equals_singles(editor: Any, model: str) -> None:
    wanted = asked(model, guidance=3.0, image_guidance=1.5 if FAMILY[model] == "instruct" else None)
    images = [picture(i) for i in range(3)]
    jobs = [
        job(wanted, seed=i, prompt=p, negative=n) for i, p, n in [(1, "snow", "sun"), (2, "fog", None), (3, "", "")]
    ]
    together = [e.image for e in editor.edit(EditBatch(images, jobs))]
    alone = [editor.edit(EditBatch([i], [j]))[0].image for i, j in zip(images, jobs, strict=True)]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
    assert not np.array_equal(together[0], together[1])


def test_rows_do_not_depend_on_their_order(editor: Any, model: str) -> None:
    wanted = asked(model)
    images, jobs = [picture(i) for i in range(3)], [job(wanted, seed=i) for i in range(3)]
    forward = [e.image for e in editor.edit(EditBatch(images, jobs))]
    backward = [e.image for e in editor.edit(EditBatch(images[::-1], jobs[::-1]))][::-1]
    # With AVX-512 torch computes the last values of a tensor by another kernel than those before, so the last row may differ
    # in the last bit (seen with the tiny SD 3); a run keeps the order of its batches, so it does not meet this.
    import torch

    most = int(model == "sd3" and torch.backends.cpu.get_cpu_capability() == "AVX512")
    assert all(np.abs(a.astype(int) - b).max() <= most for a, b in zip(forward, backward, strict=True))


def test_a_tile_gets_its_part_of_the_whole_picture_s_noise(editor: Any, model: str) -> None:
    wanted, image = asked(model, strength=1.0, steps=2), picture(0, 48, 64)
    jobs = [job(wanted)]
    alone = editor.edit(EditBatch([image], jobs))[0].image
    assert np.array_equal(alone, editor.edit(EditBatch([image], jobs, None, [View(0, 0, (64, 48))]))[0].image)
    corner, below = (editor.edit(EditBatch([image], jobs, None, [View(64, y, (128, 112))]))[0].image for y in (0, 64))
    assert not np.array_equal(corner, alone)
    assert not np.array_equal(corner, below)


def test_same_seed_same_bytes_other_seed_other_image(editor: Any, model: str) -> None:
    wanted, image = asked(model, strength=1.0), picture(0)
    first = one(editor, wanted, image, seed=1)
    assert np.array_equal(first, one(editor, wanted, image, seed=1))
    assert not np.array_equal(first, one(editor, wanted, image, seed=2))


def test_remembered_sources_and_prompts_do_not_change_bytes(model: str, load: Any, request: Any) -> None:
    # a resumed run starts with nothing remembered
    folder, wanted = request.getfixturevalue(model), asked(model)
    images, jobs = [picture(i) for i in range(2)], [job(wanted, seed=i) for i in range(2)]
    long_running = load(folder, fresh=True)
    long_running.edit(EditBatch([picture(0), picture(5), picture(6)], [job(wanted, seed=i) for i in range(3)]))
    long_running.edit(EditBatch([picture(0)], [job(wanted)]))
    used = long_running.edit(EditBatch(images, jobs))
    new = load(folder, fresh=True).edit(EditBatch(images, jobs))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(used, new, strict=True))


def test_strength_0_is_the_round_trip_of_the_vae_and_runs_no_step(
    editor: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    images = [picture(0), picture(1)]
    unet = Calls(monkeypatch, denoiser(editor), "forward")
    made = editor.edit(EditBatch(images, [job(asked(model, strength=0.0), seed=i) for i in range(2)]))
    assert unet.rows == []
    assert [e.strength for e in made] == [0.0, 0.0]
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
        shown = editor._codec.pixels(editor._codec.coded(pixels))
        back = ((shown + 1) * 127.5).clamp(0, 255).round().permute(0, 2, 3, 1).byte().numpy()
    for out, wanted in zip(made, back, strict=True):
        assert np.abs(out.image.astype(int) - wanted).max() <= 1


class Gaussian:
    """An exact denoiser in place of random weights: data around `mean`, so that it pulls every sample there."""

    def __init__(self, pipe: Any, mean: float = 3.0, variance: float = 0.1) -> None:
        self._alphas, self._mean, self._variance = pipe.scheduler.alphas_cumprod, mean, variance

    def __call__(self, sample: Any, timestep: Any, **_: Any) -> Any:
        sample = sample[:, :4]  # instruct models get the source behind
        alpha = self._alphas[int(timestep)]
        kept = alpha * self._variance + 1 - alpha
        clean = (alpha.sqrt() * self._variance * sample + (1 - alpha) * self._mean) / kept
        return ((sample - alpha.sqrt() * clean) / (1 - alpha).sqrt(),)


class FlowGaussian:
    """The same for flow matching: the velocity from the clean sample to the noise, at a timestep that is told as σ · `scale`."""

    def __init__(self, scale: float, mean: float = 3.0, variance: float = 0.1) -> None:
        self._scale, self._mean, self._variance = scale, mean, variance

    def __call__(self, hidden_states: Any, timestep: Any, **_: Any) -> Any:
        return (self.velocity(hidden_states, float(timestep[0]) / self._scale),)

    def velocity(self, sample: Any, sigma: float) -> Any:
        kept = (1 - sigma) ** 2 * self._variance + sigma**2
        clean = ((1 - sigma) * self._variance * sample + sigma**2 * self._mean) / kept
        return (sample - clean) / sigma


class ZImageGaussian(FlowGaussian):
    """Z-Image takes lists, time that runs upwards, and gives the opposite."""

    def __call__(self, samples: Any, time: Any, *_: Any, **__: Any) -> Any:
        return ([-self.velocity(sample, 1 - float(time[0])) for sample in samples],)


def exact(editor: Any, model: str) -> Any:
    if model == "zimage":
        return ZImageGaussian(1)
    return FlowGaussian(1000 if model == "sd3" else 1) if model in FLOW else Gaussian(editor._pipe)


@pytest.mark.parametrize("model", sorted(set(MODELS) - {"pocket_like", "lcm", "cosxl"}))
def test_the_change_does_not_shrink_as_strength_grows(editor: Any, model: str, monkeypatch: Any) -> None:
    image, steps = picture(0), 8 if FAMILY[model] == "img2img" else 2
    monkeypatch.setattr(denoiser(editor), "forward", exact(editor, model))
    changes = _changes(editor, image, [asked(model, strength=s / 4, steps=steps) for s in range(5)], monkeypatch)
    assert changes[0] == 0
    assert all(a < b for a, b in itertools.pairwise(changes)), changes


def _changes(editor: Any, image: Any, levels: list[Any], monkeypatch: Any) -> list[float]:
    """Root mean square distance of the decoded latents from those of the first level."""
    latents: list[Any] = []
    decode = editor._codec.decode
    monkeypatch.setattr(editor._codec, "decode", lambda z: latents.append(z) or decode(z))
    for level in levels:
        editor.edit(EditBatch([image], [job(level, seed=3)]))
    return [float((z - latents[0]).square().mean().sqrt()) for z in latents]


@pytest.mark.parametrize(
    "model", [name for name in differing("reader") if name not in ONE_BY_ONE]
)  # which looks at the picture while it reads
def test_the_text_encoder_runs_once_a_distinct_text(model: str, load: Any, request: Any, monkeypatch: Any) -> None:
    editor = load(request.getfixturevalue(model), fresh=True)
    names = [name for name in ("text_encoder", "text_encoder_2", "text_encoder_3") if hasattr(editor._pipe, name)]
    calls = [Calls(monkeypatch, getattr(editor._pipe, name), "forward") for name in names]
    wanted = asked(model, guidance=3.0, image_guidance=1.5)
    images = [picture(i) for i in range(3)]
    for _ in range(2):
        editor.edit(EditBatch(images, [job(wanted, i, p, "sun") for i, p in enumerate(["snow", "fog", "snow"])]))
    for call in calls:
        assert call.rows == [1] * (2 if model in ONE_PASS else 3)  # snow, fog, sun


@pytest.mark.parametrize("model", differing("codec", "adapter"))
def test_the_vae_encodes_a_source_once_over_its_conditions(
    model: str, load: Any, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = load(request.getfixturevalue(model), fresh=True)
    vae = Calls(monkeypatch, editor._pipe.vae, "encode")
    images = [picture(0), picture(1), picture(0)]  # two variants of one source
    for strength, prompt in [(0.5, "snow"), (0.7, "fog"), (0.0, "night")]:
        editor.edit(EditBatch(images, [job(asked(model, strength=strength), i, prompt) for i in range(3)]))
    assert vae.rows == [1, 1]


@pytest.mark.parametrize("model", differing("codec"))
def test_the_vae_decodes_a_few_at_a_time_and_one_where_there_is_no_room(
    model: str, load: Any, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = load(request.getfixturevalue(model), fresh=True)._codec
    with torch.inference_mode():
        latents = codec.encode([picture(i) for i in range(5)])
        alone = codec.decode(latents)
        codec._at_once, pixels = 4, codec.pixels
        sizes = []

        def small(rows: Any) -> Any:
            sizes.append(len(rows))
            if len(rows) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return pixels(rows)

        monkeypatch.setattr(codec, "pixels", small)
        assert all(np.array_equal(*pair) for pair in zip(codec.decode(latents), alone, strict=True))
    assert sizes == [4, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("model", FAMILY)
@pytest.mark.parametrize(("guidance", "image_guidance"), [(1.0, 1.5), (0.0, 1.5), (3.0, 0.5)])
def test_guidance_off_means_one_row_an_image(
    editor: Any, model: str, guidance: float, image_guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model not in PIX2PIX and guidance > 1:
        pytest.skip("image guidance is for InstructPix2Pix")
    if model == "zimage" and guidance == 1:
        pytest.skip("its scale counts from 0")
    unet = Calls(monkeypatch, denoiser(editor), "forward")
    wanted = asked(model, guidance=guidance, image_guidance=image_guidance)
    editor.edit(EditBatch([picture(0), picture(1)], [job(wanted, i, negative="sun") for i in range(2)]))
    assert unet.rows == ([1] * 4 if model in ONE_BY_ONE else [2, 2])


@pytest.mark.parametrize("model", FAMILY)
def test_guidance_on_multiplies_rows(editor: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = Calls(monkeypatch, denoiser(editor), "forward")
    wanted = asked(model, guidance=3.0, image_guidance=1.5)
    editor.edit(EditBatch([picture(0), picture(1)], [job(wanted, i) for i in range(2)]))
    one_by_one = {"klein_base": [2] * 4, "qwen_plus": [1] * 8, "longcat": [1] * 8}  # two passes a step
    rows = 2 if model in ONE_PASS else 6 if model in PIX2PIX else 4
    assert unet.rows == one_by_one.get(model, [rows, rows])


@pytest.mark.parametrize("model", FAMILY)
def test_the_negative_prompt_counts(editor: Any, model: str) -> None:
    wanted, image = asked(model, guidance=8.0, image_guidance=1.5, strength=1.0), picture(0)
    same = np.array_equal(one(editor, wanted, image, negative="sun"), one(editor, wanted, image, negative="xyz"))
    assert same == (model in ONE_PASS)


@pytest.mark.parametrize("model", ["lcm", "flux", "kontext"])
def test_guidance_as_a_number_is_read_in_one_pass(editor: Any, model: str) -> None:
    weak, strong = (one(editor, asked(model, guidance=g, strength=1.0), picture(0)) for g in (1.0, 8.0))
    assert not np.array_equal(weak, strong)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        *itertools.product(
            ("sd", "ip2p"), ("ddim", "euler", "euler_a", "dpm++2m", "deis", "heun", "lcm", "DDIMScheduler")
        ),
        *((model, name) for model in MODELS if model not in ("sd", "ip2p") for name in ("ddim", "euler")),
    ],
)
def test_schedulers_by_name(editor: Any, model: str, name: str) -> None:
    if model in FLOW | {"cosxl"} or (model == "pocket_like" and "ddim" not in name.lower()):
        with pytest.raises(UsageError, match="cannot use"):
            one(editor, asked(model, scheduler=name), picture(0))
        return
    wanted = asked(model, scheduler=name, strength=0.6, steps=3)
    images, jobs = [picture(0), picture(1)], [job(wanted, seed=i) for i in range(2)]
    together = [e.image for e in editor.edit(EditBatch(images, jobs))]
    alone = [editor.edit(EditBatch([i], [j]))[0].image for i, j in zip(images, jobs, strict=True)]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("unipc", "DPMSolverMultistepScheduler"),
        ("SASolverScheduler", "DPMSolverMultistepScheduler"),
        ("PNDMScheduler", "EulerDiscreteScheduler"),
        ("ddim", "EulerDiscreteScheduler"),
    ],
)
def test_schedulers_that_do_not_suit_are_replaced(sd: Any, load: Any, name: str, instead: str, caplog: Any) -> None:
    editor = load(sd, fresh=True)
    for _ in range(2):
        made = one(editor, settings("img2img", scheduler=name, steps=3), picture(0))
    assert type(editor._pipe.scheduler).__name__ == instead
    assert sum(instead in r.getMessage() for r in caplog.records) == 1
    assert np.array_equal(made, one(editor, settings("img2img", scheduler=instead, steps=3), picture(0)))


@pytest.mark.parametrize(
    "model", [name for name in differing("reader") if name not in ONE_BY_ONE]
)  # which cuts nothing
def test_a_long_prompt_is_cut_with_one_warning(editor: Any, model: str, caplog: Any) -> None:
    text = f"snow on every roof, road and tree of {model}"
    for _ in range(2):
        one(editor, asked(model), picture(0), prompt=text)
    assert sum("cut to the model's 16 tokens" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.parametrize("model", ["zimage", "klein"])
def test_the_words_around_a_prompt_count_too(
    model: str, load: Any, request: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = load(request.getfixturevalue(model))._pipe
    around = "{% for m in messages %}u:{{ m['content'] }}{% endfor %}{% if enable_thinking %}t{% endif %}"
    monkeypatch.setattr(pipe.tokenizer, "chat_template", around)
    prompts = Prompts(pipe)
    prompts.embeds(["snow on roofs"], None)
    assert not caplog.records
    prompts.embeds(["snow on a roof"], None)  # 14 letters, and the two before them; the third is only there to think
    over = [record.getMessage() for record in caplog.records]
    assert len(over) == (model == "zimage")
    assert all("cut to the model's 16 tokens (it has 17)" in line for line in over)


@pytest.mark.parametrize("model", differing("codec"))
def test_not_a_number_is_named_as_the_cause(model: str, load: Any, request: Any, recwarn: Any) -> None:
    editor = load(request.getfixturevalue(model), fresh=True)
    for parameter in denoiser(editor).parameters():
        parameter.data.fill_(float("nan"))
    seen: list[Any] = []
    batch = EditBatch([picture(0)], [job(asked(model))], watch=lambda _, images: seen.extend(images))
    (made,) = editor.edit(batch)
    assert isinstance(made, NotFinite)
    assert "NaN or infinite values in float32: its weights may be damaged" in made.message
    assert seen[-1].max() == 0  # what a watcher is shown
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


@pytest.mark.parametrize("model", differing("family", "flow"))
@pytest.mark.parametrize("words", ["CUDA", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"])
def test_out_of_memory_is_ours(model: str, load: Any, request: Any, words: str, monkeypatch: Any) -> None:
    import torch

    editor = load(request.getfixturevalue(model), fresh=True)
    error = torch.OutOfMemoryError("CUDA") if words == "CUDA" else RuntimeError(words)

    def full(*args: Any, **kwargs: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(denoiser(editor), "forward", full)
        with pytest.raises(OutOfMemory, match="2 images") as caught:
            editor.edit(EditBatch([picture(0), picture(1)], [job(asked(model), i) for i in range(2)]))
    assert caught.value.hint
    assert caught.value.__cause__.__traceback__ is None  # its frames would keep the batch's tensors alive
    assert one(editor, asked(model), picture(0)).shape == (48, 64, 3)  # the halves can follow


def test_other_errors_stay_what_they_are(sd: Any, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = load(sd, fresh=True)

    def wrong(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(denoiser(editor), "forward", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        one(editor, settings("img2img"), picture(0))


@pytest.mark.parametrize(
    ("images", "seeds", "words"),
    [
        ([picture(0)], [1, 2], "one job an image"),
        ([picture(0, 50, 64)], [1], "divisible by 8"),
        ([picture(0), picture(1, 64, 64)], [1, 2], "one size"),
        ([picture(0).astype(float)], [1], "uint8"),
        ([np.zeros((48, 64, 4), np.uint8)], [1], "(H, W, 3)"),
    ],
)
def test_a_broken_contract_is_an_error(sd: Any, load: Any, images: Any, seeds: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
        load(sd).edit(EditBatch(images, [job(settings("img2img"), seed=s) for s in seeds]))


def test_jobs_of_two_settings_are_an_error(sd: Any, load: Any) -> None:
    jobs = [job(settings("img2img", strength=s)) for s in (0.4, 0.5)]
    with pytest.raises(ValueError, match="share their settings"):
        load(sd).edit(EditBatch([picture(0), picture(1)], jobs))

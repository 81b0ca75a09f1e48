"""Every alias pulled from a hub that has it as the real one does: all that is loaded, nothing else, and known offline."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest

from diffgen.commands.pull import pull
from diffgen.dataset.file_cache import FileCache
from diffgen.editing.editor import EditBatch, Edited
from diffgen.editing.families import load_editor
from diffgen.editing.pipelines.schedulers import chosen_scheduler
from diffgen.models import hub
from diffgen.models.aliases import aliases
from diffgen.models.find import resolve_model
from diffgen.models.model import Model, is_on_disk, local_folder
from diffgen.models.pipelines import SPECS
from diffgen.models.weights import UNUSED
from diffgen.types import Settings
from tests.editing.tiny_models import job, picture
from tests.editing.tiny_models import settings as settings_of
from tests.hub.layouts import EVERY, LAYOUTS, Layout, write_layout
from tests.hub.standin import StandIn

pytestmark = pytest.mark.editors

Publish = Callable[[StandIn, str], str]
MASK = np.ones((48, 64), np.float32)

HUB = [name for name, entry in aliases().items() if "hub" in entry]


def test_every_alias_has_a_layout() -> None:
    assert set(LAYOUTS) == set(HUB)


@pytest.mark.parametrize("alias", HUB)
def test_an_alias_is_pulled_whole_and_without_what_is_not_loaded(
    alias: str, online: StandIn, publish: Publish, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, commit = aliases()[alias], publish(online, alias)
    assert pull(alias) == {"name": alias, "place": entry["hub"], "revision": commit}
    asked = len(online.asked)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = resolve_model(alias, None, Path(), cache)
    assert is_on_disk(model)
    assert model.identity == f"{entry['hub']}@{commit}"
    assert len(online.asked) == asked
    folder = local_folder(model)
    assert folder is not None
    files = [path for path in hub.cache_folder().glob("models--*/snapshots/*/**/*") if path.is_file()]
    assert not any(b"not to be fetched" in file.read_bytes() for file in files)
    parts = {file.parent.name for file in files}
    assert not parts & set(UNUSED)
    for part in LAYOUTS[alias].half:  # one copy of the weights
        assert all(".fp16" in file.name for file in (folder / part).glob("*.safetensors"))


@pytest.mark.parametrize("alias", HUB)
def test_a_pulled_alias_loads_and_edits_offline(
    alias: str, online: StandIn, publish: Publish, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(online, alias)
    pull(alias)
    asked = len(online.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = resolve_model(alias, None, Path(), cache)
    editor = load_editor(model, "cpu", "float32")
    settings = small(alias, model)
    (made,) = editor.edit(EditBatch([picture(0)], [job(settings)], [MASK] if model.editor == "inpaint" else None))
    assert isinstance(made, Edited)
    assert made.image.shape == (48, 64, 3)
    assert len(online.asked) == asked


# For each class the tiny model that is one, or has its parts.
TINY = {
    "StableDiffusion": "sd", "StableDiffusionImg2Img": "sd", "LatentConsistencyModel": "lcm",
    "LatentConsistencyModelImg2Img": "lcm", "StableDiffusionXL": "sdxl", "StableDiffusionXLImg2Img": "sdxl",
    "StableDiffusion3": "sd3", "StableDiffusion3Img2Img": "sd3", "Flux": "flux", "FluxImg2Img": "flux", "ZImage": "zimage",
    "ZImageImg2Img": "zimage", "StableDiffusionInpaint": "sd_inpaint", "StableDiffusionXLInpaint": "xl_inpaint",
    "StableDiffusionInstructPix2Pix": "ip2p", "StableDiffusionXLInstructPix2Pix": "xl_ip2p", "FluxKontext": "kontext",
    "Flux2Klein": "klein_base", "QwenImageEdit": "qwen_edit", "QwenImageEditPlus": "qwen_plus",
    "LongCatImageEdit": "longcat",
}  # fmt: skip
LOADED = [(spec.name, family) for spec in SPECS.values() for family in spec.loads if family != "controlnet"]


def every_part(cls: str) -> dict[str, Any]:
    """An index entry for each part that the class takes and we do not load."""
    taken = inspect.signature(getattr(diffusers, cls).__init__).parameters
    return {name: part for name, part in EVERY.items() if name in taken}


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "family"), LOADED)
def test_a_model_of_any_class_is_pulled_by_its_id_and_loads_offline_for_each_family(
    cls: str,
    family: str,
    online: StandIn,
    request: Any,
    cache: FileCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = request.getfixturevalue(TINY[cls.removesuffix("Pipeline")])
    layout = Layout("", "", {**every_part(cls), "_class_name": cls})
    commit = online.publish("some/model", write_layout(tiny, layout, tmp_path / "files"))
    assert pull("some/model")["revision"] == commit
    asked = len(online.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = resolve_model("some/model", family, Path(), cache)
    assert model.pipeline == cls
    assert load_editor(model, "cpu", "float32")
    assert len(online.asked) == asked


def small(alias: str, model: Model) -> Settings:
    """The settings of a run with the alias, at the size of the tiny models, and few steps."""
    task = "background" if model.editor == "inpaint" else None
    options = chosen_scheduler(dict(model.scheduler), model.pipeline) if isinstance(model.scheduler, tuple) else None
    return settings_of(
        model.editor, strength=0.8, steps=min(model.steps, 4), guidance=model.guidance, multiple=model.multiple, task=task,
        image_guidance=model.image_guidance, scheduler=options[0] if options else model.scheduler,
        scheduler_options=options[1] if options else None,
    )  # fmt: skip

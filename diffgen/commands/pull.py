"""`diffgen models pull`: fetch a model, a network or all that a recipe needs, so that a run needs no network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from diffgen.models import hub
from diffgen.models.aliases import aliases, suggestion
from diffgen.models.fetch import Unreachable, fetch, pull_command
from diffgen.models.loras import require_lora, resolve_loras
from diffgen.models.model import hub_title
from diffgen.models.resolve import as_kept, require_parts, resolve_recipe_model, to_keep
from diffgen.recipe.load import load_recipe
from diffgen.recipe.sections import HUB_ID
from diffgen.run.store.state import is_run_folder, read_state

logger = logging.getLogger(__name__)


def pull(name: str) -> dict[str, Any]:
    """Fetch what `name` means: an alias, OWNER/NAME, either with @REVISION, or a recipe's path.

    A model or network is brought to the hub's newest commit. A recipe's are left at those of its run folder, else at those
    that are here; LoRAs at those that are here. Returns what is here now, for printing. Raises DiffgenError if a download
    fails; where the hub cannot be reached, only if the files are not here.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return _pull_recipe(Path(name))
    short, _, revision = name.partition("@")
    entry = aliases().get(short, {})
    if "path" in entry:
        return {"name": short, "place": "in the package", "revision": None}
    hub_id = str(entry.get("hub", short))
    if not HUB_ID.fullmatch(hub_id):
        raise UsageError(f"model '{short}' is not known", suggestion(short, aliases()))
    commit = _newest(hub_id, revision or entry.get("revision"), hub_title(short, hub_id), name)
    with FileCache() as cache:
        for lora in resolve_loras(entry.get("loras", ()), Path(), cache):
            require_lora(lora, cache)
    return {"name": short, "place": hub_id, "revision": commit}


def _newest(hub_id: str, revision: str | None, title: str, name: str) -> str:
    """The commit that is here afterwards: the hub's of that revision, or, where the hub cannot be asked, the one before."""
    here = hub.cached_commit(hub_id, revision)
    if here is not None and not (hub.snapshot(hub_id, here) or hub.network_snapshot(hub_id, here)):
        here = None
    if here is not None and (hub.is_offline() or here == revision):
        return here
    try:
        return fetch(hub_id, revision, title, pull_command(name)).name
    except Unreachable as error:
        if here is None:
            raise
        logger.warning("%s: %s, so a newer commit could not be looked for", title, error.what)
        return here


def _pull_recipe(path: Path) -> dict[str, Any]:
    loaded = load_recipe(path)
    with FileCache() as cache:
        model = resolve_recipe_model(loaded.recipe, loaded.base, cache)
    state = read_state(loaded.output) if is_run_folder(loaded.output) else {}
    model = require_parts(as_kept(model, loaded.recipe, state), loaded.recipe)
    kept = to_keep(model)
    commits = {**kept["revisions"], **{name: lora["revision"] for name, lora in kept["loras"].items()}}
    return {"name": path.name, "place": model.place, "revision": model.revision, "revisions": commits}


def pulled_text(facts: dict[str, Any]) -> str:
    revision = f"@{facts['revision']}" if facts["revision"] else ""
    return f"{facts['name']} is on this machine: {facts['place']}{revision}"

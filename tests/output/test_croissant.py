"""croissant.json: a card that Croissant's own reader takes, true about the files beside it, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import make, make_dataset, manifest, write_recipe
from tests.output.conftest import Made


def card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "croissant.json").read_text("utf-8"))


def test_it_names_what_lies_beside_it(made: Made) -> None:
    folder = made(dataset={"counts": (2, 1)})
    described = card(folder)
    for part in described["distribution"]:
        if part["@type"] == "cr:FileObject":
            assert part["sha256"] == hashlib.sha256((folder / part["contentUrl"]).read_bytes()).hexdigest()
        else:
            assert list(folder.glob(part["includes"]))
    assert "Images: train 6 (4 synthetic), val 1 (0 synthetic)." in described["description"]
    assert "fog, night" in described["description"]
    model = next(row["model"] for row in manifest(folder) if "model" in row)
    assert model in described["rai:dataManipulationProtocol"]
    by_name = {records["name"]: records for records in described["recordSet"]}
    assert [row["classes/name"] for row in by_name["classes"]["data"]] == ["car", "person"]
    assert [row["splits/name"] for row in by_name["splits"]["data"]] == ["train", "val"]


def test_every_reference_in_it_leads_somewhere(made: Made) -> None:
    """What its readers check: each id once, each source a file set of the card, each prefix in the context."""
    described = card(made())
    context = described.pop("@context")
    ids: list[str] = []
    used: list[str] = []
    prefixes: set[str] = set()

    def walk(node: Any, parent: str = "") -> None:
        if isinstance(node, list):
            for item in node:
                walk(item, parent)
        elif isinstance(node, dict):
            (ids if "@type" in node else used).extend([node["@id"]] if "@id" in node else [])
            prefixes.update(key.split(":")[0] for key in node if ":" in key)
            prefixes.update(node[key].split(":")[0] for key in ("@type", "dataType") if ":" in node.get(key, ""))
            for key, value in node.items():
                if key != "data":
                    walk(value, key)

    walk(described)
    assert len(ids) == len(set(ids))
    assert used
    assert set(used) <= set(ids)
    assert {"cr", "sc", "rai"} <= prefixes <= set(context)


def test_it_says_nothing_that_only_this_machine_knows(made: Made, tmp_path: Path) -> None:
    folder = made()
    text = (folder / "croissant.json").read_text("utf-8")
    assert str(tmp_path) not in text
    assert not {"license", "datePublished", "creator", "url"} & card(folder).keys(), "these are the user's to say"


def test_a_dataset_without_edits_claims_none(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", checks={"structure": 1}))
    described = card(tmp_path / "out/dataset")
    assert "train 4 (0 synthetic)" in described["description"]
    assert "edits of them" not in described["description"]
    assert not [key for key in described if key.startswith("rai:")]


def test_its_own_reader_reads_it(made: Made, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    folder = made(dataset={"counts": (2, 1)})
    read = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    assert not read.metadata.ctx.issues.errors
    images = list(read.records("images"))
    rows = list(read.records("labels"))
    assert [read_text(row["images/name"]) for row in images] == sorted(
        path.relative_to(folder / "images").with_suffix("").as_posix() for path in (folder / "images").rglob("*.*")
    )
    assert {read_text(row["images/split"]) for row in images} == {"train", "val"}
    assert {row["images/image"].size for row in images} == {(64, 48)}
    text = b"".join(path.read_bytes() for path in sorted((folder / "labels").rglob("*.txt")))
    assert [read_text(row["labels/row"]) for row in rows] == text.decode().splitlines()
    assert {read_text(row["labels/image"]) for row in rows} == {read_text(row["images/name"]) for row in images}


def read_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

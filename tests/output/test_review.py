"""A person's decisions: what they overrule, what they do not, and that they last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.clean import clean
from diffgen.commands.export import export
from diffgen.commands.status import status
from diffgen.errors import UsageError
from diffgen.output.review import read_review
from diffgen.recipe.load import load_recipe
from diffgen.run.progress import Progress
from tests.fakes import make, put, tree, write_recipe
from tests.fakes_attempts import Melting, run_it

JOB = "0" * 32  # digits alone: no number


def exported(folder: Path) -> dict[str, dict[str, Any]]:
    """Made images of the export by job id."""
    rows = [json.loads(line) for line in (folder / "dataset/manifest.jsonl").read_text().splitlines()[1:]]
    return {row["job"]: row for row in rows if "job" in row}


def reviewed(out: Path, text: str) -> Any:
    return export(load_recipe(out), put(out.parent / "given.yaml", text))


def test_a_rejected_image_is_not_exported_and_a_kept_one_is(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(recipe, sets=["checks.contrast=1"])
    assert exported(out) == {}
    records = [json.loads(line) for line in (out / "records-0.jsonl").read_text().splitlines()]
    first, second, *_ = [record["id"] for record in records if "id" in record]
    summary = reviewed(out, f"# by hand\n{first}: keep\n{second}: reject\n")
    assert summary.accepted == 1
    assert summary.rejected == {"degenerate": 6, "review": 1}
    assert set(exported(out)) == {first}
    loose = export(load_recipe(out, ["checks.contrast=null"]))
    assert loose.rejected == {"review": 1}
    assert second not in exported(out)


def test_a_given_review_replaces_a_kept_one_that_is_broken(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _, editor = make(recipe)
    put(out / "review.yaml", "not: a review: at all\n")
    with pytest.raises(UsageError, match=r"out/review\.yaml:1"):
        export(load_recipe(out))
    assert reviewed(out, f"{editor.made[0]}: reject\n").rejected == {"review": 1}
    assert export(load_recipe(out)).rejected == {"review": 1}


def test_progress_counts_no_image_that_a_person_rejected(recipe: Path, tmp_path: Path) -> None:
    class Counts(Progress):
        last = (0, 0)

        def update(self, made: int, total: int, accepted: int, condition: str) -> None:
            self.last = made, accepted

    _, editor = make(recipe)
    first, second = editor.made[:2]
    reviewed(tmp_path / "out", f"{first}: reject\n")
    for job in (first, second):
        next((tmp_path / "out/images").rglob(f"{job}.*")).unlink()
    progress = Counts()
    make(recipe, progress=progress)
    assert progress.last == (2, 1)


def test_it_lasts_until_another_is_given(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _, editor = make(recipe)
    whole = tree(out / "dataset")
    text = f"# a comment of mine\n{editor.made[0]}: reject\n"
    reviewed(out, text)
    assert (out / "review.yaml").read_text() == text
    for summary in (export(load_recipe(out)), status(load_recipe(out)), make(recipe)[0]):
        assert summary.rejected == {"review": 1}
        assert (summary.accepted, summary.pending) == (7, 0)
    reviewed(out, f"{editor.made[1]}: reject\n")
    assert set(editor.made) - set(exported(out)) == {editor.made[1]}
    assert reviewed(out, "# nothing\n").accepted == 8
    assert tree(out / "dataset") == whole


def test_what_failed_cannot_be_kept(recipe: Path, tmp_path: Path) -> None:
    image = tmp_path / "data/images/train/01.jpg"
    image.write_bytes(image.read_bytes()[:-400])
    make(recipe)
    records = [json.loads(line) for line in (tmp_path / "out/records-0.jsonl").read_text().splitlines()]
    failed = [record["id"] for record in records if record.get("status") == "failed"]
    assert len(failed) == 2
    assert reviewed(tmp_path / "out", f"{failed[0]}: keep\n").failed == {"source": 2}


def test_nothing_takes_the_place_of_what_a_person_rejected(tmp_path: Path) -> None:
    """No further attempt is planned, none made earlier steps in, and `clean` keeps them all."""
    out = tmp_path / "out"
    _, _, recipe = run_it(tmp_path, "out", 3)
    by_attempt = {row["attempt"]: job for job, row in exported(out).items()}
    first, later = by_attempt[0], by_attempt[1]
    summary = reviewed(out, f"{first}: reject\n{later}: reject\n")
    assert (summary.rejected["review"], summary.pending) == (2, 0)
    again, editor = make(recipe, Melting())
    assert (editor.made, again.rejected["review"]) == ([], 2)
    assert clean(load_recipe(out), remove=False) == (0, 0)
    tight = export(load_recipe(out, ["checks.structure=0.999"]))
    assert tight.rejected["review"] == 2
    assert not {first, later} & set(exported(out))


def test_what_a_person_keeps_needs_no_further_attempt(tmp_path: Path) -> None:
    _, _, recipe = run_it(tmp_path, "out", 1)
    records = [json.loads(line) for line in (tmp_path / "out/records-0.jsonl").read_text().splitlines()]
    accepted = set(exported(tmp_path / "out"))
    kept = next(record["id"] for record in records if "id" in record and record["id"] not in accepted)
    waiting = status(load_recipe(tmp_path / "out", ["attempts=2"])).pending
    assert waiting > 1
    reviewed(tmp_path / "out", f"{kept}: keep\n")
    assert status(load_recipe(tmp_path / "out", ["attempts=2"])).pending == waiting - 1
    make(recipe, Melting(), sets=["attempts=2"])
    assert kept in exported(tmp_path / "out")


def test_a_kept_image_keeps_every_label(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sets = ["checks.structure=0.999", "checks.on_object_lost=drop_label"]
    make(recipe, sets=sets)
    records = [json.loads(line) for line in (out / "records-0.jsonl").read_text().splitlines()]
    kept = next(record["id"] for record in records if "id" in record and min(record["facts"]["structure"]) < 0.999)
    before = exported(out).get(kept)
    assert before is None or before["dropped_rows"]
    export(load_recipe(out, sets), put(tmp_path / "given.yaml", f"{kept}: keep\n"))
    assert "dropped_rows" not in exported(out)[kept]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            f"{JOB}: reject\nnobody: keep\n", "given.yaml:2: this run folder has no job 'nobody'", id="unknown"
        ),
        pytest.param(f"# x\n{JOB}: maybe\n", "given.yaml:2: 'maybe' is not a decision", id="word"),
        pytest.param(f"{JOB}: [keep]\n", "given.yaml:1: this is not a decision", id="list"),
        pytest.param(f"{JOB}: keep\n{JOB}: reject\n", "given.yaml:2: duplicate key '0+'", id="twice"),
        pytest.param(f"- {JOB}\n", "given.yaml:1: not a review", id="not a mapping"),
        pytest.param("{[1]: keep}\n", "given.yaml:1: a job id must be text", id="key"),
        pytest.param(f"{JOB}: 'keep\n", r"given.yaml:\d: not valid YAML", id="yaml"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_review(put(tmp_path / "given.yaml", text), known={JOB})
    assert caught.value.hint


def test_a_file_that_is_no_text_or_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "given.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("given.yaml", "none.yaml"):
        with pytest.raises(UsageError, match=f"{name}: cannot be read"):
            read_review(tmp_path / name)


def test_an_empty_file_decides_nothing_and_digits_are_an_id(tmp_path: Path) -> None:
    assert read_review(put(tmp_path / "a.yaml", "")) == {}
    assert read_review(put(tmp_path / "a.yaml", f"{JOB}: keep\n")) == {JOB: "keep"}


def test_a_wrong_review_changes_nothing(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _, editor = make(recipe)
    reviewed(out, f"{editor.made[0]}: reject\n")
    before = tree(out)
    answer = cli("export", out, "--review", put(tmp_path / "bad.yaml", f"{editor.made[1]}: keep\nff: reject\n"))
    assert answer.code == 2
    assert "bad.yaml:2: this run folder has no job 'ff'" in answer.err
    assert tree(out) == before


def test_a_review_outlives_what_it_speaks_of(tmp_path: Path, recipe: Path) -> None:
    """A condition goes, and `clean` takes its images: the review kept of them is no error, nor is it when given again."""
    out = tmp_path / "out"
    _, editor = make(recipe)
    text = "".join(f"{job}: reject\n" for job in editor.made)
    reviewed(out, text)
    fewer = write_recipe(recipe, tmp_path / "data/data.yaml", out, conditions=["night"])
    make(fewer)
    clean(load_recipe(out), remove=True)
    assert make(fewer)[0].rejected == {"review": 4}
    assert reviewed(out, text).rejected == {"review": 4}

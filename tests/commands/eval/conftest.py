"""What the evaluations' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import put


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where each training is logged."""
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return put(tmp_path / "calls", "")

"""What several test files share: the real images where they exist, and a cache folder of each test's own."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ADLIB_DATA", raising=False)


@pytest.fixture
def shared() -> Path:
    folder = Path(os.environ.get("ADLIB_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the real images in {folder} (set ADLIB_SHARED)")
    return folder

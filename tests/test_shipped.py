"""The evidence that ships, by way of the cache: the same as without it, and what can go wrong there is not noticed."""

import sqlite3

import pytest

from metamed.records import Published, Setup
from metamed.store import Store, evidence
from metamed.store.shipped import cache_folder, fill


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of evidence with one figure."""
    monkeypatch.setenv("METAMED_CACHE_DIR", str(tmp_path / "cache"))
    _write(tmp_path / "data", 0.75)
    return tmp_path / "data"


def _write(folder, value: float) -> None:
    setup = Setup("net")
    with Store.memory() as store:
        store.add_all([setup, Published("study", "p", "blobs", "", setup.id, "auc", value, None, 1, "paper", "T1")])
        evidence.write(store, folder, "runs")


def _figures(folder) -> list[float]:
    store = Store.memory()
    fill(store, store._db, folder)
    return [f.value for f in store.records("published")]


def test_what_is_kept_is_what_the_tables_say(folder, monkeypatch):
    assert _figures(folder) == [0.75] and [p.name for p in cache_folder().iterdir()] == ["evidence.db"]
    monkeypatch.setattr(evidence, "read", None)  # not read a second time
    assert _figures(folder) == [0.75]


def test_changed_tables_are_read_again(folder):
    assert _figures(folder) == [0.75]
    for path in (folder / "published").glob("*.csv"):
        path.write_text(path.read_text().replace("0.75", "0.25"))
    assert _figures(folder) == [0.25] == _figures(folder)


@pytest.mark.parametrize("content", [b"", b"no database " * 500])
def test_a_damaged_cache_is_made_again(folder, content):
    (kept := cache_folder() / "evidence.db").parent.mkdir()
    kept.write_bytes(content)
    assert _figures(folder) == [0.75] and kept.stat().st_size > 6000


def test_a_cache_with_a_broken_page_is_made_again(folder):
    assert _figures(folder) == [0.75]
    kept = cache_folder() / "evidence.db"
    with sqlite3.connect(kept) as db:
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'published'").fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    whole = kept.read_bytes()
    kept.write_bytes(whole[: (page - 1) * size] + b"\xff" * size + whole[page * size :])
    assert _figures(folder) == [0.75] and kept.read_bytes()[(page - 1) * size] != 0xFF


def test_without_a_place_for_a_cache_it_works(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("METAMED_CACHE_DIR", str(tmp_path / "file"))
    assert _figures(folder) == [0.75] == _figures(folder)

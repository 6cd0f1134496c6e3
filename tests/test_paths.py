"""Folders follow the environment; a file is written whole or not at all."""

import errno
import os
import runpy
import shutil
from pathlib import Path

import pytest

from dinolizer import paths
from dinolizer.errors import InputError


def test_the_checkout_holds_the_notebooks() -> None:
    assert (paths.ROOT / "notebooks").is_dir()
    assert Path(__file__).parent.parent == paths.ROOT


@pytest.mark.parametrize(
    ("variable", "make", "expected"),
    [
        ("DINOLIZER_RESULTS", lambda: paths.results_dir("pocket"), "there/pocket"),
        ("DINOLIZER_CACHE", paths.cache_dir, "there"),
    ],
)
def test_a_folder_is_taken_from_the_environment_and_made(
    variable, make, expected, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "there"))
    folder = make()
    assert folder == tmp_path / expected
    assert folder.is_dir()


def test_without_the_environment_folders_are_in_the_checkout(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("DINOLIZER_RESULTS")
    monkeypatch.delenv("DINOLIZER_CACHE", raising=False)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert paths.results_dir("pocket") == tmp_path / "results" / "pocket"
    assert paths.cache_dir() == tmp_path / "data" / "cache"


def test_an_installed_package_caches_in_the_users_cache_and_not_where_it_is_run(
    tmp_path, monkeypatch
) -> None:
    site, work = tmp_path / "site-packages" / "dinolizer", tmp_path / "work"
    site.mkdir(parents=True)
    work.mkdir()
    shutil.copy(paths.__file__, site)
    monkeypatch.delenv("DINOLIZER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(work)
    installed = runpy.run_path(str(site / "paths.py"))
    assert installed["cache_dir"]() == tmp_path / "user" / "dinolizer"
    assert list(work.iterdir()) == []


def test_fetched_weights_are_in_the_users_cache_unless_another_is_named(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "there"))
    assert paths.weights_dir() == tmp_path / "there" / "weights"
    monkeypatch.delenv("DINOLIZER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert paths.weights_dir() == tmp_path / "user" / "dinolizer" / "weights"
    assert list(tmp_path.iterdir()) == []  # nothing is made by asking


def test_a_named_file_is_relative_to_the_checkout(tmp_path) -> None:
    assert paths.named_file("data/own.safetensors") == paths.ROOT / "data" / "own.safetensors"
    assert paths.named_file(str(tmp_path / "own.safetensors")) == tmp_path / "own.safetensors"
    assert paths.named_file("") is None


def test_an_atomic_file_appears_when_the_block_ends(tmp_path) -> None:
    target = tmp_path / "new" / "table.csv"
    with paths.atomic(target) as draft:
        assert draft.suffix == ".csv"
        draft.write_text("a,b")
        assert not target.exists()
    assert target.read_text() == "a,b"
    assert list(target.parent.iterdir()) == [target]


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch) -> None:
    target, synced = tmp_path / "table.csv", []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        fsync(descriptor)
        assert not target.exists()
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", watch)
    with paths.atomic(target) as draft:
        draft.write_text("a,b")
    assert target.read_text() == "a,b"
    assert synced == [3]


def test_what_is_no_regular_file_is_not_read(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: to read it would never end
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for read in (paths.file_hash, paths.read_checked):
            with pytest.raises(OSError, match="no regular file"):
                read(path)


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "..", ".", "", "<b>", "a b"])
def test_no_profile_has_its_results_elsewhere(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path / "results"))
    with pytest.raises(InputError, match="letters, digits, '-', '_' and "):
        paths.results_dir(name)
    assert not [*tmp_path.iterdir()]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full") as caught, paths.atomic(target) as draft:
        draft.write_text("ha")
        raise OSError(errno.ENOSPC, "disk full")
    assert caught.value.filename == str(target)  # which a full disk does not say
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_two_that_write_one_file_at_once_do_not_share_a_draft(tmp_path) -> None:
    target = tmp_path / "table.csv"
    with paths.atomic(target) as first, paths.atomic(target) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert target.read_text() == "first"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [target]

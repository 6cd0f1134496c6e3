"""A bulk run gives every image one row, however often and wherever it is killed."""

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from processes import in_a_process_that_dies
from small import random_head, small_backbone

from dinolizer.bulk import run as scans
from dinolizer.bulk import table as ledgers
from dinolizer.bulk.listing import Shard, read_listing
from dinolizer.bulk.merging import merge
from dinolizer.bulk.run import scan
from dinolizer.bulk.table import SCHEMA, Ledger, read_rows
from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model.head import HeadCard
from dinolizer.model.localizer import Localizer

COUNT = 12


def localizer(**settings: object) -> Localizer:
    backbone = small_backbone()
    card = HeadCard("small", backbone.hash, "pristine", 56, 28, small="pad")
    return Localizer(backbone, random_head(backbone.dim), replace(card, **settings))  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        size = (40 + 7 * number % 60, 50 + 11 * number % 80, 3)
        write_image(
            tmp_path / "in" / f"{number % 3}" / f"{number}.png",
            rng.integers(0, 256, size, np.uint8),
        )
    return tmp_path / "in"


def run(photos: Path, out: Path, **options: object) -> pd.DataFrame:
    _, rows = scan(localizer(), read_listing(photos), out, **options)  # type: ignore[arg-type]
    return timeless(rows)


def timeless(rows: pa.Table) -> pd.DataFrame:
    return rows.drop_columns("seconds").to_pandas()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_row_is_what_the_image_gives_alone(photos: Path, tmp_path: Path) -> None:
    (photos / "1/damaged.jpg").write_text("no image")
    loc = localizer()
    file, rows = scan(loc, read_listing(photos), tmp_path / "out", masks=True, maps=True)
    assert file == tmp_path / "out/localized.parquet"
    saved, settings = read_rows(file)
    assert saved == rows
    assert saved.schema == SCHEMA
    names = rows["path"].to_pylist()
    assert names == sorted(names) and len(names) == COUNT + 1
    for row in rows.to_pylist():
        mask, array = (tmp_path / "out" / f"masks/{row['path']}.png"), tmp_path / "out/maps"
        if row["path"] == "1/damaged.jpg":
            assert "damaged.jpg is not an image" in row["error"]
            assert [row[name] for name in ("score", "marked", "width", "seconds")] == [None] * 4
            assert not mask.exists()
            continue
        alone = loc(photos / row["path"])
        assert row["error"] is None
        assert row["score"] == pytest.approx(alone.score, abs=1e-4)
        assert row["marked"] == pytest.approx(alone.marked, abs=1e-3)
        assert (row["height"], row["width"]) == alone.mask.shape
        assert row["seconds"] > 0
        assert (np.asarray(Image.open(mask)) == 255).mean() == row["marked"]
        with np.load(array / f"{row['path']}.npz") as stored:
            assert stored["probability"].dtype == np.float16
            np.testing.assert_allclose(stored["probability"], alone.probability, atol=6e-4)
    assert settings["model"] == "small"
    assert settings["head_hash"] == loc.settings["head_hash"]
    assert (settings["window"], settings["threshold"], settings["images"]) == (56, 0.5, COUNT + 1)
    assert files(tmp_path / "out") == {"localized.parquet", "settings.json"} | {
        f"{kind}/{name}.{end}"
        for kind, end in (("masks", "png"), ("maps", "npz"))
        for name in names
        if name != "1/damaged.jpg"
    }


# Before the first part, between two, in the middle of writing one or the file, and after the file.
def _before_a_part(times: int) -> None:
    write = Ledger.write
    left = iter(range(times))
    Ledger.write = lambda self, rows: write(self, rows) if next(left, None) is not None else die()  # type: ignore[method-assign, func-returns-value]


def _in_a_part(times: int) -> None:
    write = pq.write_table
    left = iter(range(times))

    def half(table: pa.Table, path: Path, **options: object) -> None:
        write(table, path, **options)
        if next(left, None) is None:
            os.truncate(path, path.stat().st_size // 2)
            die()

    pq.write_table = half


def _after_the_file(times: int) -> None:
    shutil.rmtree = die  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("where", "times", "parts"),
    [
        (_before_a_part, 0, 0),
        (_before_a_part, 3, 3),
        (_in_a_part, 4, 4),
        (_in_a_part, COUNT // 2, COUNT // 2),
        (_after_the_file, 0, COUNT // 2),
    ],
)
def test_a_killed_run_goes_on_and_gives_the_same_file(
    where: Callable[[int], None],
    times: int,
    parts: int,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scans, "PART_ROWS", 2)
    expected = run(photos, tmp_path / "whole")

    def work() -> None:
        where(times)
        run(photos, tmp_path / "out", masks=True)

    in_a_process_that_dies(work)
    left = list((tmp_path / "out/parts").glob("[!.]*"))
    assert len(left) == parts
    done = [row for path in left for row in read_rows(path)[0]["path"].to_pylist()]
    assert len(done) == 2 * parts
    # What is done is not done again: its images may be gone, so long as they are still listed.
    listing = read_listing(photos)
    for name in done:
        listing.path(name).unlink()
    _, rows = scan(localizer(), listing, tmp_path / "out", masks=True)
    pd.testing.assert_frame_equal(timeless(rows), expected)
    kept = {name for name in files(tmp_path / "out") if "/." not in name}
    masks = {f"masks/{name}.png" for name in expected["path"]}
    assert kept == {"localized.parquet", "settings.json"} | masks


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_at_random_moments_gives_the_same_file(
    seed: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "PART_ROWS", 1)
    start = time.perf_counter()
    expected = run(photos, tmp_path / "whole")
    duration = time.perf_counter() - start
    rng = np.random.default_rng(seed)
    for _ in range(3):
        in_a_process_that_dies(
            lambda: run(photos, tmp_path / "out"), after=float(rng.uniform(0, duration / 2))
        )
    pd.testing.assert_frame_equal(run(photos, tmp_path / "out"), expected)


def test_shards_in_one_folder_merge_to_what_one_run_gives(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_text("no image")
    whole = run(photos, tmp_path / "whole")
    parts = [run(photos, tmp_path / "shards", shard=Shard(i, 3)) for i in (3, 1, 2)]
    assert sorted(len(part) for part in parts)[0] > 0
    rows = merge([tmp_path / "shards"], tmp_path / "merged.parquet")
    pd.testing.assert_frame_equal(timeless(rows), whole)
    saved, settings = read_rows(tmp_path / "merged.parquet")
    assert saved == rows
    assert settings == read_rows(tmp_path / "whole/localized.parquet")[1]


def test_shards_of_a_list_shorter_than_their_number(photos: Path, tmp_path: Path) -> None:
    pd.DataFrame({"image": ["0/0.png"]}).to_csv(photos / "one.csv", index=False)
    folders = []
    for number in range(1, 4):
        folders.append(tmp_path / str(number))
        run(photos / "one.csv", folders[-1], shard=Shard(number, 3))
    assert merge(folders, tmp_path / "all.parquet")["path"].to_pylist() == ["0/0.png"]


def test_an_image_that_failed_is_tried_again(photos: Path, tmp_path: Path) -> None:
    whole, damaged = (photos / "0/3.png").read_bytes(), photos / "0/3.png"
    expected = run(photos, tmp_path / "whole")
    damaged.write_bytes(whole[:100])
    first = run(photos, tmp_path / "out")
    assert list(first.loc[first["error"].notna(), "path"]) == ["0/3.png"]
    damaged.write_bytes(whole)
    pd.testing.assert_frame_equal(run(photos, tmp_path / "out"), expected)
    assert files(tmp_path / "out") == {"localized.parquet", "settings.json"}


def test_a_run_stops_after_too_many_failures_and_keeps_its_rows(
    photos: Path, tmp_path: Path
) -> None:
    listing = read_listing(photos)
    originals = {name: listing.path(name).read_bytes() for name in listing.names}
    for name in listing.names[5:11]:
        listing.path(name).write_text("")
    with pytest.raises(InputError, match=r"4 could not be read, but at most 3 .* is empty"):
        run(photos, tmp_path / "out", max_failures=3)
    kept = Ledger(tmp_path / "out", {}).rows()
    assert kept["path"].to_pylist() == list(listing.names[:9])
    assert len(run(photos, tmp_path / "out", max_failures=6)) == COUNT
    for name, content in originals.items():
        listing.path(name).write_bytes(content)
    expected = run(photos, tmp_path / "whole", max_failures=0)
    pd.testing.assert_frame_equal(run(photos, tmp_path / "out", max_failures=0), expected)


def test_a_folder_of_other_settings_is_refused_and_they_are_named(
    photos: Path, tmp_path: Path
) -> None:
    run(photos, tmp_path / "out")
    before = files(tmp_path / "out")
    listing = read_listing(photos)
    with pytest.raises(InputError, match=r"threshold = 0.5, but this run has 0.4; give another"):
        scan(localizer(threshold=0.4), listing, tmp_path / "out")
    with pytest.raises(InputError, match=r"masks = False, but this run has True"):
        run(photos, tmp_path / "out", masks=True)
    with pytest.raises(InputError, match=r"shards = 1, but this run has 2"):
        run(photos, tmp_path / "out", shard=Shard(1, 2))
    write_image(photos / "new.png", np.zeros((60, 60), np.uint8))
    with pytest.raises(InputError, match=r"another list of images \(12 of them\) than .* \(13\)"):
        run(photos, tmp_path / "out")
    (tmp_path / "out/settings.json").write_text("{")
    with pytest.raises(InputError, match=r"settings.json cannot be read"):
        run(photos, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_what_cannot_be_merged_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    with pytest.raises(InputError, match="holds no finished shard"):
        merge([photos], tmp_path / "x.parquet")
    run(photos, one, shard=Shard(1, 3))
    with pytest.raises(InputError, match="Of 3 shards, number 2, 3 is not there"):
        merge([one], tmp_path / "x.parquet")
    shutil.copytree(one, two)
    with pytest.raises(InputError, match="in more than one file; give every shard once"):
        merge([one, two], tmp_path / "x.parquet")
    scan(localizer(stride=14), read_listing(photos), other, shard=Shard(2, 3))
    with pytest.raises(
        InputError, match=r"localized-1.* stride = 28, but .*other.* 14; merge files of"
    ):
        merge([one, other], tmp_path / "x.parquet")
    run(photos / "0", tmp_path / "list", shard=Shard(2, 3))
    with pytest.raises(InputError, match=r"another list of images \(12 of them\) than .* \(4\)"):
        merge([one, tmp_path / "list"], tmp_path / "x.parquet")
    for number in (2, 3):
        run(photos, one, shard=Shard(number, 3))
    table, settings = read_rows(one / "localized-3-of-3.parquet")
    ledgers.save_rows(table.slice(1), settings, one / "localized-3-of-3.parquet")
    with pytest.raises(InputError, match=rf"{COUNT - 1} rows, but not those of the {COUNT} images"):
        merge([one], tmp_path / "x.parquet")
    (one / "localized-3-of-3.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="is not a file of rows"):
        merge([one], tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_a_part_that_cannot_be_read_is_made_again(photos: Path, tmp_path: Path) -> None:
    expected = run(photos, tmp_path / "whole")
    (tmp_path / "out/parts").mkdir(parents=True)
    (tmp_path / "out/parts/0.parquet").write_bytes(b"")
    pd.testing.assert_frame_equal(run(photos, tmp_path / "out"), expected)


def test_a_disk_that_is_full_is_one_sentence_and_leaves_no_half(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, {"list": "", "images": 1})
    rows = [{"path": f"{number:0100}", "error": None} for number in range(1000)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes a file may have
    try:
        with pytest.raises(InputError, match=r"cannot be written .* make room"):
            ledger.write(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == set()
    ledger.write(rows)
    assert len(ledger.rows()) == 1000


def test_a_run_that_meets_a_full_disk_keeps_its_rows_and_goes_on(
    photos: Path, tmp_path: Path
) -> None:
    expected = run(photos, tmp_path / "whole", maps=True)
    sizes = {path: path.stat().st_size for path in (tmp_path / "whole/maps").rglob("*.npz")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes.values()) - 1, hard))  # of one file
    try:
        with pytest.raises(InputError, match=r"cannot be written to .* make room .* goes on"):
            run(photos, tmp_path / "out", maps=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    largest = max(sizes, key=lambda path: sizes[path]).relative_to(tmp_path / "whole/maps")
    kept = Ledger(tmp_path / "out", {}).rows()["path"].to_pylist()
    assert kept == list(
        expected["path"][: list(expected["path"]).index(str(largest)[: -len(".npz")])]
    )
    assert not [name for name in files(tmp_path / "out") if "/." in name]
    pd.testing.assert_frame_equal(run(photos, tmp_path / "out", maps=True), expected)


def test_a_folder_that_cannot_be_made_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        run(photos, tmp_path / "out")


def test_settings_are_stored_as_json(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", shard=Shard(2, 2))
    stored = json.loads((tmp_path / "out/settings.json").read_text())
    in_file = read_rows(tmp_path / "out/localized-2-of-2.parquet")[1]
    assert in_file == stored | {"shard": 2}
    assert stored["list"] == read_listing(photos).hash

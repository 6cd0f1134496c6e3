"""A bulk run gives every image one row, however often and wherever it is killed."""

import csv
import hashlib
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
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
from dinolizer.bulk import table as tables
from dinolizer.bulk.run import read_listing, scan
from dinolizer.bulk.table import (
    SCHEMA,
    TABLE,
    Table,
    list_hash,
    merge,
    read_rows,
    save_rows,
)
from dinolizer.data.files import Shard
from dinolizer.data.images import write_image
from dinolizer.errors import InputError
from dinolizer.model.head import HeadCard
from dinolizer.model.localizer import Localizer

COUNT = 12
ONE = f"{TABLE}/1-of-1.parquet"


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
    listing = read_listing(photos, out)
    return timeless(scan(localizer(), listing, out, **options))  # type: ignore[arg-type]


def timeless(rows: pa.Table) -> pd.DataFrame:
    """The rows, but for what is another each time, or where the photographs were written anew."""
    return rows.drop_columns(["seconds", "changed"]).to_pandas()


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_each_row_is_what_the_image_gives_alone(photos: Path, tmp_path: Path) -> None:
    (photos / "1/damaged.jpg").write_text("no image")
    loc = localizer(untouched=(0.5,))
    rows = scan(loc, read_listing(photos), tmp_path / "out", masks=True, maps=True)
    saved, settings = read_rows(tmp_path / "out" / ONE)
    assert saved == rows
    assert saved.schema == SCHEMA
    names = rows["path"].to_pylist()
    assert names == sorted(names) and len(names) == COUNT + 1
    for row in rows.to_pylist():
        mask, array = (tmp_path / "out" / f"masks/{row['path']}.mask.png"), tmp_path / "out/maps"
        if row["path"] == "1/damaged.jpg":
            assert "damaged.jpg is a text file" in row["error"]
            numbers = ("score", "predicted_area", "width", "seconds")
            assert [row[name] for name in numbers] == [None] * 4
            assert not mask.exists()
            continue
        alone = loc(photos / row["path"])
        assert row["error"] is None
        assert row["score"] == pytest.approx(alone.score, abs=1e-4)
        assert row["rank"] == alone.rank == (0 if alone.score < 0.5 else 1)
        assert row["predicted_area"] == pytest.approx(alone.predicted_area, abs=1e-3)
        assert (row["height"], row["width"]) == alone.mask.shape
        assert row["seconds"] > 0
        assert (np.asarray(Image.open(mask)) == 255).mean() == row["predicted_area"]
        with np.load(array / f"{row['path']}.map.npz") as stored:
            assert stored["probability"].dtype == np.float16
            np.testing.assert_allclose(stored["probability"], alone.probability, atol=6e-4)
    assert settings["model"] == "small"
    assert settings["head_hash"] == loc.settings["head_hash"]
    assert (settings["window"], settings["threshold"], settings["images"]) == (56, 0.5, COUNT + 1)
    assert files(tmp_path / "out") == {ONE} | {
        f"{kind}s/{name}.{kind}.{end}"
        for kind, end in (("mask", "png"), ("map", "npz"))
        for name in names
        if name != "1/damaged.jpg"
    }


# Before the first part, between two, in the middle of writing one or the file, and after the file.
def _before_a_part(times: int) -> None:
    write = Table.write
    left = iter(range(1 + times))  # the first one is empty
    Table.write = lambda self, rows: write(self, rows) if next(left, None) is not None else die()  # type: ignore[method-assign, func-returns-value]


def _in_a_part(times: int) -> None:
    write = pq.write_table
    left = iter(range(1 + times))  # the first one is empty

    def half(table: pa.Table, path: Path, **options: object) -> None:
        write(table, path, **options)
        if next(left, None) is None:
            os.truncate(path, path.stat().st_size // 2)
            die()

    pq.write_table = half


def _after_the_file(times: int) -> None:
    write = tables.save_rows

    def save(table: pa.Table, settings: dict[str, object], path: Path) -> None:
        write(table, settings, path)
        if path.name == Path(ONE).name:
            die()

    tables.save_rows = save  # type: ignore[assignment]


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
    left = [read_rows(path)[0] for path in (tmp_path / "out" / TABLE).glob("1-of-1-part-*")]
    assert sorted(map(len, left)) == [0] + [2] * parts
    # Whoever reads the folder has these rows, before the run is done.
    done = set(pd.read_parquet(tmp_path / "out" / TABLE)["path"])
    assert done == {name for table in left for name in table["path"].to_pylist()}
    # What is done is not done again: its images may be gone, so long as they are still listed.
    listing = read_listing(photos)
    for name in done:
        (listing.root / name).unlink()
    rows = scan(localizer(), listing, tmp_path / "out", masks=True)
    pd.testing.assert_frame_equal(timeless(rows), expected)
    kept = {name for name in files(tmp_path / "out") if "/." not in name}
    assert kept == {ONE} | {f"masks/{name}.mask.png" for name in expected["path"]}
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "out" / TABLE)[list(expected)], expected, check_dtype=False
    )


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
    shards = [run(photos, tmp_path / "shards", shard=Shard(i, 3)) for i in (3, 1, 2)]
    assert min(map(len, shards)) > 0
    rows = merge([tmp_path / "shards"], tmp_path / "merged.parquet")
    pd.testing.assert_frame_equal(timeless(rows), whole)
    saved, settings = read_rows(tmp_path / "merged.parquet")
    assert saved == rows
    assert settings == read_rows(tmp_path / "whole" / ONE)[1]
    with pytest.raises(InputError, match=r"merged.parquet is there already"):
        merge([tmp_path / "shards"], tmp_path / "merged.parquet")
    assert merge([tmp_path / "shards"], tmp_path / "merged.parquet", overwrite=True) == rows


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
    assert files(tmp_path / "out") == {ONE}


def test_an_image_that_was_replaced_loses_its_row_and_no_other_does(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, times = "0/0.bmp", (10**18, 10**18)
    for seed, path in enumerate((photos / name, photos / "1/new.bmp", tmp_path / "other.bmp")):
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 70, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        os.utime(path, ns=times)
    before = run(photos, tmp_path / "out", masks=True)
    (tmp_path / "other.bmp").replace(photos / name)  # of the same size and date
    os.utime(photos / "2/2.png", ns=times)  # touched, but the same
    localized: list[str] = []
    monkeypatch.setattr(scans, "_save", lambda result, *_: localized.append(result.source))
    after = run(photos, tmp_path / "out", masks=True)
    assert localized == [str(photos / name)]
    changed = (before["sha256"] != after["sha256"]).to_numpy()
    assert list(after["path"][changed]) == [name]
    expected = hashlib.sha256((photos / name).read_bytes()).hexdigest()
    assert after.set_index("path").loc[name, "sha256"] == expected


def test_an_image_that_cannot_be_read_any_more_stops_no_other(photos: Path, tmp_path: Path) -> None:
    pd.DataFrame({"image": ["0/0.png", "0/3.png"]}).to_csv(photos / "list.csv", index=False)
    before = run(photos / "list.csv", tmp_path / "out")
    (photos / "0/0.png").unlink()
    os.mkfifo(photos / "0/0.png")  # to read it would never end
    after = run(photos / "list.csv", tmp_path / "out")
    assert list(after["error"].notna()) == [True, False]
    pd.testing.assert_series_equal(after.loc[1], before.loc[1])


def test_an_image_that_changes_while_it_is_read_has_an_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(localizer: Localizer, sources: Iterator[Path], then: object) -> Iterator[object]:
        for path in sources:
            result = localizer(path)
            path.write_bytes((photos / "1/1.png").read_bytes())
            yield then(result)  # type: ignore[operator]

    monkeypatch.setattr(scans, "localize_many", slow)
    rows = run(photos / "0", tmp_path / "out")
    assert rows["error"].str.contains("was changed while it was read").all()


def test_a_run_stops_after_too_many_failures_and_keeps_its_rows(
    photos: Path, tmp_path: Path
) -> None:
    listing = read_listing(photos)
    originals = {name: (listing.root / name).read_bytes() for name in listing.names}
    for name in listing.names[5:11]:
        (listing.root / name).write_text("")
    with pytest.raises(InputError, match=r"4 could not be read, but at most 3 .* is empty"):
        run(photos, tmp_path / "out", max_failures=3)
    kept = pd.read_parquet(tmp_path / "out" / TABLE)
    assert list(kept["path"]) == list(listing.names[:9])
    assert len(run(photos, tmp_path / "out", max_failures=6)) == COUNT
    for name, content in originals.items():
        (listing.root / name).write_bytes(content)
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
    assert files(tmp_path / "out") == before


def test_every_part_knows_its_settings(photos: Path, tmp_path: Path) -> None:
    """A run of other settings does not adopt a part, whatever else of the folder is lost."""
    (photos / "0/9.png").write_text("no image")
    with pytest.raises(InputError, match="at most 0 may fail"):
        run(photos, tmp_path / "out", max_failures=0)
    (empty, part) = sorted((tmp_path / "out" / TABLE).glob("1-of-1-part-*"))
    empty.unlink()
    assert read_rows(part)[1]["stride"] == 28
    with pytest.raises(InputError, match="stride = 28, but this run has 14"):
        scan(localizer(stride=14), read_listing(photos), tmp_path / "out")


def test_a_folder_that_has_grown_is_added_to_when_asked(photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out")
    write_image(photos / "new.png", np.full((60, 60, 3), 9, np.uint8))
    with pytest.raises(
        InputError, match=r"another list of images \(12 of them\).* \(13\).*\(add\)"
    ):
        run(photos, tmp_path / "out")
    grown = run(photos, tmp_path / "out", add=True)
    pd.testing.assert_frame_equal(grown, run(photos, tmp_path / "whole"))
    assert files(tmp_path / "out") == {ONE}
    pd.testing.assert_frame_equal(run(photos, tmp_path / "out"), grown)
    (photos / "new.png").unlink()
    with pytest.raises(InputError, match="13 images, but 12 are listed"):
        run(photos, tmp_path / "out", add=True)


def test_a_flipped_bit_in_the_table_is_noticed(photos: Path, tmp_path: Path) -> None:
    run(photos / "0", tmp_path / "out")
    file = tmp_path / "out" / ONE
    content, expected, noticed = file.read_bytes(), read_rows(file), 0
    for place in range(0, len(content), 13):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(flipped)
        try:
            assert read_rows(file) == expected
        except InputError:
            noticed += 1
    assert noticed > len(content) // 13 / 2  # the rest means nothing
    file.write_bytes(content.replace(b'"stride": 28', b'"stride": 24'))
    for again in (
        lambda: run(photos / "0", tmp_path / "out"),
        lambda: merge([tmp_path / "out"], tmp_path / "merged.parquet"),
    ):
        with pytest.raises(InputError, match=r"damaged; delete it, and run"):
            again()
    file.unlink()
    os.mkfifo(file)  # to read it would never end
    with pytest.raises(InputError, match=r"damaged; delete it, and run"):
        run(photos / "0", tmp_path / "out")
    file.unlink()
    assert len(run(photos / "0", tmp_path / "out")) == 4


def test_the_folder_of_a_run_holds_nothing_else(photos: Path, tmp_path: Path) -> None:
    before = files(photos)
    for out in (photos, tmp_path):
        with pytest.raises(InputError, match="holds other files than a run's; give a new one"):
            run(photos, out)
    assert files(photos) == before


def test_its_own_output_is_never_its_input(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    first = run(Path(), Path("found"), masks=True)
    pd.testing.assert_frame_equal(run(Path(), Path("found"), masks=True), first)
    assert len(run(Path(), Path("again"))) == COUNT  # nor is that of another run
    (photos / "link").symlink_to(photos / "found")
    pd.testing.assert_frame_equal(run(photos, photos / "link", masks=True), first)


def test_images_inside_and_outside_of_the_folder_have_masks_of_their_own(
    photos: Path, tmp_path: Path
) -> None:
    name = str(photos / "0/0.png").lstrip("/")
    image = photos / "list" / name
    image.parent.mkdir(parents=True)
    (photos / "1/1.png").rename(image)
    pd.DataFrame({"image": [name, f"/{name}"]}).to_csv(photos / "list/list.csv", index=False)
    rows = run(photos / "list/list.csv", tmp_path / "out", masks=True)
    masks = [*(tmp_path / "out/masks").rglob("*.png")]
    assert len(rows) == len(masks) == 2
    assert sorted(Image.open(mask).size for mask in masks) == sorted(
        zip(rows["width"], rows["height"], strict=True)
    )


def test_names_as_long_as_the_file_system_takes_have_masks(photos: Path, tmp_path: Path) -> None:
    names = [f"{'n' * 250}{end}.png" for end in "ab"]
    for name in names:
        shutil.copy(photos / "0/0.png", photos / name)
    rows = run(photos, tmp_path / "out", masks=True, maps=True)
    assert rows["error"].isna().all()
    assert len([*(tmp_path / "out/masks").glob("n*.mask.png")]) == 2
    assert len([*(tmp_path / "out/maps").glob("n*.map.npz")]) == 2


def test_two_runs_cannot_write_one_shard_at_once(photos: Path, tmp_path: Path) -> None:
    listing = read_listing(photos)
    settings = {"list": list_hash(listing.names), "images": COUNT}
    with Table(tmp_path / "out", settings, Shard(1, 2)).claimed():
        with pytest.raises(InputError, match=r"Another process is writing shard 1-of-2"):
            run(photos, tmp_path / "out", shard=Shard(1, 2))
        with Table(tmp_path / "out", settings, Shard(2, 2)).claimed():
            pass


def test_what_is_no_regular_file_has_an_error(photos: Path, tmp_path: Path) -> None:
    os.mkfifo(photos / "pipe.png")
    names = ["0/0.png", "pipe.png", "/dev/zero", "0", "n" * 300 + ".png", "none.png"]
    pd.DataFrame({"image": names}).to_csv(photos / "list.csv", index=False)
    rows = run(photos / "list.csv", tmp_path / "out").set_index("path")
    assert list(rows.index[rows["error"].isna()]) == ["0/0.png"]


def test_a_csv_has_the_rows_of_the_parquet_file(photos: Path, tmp_path: Path) -> None:
    (photos / "=1+1.png").write_bytes(b"no image")  # which a spreadsheet would compute
    run(photos, tmp_path / "out")
    rows = merge([tmp_path / "out"], tmp_path / "all.parquet").to_pylist()
    for _ in range(2):  # and is known for one of ours, which may be replaced
        merge([tmp_path / "out"], tmp_path / "all.csv", overwrite=True)
    with (tmp_path / "all.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["path"] for row in read] == [row["path"].replace("=", "'=") for row in rows]
    for new, old in zip(read, rows, strict=True):
        assert new["width"] == ("" if old["width"] is None else str(old["width"]))
        assert (old["score"] is None) == (new["score"] == "")
        assert old["score"] is None or float(new["score"]) == old["score"]
    assert sum(row["error"] != "" for row in read) == sum(row["error"] is not None for row in rows)


def test_what_cannot_be_merged_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    one, two, other, out = (tmp_path / name for name in ("one", "two", "other", "x.parquet"))
    with pytest.raises(InputError, match="holds no finished shard"):
        merge([photos], out)
    run(photos, one, shard=Shard(1, 3))
    with pytest.raises(InputError, match=r"x.txt, but its name must end in .parquet"):
        merge([one], tmp_path / "x.txt")
    with pytest.raises(InputError, match="Of 3 shards, number 2, 3 is not there"):
        merge([one], out)
    shutil.copytree(one, two)
    with pytest.raises(InputError, match="in more than one file; give every shard once"):
        merge([one, two], out)
    scan(localizer(stride=14), read_listing(photos), other, shard=Shard(2, 3))
    with pytest.raises(InputError, match=r"1-of-3.* stride = 28, but .*other.* 14; merge files of"):
        merge([one, other], out)
    run(photos / "0", tmp_path / "list", shard=Shard(2, 3))
    with pytest.raises(InputError, match=r"images = 12, but .* 4; merge files of"):
        merge([one, tmp_path / "list"], out)
    for number in (2, 3):
        run(photos, one, shard=Shard(number, 3))
    third = one / TABLE / "3-of-3.parquet"
    table, settings = read_rows(third)
    save_rows(table.slice(1), settings, third)
    with pytest.raises(InputError, match=rf"{COUNT - 1} rows, but not those of the {COUNT} images"):
        merge([one], out)
    third.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="is not a file of rows"):
        merge([one], out)
    with pytest.raises(InputError, match="is one of the inputs"):
        merge([two], two / TABLE / "1-of-3.parquet", overwrite=True)
    with pytest.raises(InputError, match="would be taken for rows of the run"):
        merge([two], one / "." / TABLE / "x.parquet")
    assert not out.exists()


def test_a_disk_that_is_full_is_one_sentence_and_leaves_no_half(tmp_path: Path) -> None:
    table = Table(tmp_path, {"list": "", "images": 1})
    rows = [{"path": f"{number:0100}", "error": None} for number in range(1000)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes a file may have
    try:
        with pytest.raises(InputError, match=r"cannot be written .* make room"):
            table.write(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == set()
    table.write(rows)
    assert len(table.rows()) == 1000


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
    kept = pd.read_parquet(tmp_path / "out" / TABLE)["path"]
    assert list(kept) == list(
        expected["path"][: list(expected["path"]).index(str(largest)[: -len(".map.npz")])]
    )
    assert not [name for name in files(tmp_path / "out") if "/." in name]
    pd.testing.assert_frame_equal(run(photos, tmp_path / "out", maps=True), expected)


def test_a_folder_that_cannot_be_made_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        run(photos, tmp_path / "out")

"""The pictures of the list are held to their hashes, whatever a server or a folder has."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trees import Scene, save

from dinolizer.data import inpaintings
from dinolizer.data.images import read_image, write_image
from dinolizer.data.inpaintings import LIST, MASKS, fetch_inpaintings
from dinolizer.data.manifest import read_manifest
from dinolizer.errors import InputError

Serve = Callable[[dict[str, bytes]], list[str]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Give a server's files, by what follows the host; what it is asked for is listed."""

    def serving(files: dict[str, bytes]) -> list[str]:
        asked: list[str] = []

        def download(url: str, path: Path) -> None:
            asked.append(url.removeprefix("https://raw.githubusercontent.com/"))
            if asked[-1] not in files:
                raise InputError(f"{url} (HTTP status 404).")
            path.write_bytes(files[asked[-1]])

        monkeypatch.setattr(inpaintings, "download", download)
        return asked

    return serving


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures and a list of them: of a repository, with a mask of ours, put by hand."""
    folder, rows, masks = tmp_path / "origin", [], {}
    # SHA-256 of these pixels, bytes and packed bits, as `sha256sum` gives them; see `list_row`.
    for number, name in enumerate(("a", "b", "c")):
        scene = Scene(number, 32)
        file = save(folder / f"{name}.{'jpg' if name == 'b' else 'png'}", scene.edited(scene.photo))
        save(folder / f"{name}_mask.png", scene.mask)
        rows.append(list_row(file, scene.mask > 127))
        if name == "b":
            masks[name] = np.packbits(scene.mask > 127)
    pd.DataFrame(rows).to_csv(tmp_path / "list.csv", index=False)
    np.savez(tmp_path / "masks.npz", **masks)
    monkeypatch.setattr(inpaintings, "LIST", tmp_path / "list.csv")
    monkeypatch.setattr(inpaintings, "MASKS", tmp_path / "masks.npz")
    return folder


def list_row(file: Path, mask: np.ndarray) -> dict[str, object]:
    from hashlib import sha256

    content = file.read_bytes() if file.suffix == ".jpg" else read_image(file).tobytes()
    name, addresses = file.stem, {"a": ("1f/out.png HEAD/out.png", "HEAD/mask.png")}
    paths, mask_paths = addresses.get(name, ("2e/b.jpeg", "") if name == "b" else ("", ""))
    about = {"id": name, "file": file.name, "generator": "G", "kind": "sp", "scene": name}
    about |= {"base": "photo", "outside": "exact", "repository": "who/what", "licence": "MIT"}
    digests = {"sha256": sha256(content), "mask_sha256": sha256(np.packbits(mask).tobytes())}
    about |= {key: digest.hexdigest() for key, digest in digests.items()}
    sides = {"width": mask.shape[1], "height": mask.shape[0]}
    return about | sides | {"paths": paths, "mask_paths": mask_paths}


def test_files_are_got_checked_and_listed(origin: Path, serve: Serve, tmp_path: Path) -> None:
    """The first address of "a" has another picture, its mask is inverted and twice as large; "c"
    has no address, and comes from a folder afterwards."""
    inverted = 255 - np.kron(read_image(origin / "a_mask.png")[..., 0], np.ones((2, 2), np.uint8))
    save(tmp_path / "inverted.png", inverted)
    files = {
        "who/what/1f/out.png": (origin / "c.png").read_bytes(),
        "who/what/HEAD/out.png": (origin / "a.png").read_bytes(),
        "who/what/HEAD/mask.png": (tmp_path / "inverted.png").read_bytes(),
        "who/what/2e/b.jpeg": (origin / "b.jpg").read_bytes(),
    }
    asked = serve(files)
    report = fetch_inpaintings(tmp_path / "data")
    assert asked == list(files)
    assert "not there as listed: c.png (who/what), c_mask.png (who/what); put" in report.notes[-1]
    assert report.pairs == 2
    out = tmp_path / "data" / "inpaintings"
    for name in ("a.png", "b.jpg", "a_mask.png", "b_mask.png"):
        assert (read_image(out / name) == read_image(origin / name)).all()
    with pytest.raises(InputError, match="is there already"):
        fetch_inpaintings(tmp_path / "data", origin)

    asked.clear()
    report = fetch_inpaintings(tmp_path / "data", origin, overwrite=True)
    assert asked == [] and report.pairs == 3
    assert "not there as listed" not in str(report)
    frame = read_manifest(tmp_path / "data" / "inpaintings.csv")
    assert frame["licence"].tolist() == ["MIT"] * 3
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(path.name for path in origin.iterdir()), "inpaintings.csv"]
    )


@pytest.mark.parametrize("name", ["a.png", "b.jpg", "a_mask.png"])
def test_a_changed_file_is_not_taken(name: str, origin: Path, serve: Serve, tmp_path: Path) -> None:
    """One pixel of the picture, one byte after the JPEG's end, one pixel of the mask."""
    serve({})
    given = shutil.copytree(origin, tmp_path / "given")
    if name == "b.jpg":
        (given / name).write_bytes((given / name).read_bytes() + b"x")
    else:
        pixels = read_image(given / name)
        pixels[0, 0] ^= 255
        write_image(given / name, pixels)
    report = fetch_inpaintings(tmp_path / "data", given)
    assert f"not there as listed: {name} (who/what); put" in str(report)
    assert not (tmp_path / "data" / "inpaintings" / name).exists()


def test_a_failing_network_is_told_at_once(
    origin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def download(url: str, path: Path) -> None:
        raise InputError(f"The download of {url} did not end well (ConnectionError).")

    monkeypatch.setattr(inpaintings, "download", download)
    with pytest.raises(InputError, match="ConnectionError"):
        fetch_inpaintings(tmp_path / "data")


def test_the_shipped_list_is_complete() -> None:
    table = pd.read_csv(LIST, keep_default_na=False)
    assert table["id"].is_unique and len(table) == 69
    assert table["sha256"].str.fullmatch("[0-9a-f]{64}").all()
    assert table["mask_sha256"].str.fullmatch("[0-9a-f]{64}").all()
    paths = " ".join(table["paths"] + " " + table["mask_paths"]).split()
    assert all(
        path.partition("/")[0] == "HEAD" or len(path.partition("/")[0]) == 40 for path in paths
    )
    by_hand = table[(table["paths"] == "") | (table["mask_paths"] == "")]
    with np.load(MASKS) as masks:
        assert set(by_hand["id"]) - set(masks) == set(table["id"][table["paths"] == ""])
        for row in table[table["id"].isin(masks.files)].to_dict("records"):
            assert len(masks[row["id"]]) == -(-row["width"] * row["height"] // 8)

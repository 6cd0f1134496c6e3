"""The photographs that are forged: those shipped with two libraries, or those of a folder."""

import logging
import tarfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from itertools import islice
from pathlib import Path, PurePosixPath

from dinolizer.data.degradations import Pixels
from dinolizer.data.fetch import download, fetch_zip
from dinolizer.data.files import list_images
from dinolizer.data.images import read_image
from dinolizer.errors import InputError, check_choice
from dinolizer.paths import check_outputs, write_file

PHOTOS = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "cat": ("skimage.data", "chelsea.png"),
    "coffee": ("skimage.data", "coffee.png"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "china": ("sklearn.datasets", "images/china.jpg"),
    "flower": ("sklearn.datasets", "images/flower.jpg"),
}
"""Name to package and file. Licences: see the packages' own notes beside the files."""

DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip"
"""Validation set of DIV2K (Agustsson and Timofte, NTIRE 2017), for academic research."""
DIV2K_HASH = "sha256:20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"
"""As TensorFlow Datasets records it for that address."""
DIV2K_NAMES = tuple(f"{number:04}.png" for number in range(801, 901))
DIV2K_LIMIT = 2**30  # bytes of all

BSDS = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz"
"""The Berkeley segmentation data set (Arbelaez et al., TPAMI 2011), for research and education."""
BSDS_SIZE = 70_763_455
BSDS_TEST = PurePosixPath("BSR/BSDS500/data/images/test")
BSDS_HASH = "f16a24f8844858615249ad8872c65a8fa98b112d2c2b4f537875d1adb0e7cd5b"
"""SHA-256 of what ``sha256sum *.jpg`` says of its test photographs, in the C locale's order."""
BSDS_COUNT = 200
BSDS_LIMIT = 500_000  # bytes of one photograph

log = logging.getLogger(__name__)


def photo_paths(folder: str | Path = "", count: int = 0) -> dict[str, Path]:
    """Names and files of at most ``count`` photographs of a study: the images in and below a
    folder, named by their stems, none of them twice; or without a folder `PHOTOS`."""
    if not folder:
        paths = {name: Path(str(files(package) / file)) for name, (package, file) in PHOTOS.items()}
        return dict(list(paths.items())[: count or None])
    if not Path(folder).is_dir():
        advice = "make it, or get one with 'dinolizer fetch photos'"
        raise InputError(f"There is no folder {folder} of photographs; {advice}.")
    names, left_out = list_images(folder)
    for what, others in left_out.items():
        log.warning("%d %s are left out, such as %s.", len(others), what, others[0])
    by_name: dict[str, Path] = {}
    for path in map(Path, names[: count or None]):
        if by_name.setdefault(path.stem, path) != path:
            both = f"({by_name[path.stem]} and {path})"
            raise InputError(f"Two photographs are named {path.stem!r} {both}; rename one.")
    return by_name


def load_photo(name: str) -> Pixels:
    """Load one of `PHOTOS`: uint8 ``(H, W, 3)`` RGB."""
    check_choice("photograph", name, PHOTOS)
    return read_image(photo_paths()[name])


def fetch_photos(folder: Path) -> None:
    """Download the validation set of DIV2K (450 MB); an interrupted download goes on."""
    fetch_zip(DIV2K, folder, DIV2K_LIMIT, DIV2K_NAMES, known_hash=DIV2K_HASH)


def fetch_bsds(out: Path, given: Path | None = None, *, overwrite: bool = False) -> None:
    """Put the 200 test photographs of BSDS500 into a folder: downloaded (71 MB, an interrupted
    download goes on), or from ``given``, the archive or a folder. Raises `InputError` unless all
    are there, unchanged, and if one is in the folder already."""
    out.mkdir(parents=True, exist_ok=True)
    archive = given or out / PurePosixPath(BSDS).name
    if given is None:
        download(BSDS, archive, size=BSDS_SIZE)
    photos = dict(sorted(islice(_bsds_photos(archive), BSDS_COUNT + 1)))
    if given is None:
        archive.unlink()
    sums = "".join(f"{sha256(photo).hexdigest()}  {name}\n" for name, photo in photos.items())
    if sha256(sums.encode()).hexdigest() != BSDS_HASH:
        wanted = f"the {BSDS_COUNT} test photographs of BSDS500"
        raise InputError(f"{archive} holds {len(photos)}, but not {wanted}, unchanged; give these.")
    check_outputs([out / name for name in photos], overwrite=overwrite)
    for name, photo in photos.items():
        write_file(out / name, photo)


def _bsds_photos(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and content of the JPEG files of a folder, or of the archive's test photographs."""
    if path.is_dir():
        yield from ((file.name, file.read_bytes()) for file in path.glob("*.jpg"))
        return
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                at = PurePosixPath(member.name)
                if at.parent == BSDS_TEST and at.suffix == ".jpg" and member.isfile():
                    content = archive.extractfile(member) if member.size <= BSDS_LIMIT else None
                    yield at.name, content.read() if content else b""
    except (tarfile.TarError, zlib.error, EOFError) as error:
        wanted = "but BSR_bsds500.tgz is expected; get it again"
        raise InputError(f"{path} cannot be read ({error}), {wanted}.") from None

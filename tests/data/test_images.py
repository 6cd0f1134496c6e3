"""Every kind of image is read right, against known pixel values; what cannot be is one sentence.

The expected pixels are those written into the file by Pillow or OpenCV, or a formula stated beside
the test.
"""

import io
import os
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage.data import astronaut

from dinolizer.data import images
from dinolizer.data.images import read_header, read_image, turn, write_image
from dinolizer.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (4, 6, 4), dtype=np.uint16)
DEEP[0, :3] = [[0, 255, 256, 5], [65535, 65279, 65280, 0], [511, 512, 257, 9]]
# High bytes, by hand: 65,279 is 0xFEFF and 65,280 0xFF00.
DEEP_FIRST = [[0, 0, 1], [255, 254, 255], [1, 2, 1]]


def one_sentence(message: str) -> bool:
    return message.endswith(".") and "\n" not in message and ". " not in message


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert one_sentence(str(caught.value)), str(caught.value)
    return str(caught.value)


def with_exif(path: Path, orientation: int) -> None:
    """Put an eXIf chunk with an orientation after the header of a PNG file."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk + data[33:])  # 8 bytes of signature, 25 of IHDR


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm", "webp"])
def test_a_lossless_file_gives_the_pixels_written(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(COLOUR).save(path, **({"lossless": True} if suffix == "webp" else {}))
    for source in (path, str(path), Image.open(path)):
        read = read_image(source)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, COLOUR)


@pytest.mark.parametrize(("suffix", "tolerance"), [("jpg", 6), ("avif", 6)])
def test_a_lossy_file_gives_about_the_pixels_written(
    suffix: str, tolerance: int, tmp_path: Path
) -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    Image.fromarray(flat).save(tmp_path / f"photo.{suffix}", quality=95)
    read = read_image(tmp_path / f"photo.{suffix}").astype(int)
    assert np.abs(read - flat).max() <= tolerance


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    expected = np.repeat(GREY[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), expected)
    np.testing.assert_array_equal(read_image(GREY), expected)


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = GREY > 127
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[..., 1], bits * 255)


def test_alpha_is_dropped_and_the_colour_under_it_kept(tmp_path: Path) -> None:
    alpha = np.zeros((4, 6, 1), np.uint8)  # fully transparent: blending would lose the colour
    rgba = np.concatenate([COLOUR, alpha], axis=2)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), COLOUR)
    np.testing.assert_array_equal(read_image(rgba), COLOUR)
    grey_alpha = np.concatenate([GREY[..., None], alpha], axis=2)
    Image.fromarray(grey_alpha).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png")[..., 2], GREY)


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_palette_gives_its_colours(suffix: str, transparent: bool, tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    palette = np.array([[10, 20, 30], [200, 0, 7], [255, 254, 1]], np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette(palette.tobytes())
    path = tmp_path / f"palette.{suffix}"
    picture.save(path, **({"transparency": 1} if transparent else {}))
    assert Image.open(path).mode == "P"
    np.testing.assert_array_equal(read_image(path), palette[indices])


def test_cmyk_is_converted_with_the_naive_formula(tmp_path: Path) -> None:
    cmyk = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "cmyk.tif")
    # R = 255 - min(255, C + K), and so on: white, cyan, red, black.
    expected = [[[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0]]]
    np.testing.assert_array_equal(read_image(tmp_path / "cmyk.tif"), expected)


def test_an_inverted_cmyk_jpeg_is_not_a_negative(tmp_path: Path) -> None:
    # Pillow writes CMYK JPEGs as Adobe's programs do, inverted and marked as such.
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[..., 1:3] = 255  # magenta and yellow: red
    Image.fromarray(cmyk, "CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "cmyk.jpg")[8, 8].astype(int) - [255, 0, 0]).max() <= 6


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_of_sixteen_bit_grey_the_high_byte_is_read(byte_order: str, tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 511, 512, 65279, 65280, 65535]], np.uint16)
    expected = np.array([[0, 0, 1, 1, 2, 254, 255, 255]], np.uint8)
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    tifffile.imwrite(tmp_path / "deep.tif", values.astype(f"{byte_order}u2"), byteorder=byte_order)
    (tmp_path / "deep.pgm").write_bytes(b"P5 8 1 65535\n" + values.astype(">u2").tobytes())
    for name in ("deep.png", "deep.tif", "deep.pgm"):
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 0], expected, err_msg=name)
    np.testing.assert_array_equal(read_image(Image.fromarray(values))[..., 2], expected)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", ["deep.png", "raw.tif", "zlib.tif"])
def test_of_sixteen_bit_colour_the_high_byte_is_read(
    name: str, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / name
    write_deep(path, DEEP[..., :channels])
    read = read_image(path)
    np.testing.assert_array_equal(read, DEEP[..., :3] // 256)
    np.testing.assert_array_equal(read[0, :3], DEEP_FIRST)


def write_deep(path: Path, values: NDArray[np.uint16], orientation: int = 1) -> None:
    if path.suffix == ".png":
        order = cv2.COLOR_RGBA2BGRA if values.shape[2] == 4 else cv2.COLOR_RGB2BGR
        cv2.imwrite(str(path), cv2.cvtColor(values, order))
        with_exif(path, orientation)
    else:
        tifffile.imwrite(
            path,
            values,
            photometric="rgb",
            compression=None if path.stem == "raw" else "zlib",
            extrasamples=["unassalpha"] if values.shape[2] == 4 else None,
            extratags=[(0x0112, "H", 1, orientation, True)],
        )


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pillow's own `exif_transpose` on an image in memory, as the independent reference."""
    picture = Image.fromarray(pixels)
    picture.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation: int, tmp_path: Path) -> None:
    expected = upright(COLOUR, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("photo.png", "photo.webp"):
        Image.fromarray(COLOUR).save(tmp_path / name, exif=exif, lossless=True)
        np.testing.assert_array_equal(read_image(tmp_path / name), expected, err_msg=name)
    for name in ("raw.tif", "zlib.tif"):
        for pixels in (COLOUR, GREY):
            tifffile.imwrite(
                tmp_path / name,
                pixels,
                photometric="rgb" if pixels.ndim == 3 else "minisblack",
                compression=None if name == "raw.tif" else "zlib",
                extratags=[(0x0112, "H", 1, orientation, True)],
            )
            np.testing.assert_array_equal(
                read_image(tmp_path / name), read_image(upright(pixels, orientation)), err_msg=name
            )
    deep = upright((DEEP[..., :3] // 256).astype(np.uint8), orientation)
    for name in ("deep.png", "raw.tif", "zlib.tif"):
        write_deep(tmp_path / name, DEEP[..., :3], orientation)
        np.testing.assert_array_equal(read_image(tmp_path / name), deep, err_msg=name)


def test_a_portrait_jpeg_stands_upright(tmp_path: Path) -> None:
    landscape = np.zeros((16, 32, 3), np.uint8)
    landscape[:, 16:] = 255  # orientation 6: its right side is the bottom of the photograph
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(landscape).save(tmp_path / "phone.jpg", exif=exif)
    read = read_image(tmp_path / "phone.jpg")
    assert read.shape == (32, 16, 3)
    assert read[:16].max() < 10 and read[16:].min() > 245


def test_damaged_exif_does_not_hide_the_photograph(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "photo.png", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), COLOUR)


def test_of_a_phone_jpeg_with_two_pictures_the_first_is_read(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (16, 8), colour) for colour in ("white", "black"))
    first.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[second])
    assert read_image(tmp_path / "phone.jpg").min() > 250


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "photo.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "photo.jpg"), COLOUR)


def test_an_rgb_array_is_passed_on_and_other_layouts_are_made_contiguous() -> None:
    assert np.shares_memory(read_image(COLOUR), COLOUR)
    flipped = read_image(COLOUR[:, ::-1])
    assert flipped.flags.c_contiguous
    np.testing.assert_array_equal(flipped[:, 0], COLOUR[:, -1])


def png_bytes(size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    noise = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.png", b"", "is empty"),
        ("letter.jpg", b"this is a letter, not a photograph\n" * 50, "is a text file"),
        ("page.png", b"<!DOCTYPE html><body>404</body></html>", "is an HTML page"),
        ("vector.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an XML or SVG document"),
        ("lfs.png", b"version https://git-lfs.github.com/spec/v1\noid 1\n", "is a Git LFS pointer"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500), "is a HEIC photograph"),
        ("clip.jpg", b"\0\0\0\x18ftypisom" + bytes(500), "is a video"),
        ("photo.jp2", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "is a JPEG 2000 image"),
        ("noise.png", bytes(range(256)), "is not an image that can be read"),
        ("nothing.ppm", b"P6 0 4 255\n", "is a text file|cannot be read|0x4"),
    ],
)
def test_a_file_that_is_no_image_is_one_sentence(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refused(lambda: read_image(tmp_path / name))
    assert name in message
    assert any(part in message for part in says.split("|")), message


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_a_truncated_file_is_one_sentence(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "cut" in refused(lambda: read_image(path))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_cut_short_is_refused_whatever_follows_it(
    mode: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """Whole files are read as Pillow reads them, with more behind too, as phones write it. libjpeg
    fills up cut ones that have an end marker, with no more than a warning."""
    path = tmp_path / "photo.jpg"
    image = Image.fromarray(astronaut()[:200, :300]).convert(mode)
    for quality in (30, 75, 95):
        image.save(path, quality=quality, **options)
        data = path.read_bytes()
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        for whole in (data, data + b"more", data + data):
            path.write_bytes(whole)
            np.testing.assert_array_equal(read_image(path), expected)
        for share in (0.2, 0.5, 0.8):
            pixels = data.index(b"\xff\xda")
            path.write_bytes(data[: pixels + int(share * (len(data) - pixels))] + b"\xff\xd9")
            assert "cut short" in refused(lambda: read_image(path))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_a_jpeg_whose_half_became_zeros_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    """As a download leaves it that got its room before its bytes: zeros are pixels too, and of a
    fine picture fewer of them are needed than were there. What is flat, is read."""
    path = tmp_path / "photo.jpg"
    for quality in (75, 95, 98):
        Image.fromarray(astronaut()).save(path, quality=quality, **options)
        half, rest = np.array_split(np.frombuffer(path.read_bytes(), np.uint8), 2)
        for end in (b"", b"\xff\xd9"):
            path.write_bytes(half.tobytes() + bytes(len(rest)) + end)
            assert any(word in refused(lambda: read_image(path)) for word in ("cut", "damaged"))
        Image.new("RGB", (1500, 1500), "white").save(path, quality=quality, **options)
        assert (read_image(path) == 255).all()


def test_a_pil_image_of_a_truncated_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(png_bytes()[:5000])
    with Image.open(tmp_path / "cut.png") as image:
        assert "cut short" in refused(lambda: read_image(image))


def test_a_truncated_sixteen_bit_file_is_one_sentence(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    data = (tmp_path / "deep.png").read_bytes()
    (tmp_path / "deep.png").write_bytes(data[: len(data) // 2])
    assert "cut short" in refused(lambda: read_image(tmp_path / "deep.png"))


def test_missing_files_and_folders_are_one_sentence(tmp_path: Path) -> None:
    assert "no file" in refused(lambda: read_image(tmp_path / "missing.png"))
    assert "folder" in refused(lambda: read_image(tmp_path))
    assert "no file" in refused(lambda: read_image("nul\0byte.png"))
    assert "cannot be read" in refused(lambda: read_image("x" * 5000))
    os.mkfifo(tmp_path / "pipe.png")
    assert "no file" in refused(lambda: read_image(tmp_path / "pipe.png"))


def test_a_chunk_that_announces_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """OpenCV would make room for 2 GB first."""
    deep = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint16))[1].tobytes()
    path = tmp_path / "deep.png"
    path.write_bytes(deep[:33] + (2**31 - 1).to_bytes(4) + b"IDAT" + deep[41:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "ends within a chunk" in refused(lambda: read_image(path))
    path.write_bytes(deep[:33] + (2**31 - 1).to_bytes(4) + b"teXt" + deep[33:])
    assert "damaged" in refused(lambda: read_image(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


def test_a_png_that_is_too_short_for_its_pixels_takes_no_memory(tmp_path: Path) -> None:
    """Black compresses best: 1 bit a pixel comes near the bound, and is read."""
    path = tmp_path / "black.png"
    Image.new("1", (6000, 6000)).save(path, optimize=True)
    assert 6000 * 6000 / path.stat().st_size > 8000
    assert not read_image(path).any()
    content = bytearray(path.read_bytes())
    content[16:24] = (10_000).to_bytes(4) * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    path.write_bytes(content)
    assert "bytes hold no picture of 10000x10000" in refused(lambda: read_image(path))


def test_a_webp_of_some_bytes_takes_no_gigabytes(tmp_path: Path) -> None:
    """Lossless WebP needs no bytes for pixels of one colour: its size is only in its header."""
    path = tmp_path / "flat.webp"
    Image.new("RGB", (1000, 1000), "red").save(path, lossless=True)
    assert path.stat().st_size < 100 and (read_image(path) == [255, 0, 0]).all()
    content = bytearray(path.read_bytes())
    start = content.index(b"VP8L") + 9  # two numbers of 14 bits: width and height, less one
    content[start : start + 4] = (9999 | 9999 << 14).to_bytes(4, "little")
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "bytes hold no picture of 10000x10000" in refused(lambda: read_image(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


@pytest.mark.parametrize("side", [11_000, 30_000])
def test_a_huge_image_is_refused_from_its_header(side: int, tmp_path: Path) -> None:
    """A PNG header that claims 121 or 900 million pixels: over our cap, and over Pillow's."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = png_bytes()
    crc = struct.pack(">I", zlib.crc32(header))
    (tmp_path / "bomb.png").write_bytes(data[:12] + header + crc + data[33:])
    assert "120 million pixels" in refused(lambda: read_image(tmp_path / "bomb.png"))


def test_the_cap_holds_for_arrays_and_pil_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 23)
    assert "million pixels" in refused(lambda: read_image(COLOUR))
    assert "million pixels" in refused(lambda: read_image(Image.fromarray(COLOUR)))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_of_unknown_range_are_refused(kind: type, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "values.tif", GREY.astype(kind))
    assert "unknown range" in refused(lambda: read_image(tmp_path / "values.tif"))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32, but it must be uint8; scale it"),
        (np.zeros((4, 4), bool), "bool, but it must be uint8; scale it"),
        (np.zeros((4, 4, 3), np.uint16), "uint16, but it must be uint8; scale it"),
        (np.zeros((3, 4, 4, 3), np.uint8), "(3, 4, 4, 3)"),
        (np.zeros((3, 40, 40), np.uint8), "channels last"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        (12, "is a int"),
    ],
)
def test_other_arrays_are_refused_with_what_to_do(array: object, says: str) -> None:
    assert says in refused(lambda: read_image(array))  # type: ignore[arg-type]


def test_writing_is_lossless_and_replaces_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "photo.png"
    for pixels in (COLOUR, COLOUR[::-1], GREY):
        write_image(path, pixels)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    assert [file.name for file in path.parent.iterdir()] == ["photo.png"]


def test_writing_refuses_what_would_lose_something(tmp_path: Path) -> None:
    assert "lossless" in refused(lambda: write_image(tmp_path / "mask.jpg", GREY))
    for bad in (GREY / 255, np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)):
        assert "image array" in refused(lambda bad=bad: write_image(tmp_path / "x.png", bad))
    assert list(tmp_path.iterdir()) == []


def chunk(kind: bytes, body: bytes, check: int = 0) -> bytes:
    """A chunk of a PNG file; its check sum is wrong if ``check`` is not 0."""
    code = zlib.crc32(kind + body) ^ check
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", code)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Texts as AI tools write them, of which Pillow refuses 1 MB, and 64 MB together.
        (chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 2_000_000)), b""),
        (b"", chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 2_000_000))),
        (chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2_000_000))), b""),
        (70 * chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 1_000_000)), b""),
        (chunk(b"tEXt", b"Software\0x", check=1), b""),
    ],
)
def test_a_png_is_read_whatever_metadata_it_has(
    before: bytes, after: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(COLOUR).save(path)
    data = path.read_bytes()
    path.write_bytes(data[:33] + before + data[33:-12] + after + data[-12:])
    np.testing.assert_array_equal(read_image(path), COLOUR)
    assert read_header(path) == (6, 4, 1)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_gives_the_size_of_the_image_as_it_is_read(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(COLOUR).save(path, exif=exif)
    height, width = read_image(path).shape[:2]
    assert read_header(path) == (width, height, orientation)
    np.testing.assert_array_equal(turn(COLOUR, orientation), upright(COLOUR, orientation))


def test_an_orientation_behind_the_pixels_of_a_png_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(COLOUR).save(path)
    with_exif(path, 6)
    data = path.read_bytes()
    end = 33 + 12 + struct.unpack(">I", data[33:37])[0]
    path.write_bytes(data[:33] + data[end:-12] + data[33:end] + data[-12:])
    np.testing.assert_array_equal(read_image(path), upright(COLOUR, 6))
    assert read_header(path) == (4, 6, 6)


@pytest.mark.parametrize("layout", ["separate", "contig", "miniswhite", "signed"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_a_rare_tiff_is_read_exactly_or_refused(
    layout: str, byte_order: str, tmp_path: Path
) -> None:
    """16 bits in planes gave other pixels, without a word; tifffile writes and is the reference."""
    path = tmp_path / "photo.tif"
    if layout in ("separate", "contig"):
        values = np.moveaxis(DEEP[..., :3], -1, 0) if layout == "separate" else DEEP[..., :3]
        tifffile.imwrite(path, values, photometric="rgb", planarconfig=layout, byteorder=byte_order)
    else:
        values = DEEP[..., 0].astype(np.int16 if layout == "signed" else np.uint16)
        photometric = "minisblack" if layout == "signed" else "miniswhite"
        tifffile.imwrite(path, values, photometric=photometric, byteorder=byte_order)
    if layout == "contig":
        np.testing.assert_array_equal(read_image(path), tifffile.imread(path) // 256)
    else:
        says = refused(lambda: read_image(path))
        assert any(part in says for part in ("rare layout", "not an image", "32-bit"))


def test_the_first_page_of_a_tiff_must_be_the_picture(tmp_path: Path) -> None:
    big, small = (RNG.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (32, 4))
    path = tmp_path / "scan.tif"

    def write(*pages: tuple[NDArray[np.uint8], int]) -> None:
        with tifffile.TiffWriter(path) as file:
            for pixels, kind in pages:
                file.write(pixels, photometric="rgb", subfiletype=kind)

    write((big, 0), (small, 1))  # the picture and its thumbnail
    np.testing.assert_array_equal(read_image(path), big)
    for pages in ([(big, 0), (small, 0)], [(small, 1), (big, 0)], [(small, 1)]):
        write(*pages)
        assert "the first is not the only picture" in refused(lambda: read_image(path))
    tifffile.imwrite(path, np.stack([big] * 3), photometric="rgb", volumetric=True)
    assert "has a rare layout" in refused(lambda: read_image(path))
    tag = [(50706, 1, 4, b"\1\4\0\0", True)]
    tifffile.imwrite(path, small, photometric="rgb", extratags=tag)
    assert "camera's raw file" in refused(lambda: read_image(path))

"""Forged crops for pre-training, drawn anew for every step: a photograph with a history, and in it
content that has none."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import nn

from dinolizer.data.degradations import blur, gaussian_noise, jpeg, to_uint8, webp
from dinolizer.pocket import forging
from dinolizer.pocket.forging import SHARED, SHRINKING, Image, Mask, past, resized
from dinolizer.pocket.generators import DOWNSAMPLING, AutoEncoder

SHARINGS = {"none": 0.45, "jpeg": 0.25, "webp": 0.07, "resize": 0.13, "noise": 0.05, "blur": 0.05}
"""What is done to a finished picture, and how often."""
AREA_RANGE = (0.02, 0.6)
FILLS = {"clean": 0.3, "decoded": 0.45, "enlarged": 0.15, "classical": 0.1}
"""Where the content of an edit comes from, and how often: a photograph shrunk until no trace of its
own compression is left; such a one out of a generator's decoder, or enlarged again; diffusion."""
WHOLE = 0.2  # share of forgeries of small crops that go through an auto-encoder as a whole
CLEAN = 0.15  # share of photographs without a past, as scans are: a shrunk one fills unseen
PERTURBATION = (0.01, 0.08)  # spread of noise on a decoder's weights, as a share: log-uniform
WHOLE_SIDE = 256  # side of the crops that pass through an auto-encoder as a whole, in pixels
WHOLES = 50  # how many such crops there are of each generator


class Twins(NamedTuple):
    """A crop of a photograph and the same crop forged, uint8 ``(S, S, 3)``; the mask of the edit,
    bool ``(S, S)``."""

    real: Image
    fake: Image
    mask: Mask


@dataclass
class Forge:
    """Draws twins from photographs, uint8 ``(H, W, 3)``, with generators by name. What a decoder
    makes of a whole photograph is kept and used again, in other places and shapes: a decoder costs
    more than all the rest. It depends on nothing but the photograph's number, the generator and the
    seed, so that equal steps give equal twins whatever was drawn before."""

    photos: Sequence[Image]
    generators: Mapping[str, AutoEncoder]
    seed: int
    kept: dict[tuple[str, str, int], Any] = field(default_factory=dict, repr=False)

    def draw(self, side: int, rng: np.random.Generator) -> Twins:
        """Draw a photograph's crop of a side in pixels and its forgery, both shared alike."""
        way = _chosen(SHARINGS, rng)
        if self.generators and side <= WHOLE_SIDE and rng.random() < WHOLE:
            name = str(rng.choice(list(self.generators)))
            number = int(rng.integers(min(WHOLES, len(self.photos))))
            real, fake, mask = self._whole(name, number)
        else:
            room = _room(side, way)
            real, clean = self._photograph(room, rng)
            mask = forging.random_mask(room, room, forging.log_uniform_area(rng, AREA_RANGE), rng)
            fake = blended(real, self._fill(real, mask, rng, clean), mask, rng)
        shown = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
        seed = int(rng.integers(2**32))
        real, fake = shared([real, fake], way, side, np.random.default_rng(seed))
        # The mask takes the same place; what compression does to it is cut off at one half.
        geometry = way if way == "resize" else "none"
        (moved,) = shared([shown], geometry, side, np.random.default_rng(seed))
        return Twins(real, fake, moved[..., 0] > 127)

    def draw_real(self, side: int, rng: np.random.Generator) -> Image:
        """Draw a photograph's crop with a past and a sharing of the same kinds, and no forgery."""
        way = _chosen(SHARINGS, rng)
        return shared([self._photograph(_room(side, way), rng)[0]], way, side, rng)[0]

    def _photograph(self, room: int, rng: np.random.Generator) -> tuple[Image, bool]:
        """A crop of a photograph, and whether it is clean: without a past."""
        photo = self.photos[int(rng.integers(len(self.photos)))]
        clean = rng.random() < CLEAN
        return forging.tiled(photo, (room, room), rng) if clean else past(photo, room, rng), clean

    def _fill(self, real: Image, mask: Mask, rng: np.random.Generator, clean: bool) -> Image:
        """Content for a whole crop, of which the mask is used."""
        kind = _chosen(FILLS, rng)
        if clean and kind == "clean":
            kind = "decoded"
        number = int(rng.integers(len(self.photos)))
        if kind == "classical":  # the third method takes a second a crop
            return forging.inpaint_classically(real, mask, str(rng.choice(forging.CLASSICAL[:2])))
        if kind == "decoded" and self.generators:
            source = self._decoded(str(rng.choice(list(self.generators))), number)
        else:
            source = resized(self.photos[number], rng.uniform(*SHRINKING), rng)
            if kind == "enlarged":
                source = resized(source, rng.uniform(1.2, 2.2), rng)
        content = forging.mirrored(source, mask.shape, rng)
        if rng.random() < 0.5:
            content = _softened(content, rng)
        if rng.random() < 0.5:  # the mean colour of the filled region becomes that of the crop
            content = to_uint8(content + (real.mean(axis=(0, 1)) - content[mask].mean(axis=0)))
        return content

    def _decoded(self, name: str, number: int) -> Image:
        """A shrunk photograph out of a decoder: its own latents, noised, or blended with others."""
        key = ("decoded", name, number)
        if key not in self.kept:
            rng = self._rng(name, number, 0)
            source = resized(self.photos[number], rng.uniform(*SHRINKING), rng)
            height, width = (length - length % DOWNSAMPLING for length in source.shape[:2])
            model = self.generators[name]
            with torch.inference_mode():
                latents = model.encode(forging.to_tensor(source[:height, :width]))
                draw = rng.random()
                if draw < 0.3:
                    noise = rng.standard_normal(latents.shape, dtype=np.float32)
                    spread = rng.uniform(0.05, 0.4) * latents.std(dim=(2, 3), keepdim=True)
                    latents = latents + spread * torch.from_numpy(noise)
                elif draw < 0.4:
                    latents = 0.5 * (latents + latents.flip(3))
                elif draw < 0.85:
                    model = perturbed(model, rng)
                self.kept[key] = forging.to_image(model.decode(latents))
        return self.kept[key]

    def _whole(self, name: str, number: int) -> Twins:
        """A crop and its forgery that passed through an auto-encoder as a whole."""
        key = ("whole", name, number)
        if key not in self.kept:
            rng = self._rng(name, number, 1)
            real = past(self.photos[number], WHOLE_SIDE, rng)
            area, side = forging.log_uniform_area(rng, AREA_RANGE), WHOLE_SIDE
            mask = forging.random_mask(side, side, area, rng)
            other = self.photos[int(rng.integers(len(self.photos)))]
            source = resized(other, rng.uniform(*SHRINKING), rng)
            pasted = blended(real, forging.mirrored(source, mask.shape, rng), mask, rng)
            with torch.inference_mode():
                fake = forging.to_image(self.generators[name](forging.to_tensor(pasted)))
            self.kept[key] = Twins(real, fake, mask)
        return self.kept[key]

    def _rng(self, name: str, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, list(self.generators).index(name), *numbers])


def _room(side: int, way: str) -> int:
    """Side of what a crop is cut from, after a sharing that may shrink it."""
    return side if way != "resize" else int(np.ceil(side / SHARED["resize"][0]))


def _chosen(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


def blended(real: Image, content: Image, mask: Mask, rng: np.random.Generator) -> Image:
    """Put content into a mask, half of the time with an edge some pixels soft."""
    if rng.random() < 0.5:
        return np.where(mask[..., None], content, real)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(0.7, 4))[..., None]
    # Inside the mask only: what is called real is untouched.
    mixed = soft * content + (1 - soft) * real
    return np.where(mask[..., None], np.rint(mixed), real).astype(np.uint8)


def perturbed(model: AutoEncoder, rng: np.random.Generator) -> AutoEncoder:
    """A generator that no one has trained: every weight some per cent off, and some of its stages
    up-sampled in another way."""
    model, spread = copy.deepcopy(model), float(np.exp(rng.uniform(*np.log(PERTURBATION))))
    for weight in model.parameters():
        noise = rng.standard_normal(weight.shape, dtype=np.float32)
        weight.data *= 1 + spread * torch.from_numpy(noise)
    for layer in model.modules():
        if isinstance(layer, nn.Upsample) and rng.random() < 0.25:
            layer.mode = str(rng.choice(["bilinear", "bicubic"]))
    return model


def _softened(content: Image, rng: np.random.Generator) -> Image:
    """Blur a little, resample, or shake a little: networks do not fill in as sharply as lenses."""
    way = rng.integers(3)
    if way == 0:
        return np.asarray(cv2.GaussianBlur(content, (0, 0), rng.uniform(0.35, 1.1)), np.uint8)
    if way == 1:
        small = resized(content, rng.uniform(0.55, 0.95), rng)
        again = cv2.resize(small, content.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return np.asarray(again, np.uint8)
    grain = rng.standard_normal((*content.shape[:2], 1), dtype=np.float32)
    smooth = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.4, 0.9))[..., None]
    return to_uint8(content + smooth * (rng.uniform(1, 5) / smooth.std()))


def shared(images: Sequence[Image], way: str, side: int, rng: np.random.Generator) -> list[Image]:
    """Put twins of one size through the same sharing, of `SHARINGS`, and cut the same square."""
    seed, level = int(rng.integers(2**32)), rng.random()
    subsampling = "4:2:0" if rng.random() < 0.7 else "4:4:4"
    corner = rng.random(2)

    def share(image: Image) -> Image:
        again = np.random.default_rng(seed)
        low, high = SHARED.get(way, (0.0, 0.0))
        at = low + level * (high - low)
        if way == "resize":
            image = resized(image, at, again, side)
        top, left = (int(c * (n - side + 1)) for c, n in zip(corner, image.shape[:2], strict=True))
        image = np.ascontiguousarray(image[top : top + side, left : left + side])
        ways = {
            "jpeg": lambda: jpeg(image, round(at), subsampling),
            "webp": lambda: webp(image, round(at)),
            "noise": lambda: gaussian_noise(image, at, again),
            "blur": lambda: blur(image, at),
        }
        return ways.get(way, lambda: image)()

    return [share(image) for image in images]

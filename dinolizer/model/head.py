"""The linear head, a 1x1 convolution, and its file, with its card and any adapter."""

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dinolizer.errors import InputError, check_choice, refuse
from dinolizer.model.backbones import Backbone
from dinolizer.model.localization import noise_level
from dinolizer.model.lora import Lora, merged
from dinolizer.model.specs import Reduce, Small
from dinolizer.model.weights import check_finite, misfit
from dinolizer.model.windows import Restore
from dinolizer.paths import check_regular, write_file

CLASSES = {"pristine": 1, "fake": 1, "three-class": 3}
"""Label policy to the number of channels of the head's logits."""
MAX_WINDOW = 4096
"""Pixels; a window of many patches takes memory with the square of their number."""
KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("backbone", "backbone_hash", "about"), (str,)),
    **dict.fromkeys(("window", "stride"), (int,)),
    **{"threshold": (int, float), "score_threshold": (int, float, type(None))},
}
"""Types of the values of a card in a file; the others are checked as they are used."""
SPANS = ("megapixels", "noise")
"""Of a card, what older heads do not know."""
LIKE = 4
"""By this factor a picture may have more or fewer pixels than the untouched photographs."""
ADAPTER = "adapter."
"""What the names of an adapter's tensors begin with in the file of a head."""


@dataclass(frozen=True)
class HeadCard:
    """What a head was made for, stored inside its file."""

    backbone: str  #: name of the backbone that it was trained on
    backbone_hash: str  #: SHA-256 of its weights, any adapter apart
    policy: str  #: what re-encoded pixels outside of the edit were labelled as, a key of `CLASSES`
    window: int  #: pixels
    stride: int  #: pixels
    threshold: float = 0.5  #: a pixel is in the mask where its probability is over it (strictly)
    reduce: Reduce = "sum"  #: what the logits of overlapping windows become
    small: Small = "resize"  #: what is done to an image under a window, see `windows.make_plan`
    restore: Restore = "bilinear"  #: how the map of a resized image is, see `windows.Plan`
    score_threshold: float | None = None  #: over it an image is called edited; None: not known
    untouched: tuple[float, ...] = ()  #: scores of photographs that nobody edited, ascending
    megapixels: tuple[float, float] | None = None  #: least and most that these have, where known
    noise: tuple[float, float] | None = None  #: least and most `noise_level` of these
    about: str = ""  #: free text: data, seed, time, machine, licence, which untouched photographs
    lora: Lora | None = None  #: settings of the adapter that was trained along

    def __post_init__(self) -> None:
        check_choice("head's policy", self.policy, CLASSES)
        for name, choices in (("reduce", Reduce), ("small", Small), ("restore", Restore)):
            check_choice(f"head's {name}", getattr(self, name), get_args(choices))
        for threshold in (self.threshold, self.score_threshold or 0):
            wrong = f"The threshold is {threshold}, but a probability from 0 to 1 is expected."
            refuse({wrong: not 0 <= threshold <= 1})
        sides = f"The stride is {self.stride} and the window {self.window} pixels"
        limits = f"a stride from 1 to the window, and a window of at most {MAX_WINDOW} pixels"
        are_scores = all(0 <= score <= 1 for score in self.untouched)
        refuse(
            {
                f"{sides}, but {limits}, are expected.": (
                    not 0 < self.stride <= self.window <= MAX_WINDOW
                ),
                "The head's untouched scores are not ascending numbers from 0 to 1.": (
                    not are_scores or list(self.untouched) != sorted(self.untouched)
                ),
            }
        )
        for name in SPANS:
            span = getattr(self, name)
            if span and not (len(span) == 2 and 0 <= span[0] <= span[1] < float("inf")):
                due = "but two ascending numbers are due"
                raise InputError(f"The head's span of {name} is {span}, {due}.")

    def rank(self, score: float) -> float | None:
        """Share of the untouched photographs with a lower score, None where it is not known."""
        if not self.untouched:
            return None
        return bisect_left(self.untouched, score) / len(self.untouched)

    def unlike(self, image: NDArray[np.uint8]) -> str:
        """In what an image ``(H, W, 3)`` differs from the untouched photographs too much for its
        score to be compared with theirs; empty if in nothing that is known."""
        size = image.shape[0] * image.shape[1] / 1e6
        least, most = self.megapixels or (0, np.inf)
        if not least / LIKE <= size <= LIKE * most:
            return f"it has {size:.2g} megapixels{_calibrated_on(least, most)}"
        least, most = self.noise or (0, np.inf)
        if self.noise and not least <= (noise := noise_level(image)) <= most:
            return f"its noise is {noise:.2g} grey levels{_calibrated_on(least, most)}"
        return ""


def _calibrated_on(*ends: float) -> str:
    known = " to ".join(dict.fromkeys(f"{end:.2g}" for end in ends))
    return f", and the score is calibrated on {known}"


def card_for(
    backbone: Backbone, about: str = "", policy: str = "pristine", lora: Lora | None = None
) -> HeadCard:
    """The card of a head trained on a backbone, with the settings of the backbone's spec; but the
    logits of three classes are averaged, as in the later release: their softmax depends on it."""
    spec = backbone.spec
    return HeadCard(
        backbone=spec.name,
        backbone_hash=backbone.hash,
        policy=policy,
        window=spec.window,
        stride=spec.stride,
        reduce="mean" if CLASSES.get(policy, 1) > 1 else spec.reduce,
        small=spec.small,
        about=about,
        lora=lora,
    )


def probabilities(logits: Tensor) -> Tensor:
    """Of one channel the sigmoid, of three the softmax: ``(..., C, h, w)``; the last is edited."""
    return logits.sigmoid() if logits.shape[-3] == 1 else logits.softmax(dim=-3)


def make_head(dim: int, classes: int = 1) -> nn.Conv2d:
    """An all-zero 1x1 convolution, ``(N, dim, h, w) -> (N, classes, h, w)``."""
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        head = nn.Conv2d(dim, classes, kernel_size=1)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head


def save_head(
    path: Path, head: nn.Conv2d, card: HeadCard, adapter: Mapping[str, Tensor] | None = None
) -> None:
    """Write a head as safetensors, its card in the metadata; where that says ``lora``, with the
    tensors of `dinolizer.model.lora.adapter_tensors`. Equal ones give equal bytes."""
    tensors = dict(head.state_dict())
    tensors |= {ADAPTER + name: tensor for name, tensor in (adapter or {}).items()}
    write_head(path, tensors, card)


def write_head(path: Path, tensors: Mapping[str, Tensor], card: HeadCard) -> None:
    """Write the tensors of a head's file, by the names that they have there, and a card."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(stored, {name: json.dumps(value) for name, value in asdict(card).items()})
    # The library writes the names of metadata in random order; equal heads are to be equal files.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    write_file(path, len(header).to_bytes(8, "little") + header + content[end:])


def read_head(path: Path) -> tuple[HeadCard, dict[str, Tensor]]:
    """Card and tensors of a head's file, or an `InputError`."""
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        whole = "give a whole head file, as dinolizer.model.head.save_head writes it"
        reason = str(error).rstrip(".")
        raise InputError(f"The head {path} cannot be read ({reason}); {whole}.") from None
    return _card(metadata, path), tensors


def load_head(path: Path, backbone: Backbone) -> tuple[Backbone, nn.Conv2d, HeadCard]:
    """Read a head to the device of the backbone it was trained on: backbone, head, card. The
    backbone returned is the one whose tokens the head reads: the one given or, where the head has
    an adapter, a copy with the adapter merged. Raises `InputError` for a file that is missing,
    damaged or no head, and for the head of another backbone."""
    card, tensors = read_head(path)
    check_finite(tensors, str(path))
    if (card.backbone, card.backbone_hash) != (backbone.spec.name, backbone.hash):
        raise InputError(
            f"The head {path} was trained on {card.backbone!r} (weights "
            f"{card.backbone_hash[:12]}), but the backbone is {backbone.spec.name!r} (weights "
            f"{backbone.hash[:12]}); load that backbone, or train a head on this one."
        )
    names = [name for name in tensors if card.lora and name.startswith(ADAPTER)]
    adapter = {name.removeprefix(ADAPTER): tensors.pop(name) for name in names}
    head = make_head(backbone.dim, CLASSES[card.policy])
    if misfit(tensors, {name: tuple(value.shape) for name, value in head.state_dict().items()}):
        layer = f"a 1x1 convolution of {backbone.dim} values to {CLASSES[card.policy]}"
        promised = "which its card promises; train it again"
        raise InputError(f"The head {path} does not hold {layer}, {promised}.")
    head.load_state_dict(tensors)
    head = head.eval().requires_grad_(False).to(backbone.device, torch.float32)
    return (merged(backbone, card.lora, adapter) if card.lora else backbone), head, card


def _card(metadata: dict[str, str], path: Path) -> HeadCard:
    names = [field.name for field in fields(HeadCard)]
    missing = [name for name in names if name not in metadata and name not in SPANS]
    if missing:
        given = f"its metadata lacks {missing[0]!r}; give one written by save_head"
        raise InputError(f"The file {path} is no head: {given} of dinolizer.model.head.")
    try:
        values = {name: json.loads(metadata.get(name, "null")) for name in names}
        if any(type(values[name]) not in kinds for name, kinds in KINDS.items()):
            raise TypeError
        values["untouched"] = tuple(values["untouched"])
        values |= {name: values[name] and tuple(values[name]) for name in SPANS}
        return HeadCard(**values | {"lora": values["lora"] and Lora(**values["lora"])})
    except InputError:
        raise
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"The card of the head {path} is damaged; train the head again.") from None

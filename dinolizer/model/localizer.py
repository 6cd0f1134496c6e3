"""From one photograph to a map of what was inpainted in it."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from dinolizer.data.images import file_facts, read_image
from dinolizer.errors import InputError, check_choice, unwatched
from dinolizer.model import weights as weight_files
from dinolizer.model.backbones import Backbone, load_backbone, pick_device
from dinolizer.model.batches import Batches, as_batch, batch_size
from dinolizer.model.engines import check_engine, fastest, tokens_by
from dinolizer.model.head import HeadCard, load_head, probabilities, read_head
from dinolizer.model.localization import Localization, gathered
from dinolizer.model.specs import BACKBONES, Reduce, Small
from dinolizer.model.windows import Pixels, Plan, assemble, make_plan, restored, strips

Source = str | Path | Image.Image | NDArray[np.uint8]
"""What `dinolizer.data.images.read_image` reads."""
PRECISIONS = ("float32", "bfloat16", "float16")
COUNTED = 30
"""Windows of an image up to which none are counted."""


class Settings(TypedDict, total=False):
    """What a localizer may do otherwise than its card, see `HeadCard`; None is what that says."""

    stride: int | None
    threshold: float | None
    reduce: Reduce | None
    small: Small | None
    precision: str | None
    engine: str | None


class Localizer:
    """A backbone and a head, callable on a photograph.

    Parameters
    ----------
    backbone, head : ``backbone(batch)`` gives tokens ``(N, D, h, w)``, ``head(tokens)`` logits
        ``(N, C, h, w)``; of one channel the sigmoid is taken, of three (softmax) the last.
    precision : of the backbone's products, by torch's autocast; by default ``"float32"``, or what
        the engine ``"auto"`` chooses. Only with ``"float32"`` is a map that of a plain loop to
        1e-4; ``"bfloat16"`` and ``"float16"`` pay where the hardware is faster with them.
    engine : what runs the backbone: ``"torch"``; on a CPU also ``"openvino"`` or ``"onnx"`` (ONNX
        Runtime), where they are installed; or ``"auto"``, see `dinolizer.model.engines.fastest`."""

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        card: HeadCard,
        *,
        precision: str | None = None,
        engine: str = "torch",
    ) -> None:
        if card.window % (patch := backbone.spec.patch):
            due = f"but it must be a multiple of the patch of {patch}"
            raise InputError(f"The window is {card.window} pixels, {due}.")
        check_choice("precision", precision or "float32", PRECISIONS)
        self.backbone = backbone
        self.head = head.eval().to(backbone.device)
        self.card = card
        self.precision = precision or "float32"
        self._batches = Batches()
        check_engine(engine, self.precision, backbone.device)
        self.engine = "torch" if engine == "auto" else engine
        if engine == "auto":
            self.engine, self.precision = fastest(self, any_precision=precision is None)

    @classmethod
    def from_pretrained(
        cls,
        name: str | None = None,
        head: str | Path | None = None,
        device: str | torch.device | None = None,
        weights: str | Path | None = None,
        **settings: Unpack[Settings],
    ) -> "Localizer":
        """Load a backbone and its head.

        ``name`` is a key of `dinolizer.model.specs.BACKBONES`, by default that of the ``head``, or
        the authors' released model where it has been fetched, else the demonstration. Or it says
        where a head is: a repository ``USER/NAME`` of the Hugging Face hub, or a folder like that.
        ``head`` is a head's file, by default the backbone's, ``weights`` a safetensors file to use
        in place of its own, ``device`` ``"cpu"`` or ``"cuda"``, by default the GPU if there is one.
        What is unknown, missing or made for another model is an `InputError`."""
        if name is not None and name not in BACKBONES and (Path(name).is_dir() or "/" in name):
            local = Path(name) / weight_files.HUB_FILE
            head, name = local if local.is_file() else weight_files.hub_file(name, name), None
        usual = "dinolizer" if weight_files.fetched_path("dinolizer").is_file() else "pocket"
        name = name or (usual if head is None else read_head(Path(head))[0].backbone)
        backbone = load_backbone(name, None if weights is None else Path(weights), device)
        path = weight_files.head_file(name) if head is None else Path(head)
        if not path.is_file():
            advice = "name one that was trained on it, as 'dinolizer train' does"
            raise InputError(f"There is no head {path} for the model {name!r}; {advice}.")
        if head is None and backbone.spec.fetched:
            weight_files.checked(name, path)
        return cls(*load_head(path, backbone)).with_settings(**settings)

    def with_settings(self, **settings: Unpack[Settings]) -> "Localizer":
        """A copy with other settings, of the same backbone and head; what is None stays."""
        precision = settings.pop("precision", None)
        engine = settings.pop("engine", None) or self.engine
        if engine != "auto":
            precision = precision or self.precision
        now = vars(self.card)
        changes: dict[str, Any] = {
            n: new for n, new in settings.items() if new not in (None, now[n])
        }
        if changes.keys() - {"threshold"}:
            changes |= {"untouched": (), "megapixels": None, "noise": None}  # of other settings
        card = replace(self.card, **changes)
        return Localizer(self.backbone, self.head, card, precision=precision, engine=engine)

    def to(self, device: str | torch.device) -> "Localizer":
        """Move backbone and head to a device that `pick_device` accepts, and return itself."""
        chosen = pick_device(device)
        check_engine(self.engine, self.precision, chosen)
        self.backbone.to(chosen)
        self.head.to(self.backbone.device)
        self.__dict__.pop("batch", None)  # that is another on another device
        return self

    def __repr__(self) -> str:
        shown = self.settings | {"device": str(self.backbone.device)}
        pairs = (f"{name}={value!r}" for name, value in shown.items() if "hash" not in name)
        return f"Localizer({', '.join(pairs)})"

    @property
    def window(self) -> int:
        """Side of a window, in pixels."""
        return self.card.window

    @property
    def stride(self) -> int:
        """Step from one window to the next, in pixels."""
        return self.card.stride

    @property
    def settings(self) -> dict[str, Any]:
        """What a map depends on, the photograph apart, as values of JSON."""
        spec, card = self.backbone.spec, self.card
        of_card = ("window", "stride", "threshold", "reduce", "small", "restore", "score_threshold")
        return {
            "model": spec.name,
            "licence": spec.licence,
            "caution": spec.caution,
            "backbone_hash": self.backbone.hash,
            "head_hash": weight_files.weights_hash(self.head),
            "precision": self.precision,
            "engine": self.engine,
            **{name: getattr(card, name) for name in of_card},
            "untouched": len(card.untouched),
        }

    def __call__(self, source: Source, *, progress: bool = False) -> Localization:
        """Localize what was inpainted in a photograph; for what can be read see `read_image`. With
        ``progress`` the windows of a large one are counted on a terminal."""
        image = read_image(source)
        name = str(source) if isinstance(source, str | Path) else ""
        file = file_facts(name) if name else {}
        start, plan = time.perf_counter(), self.plan(*image.shape[:2])
        result = self.localization(image, plan, self.patch_logits(image, plan, progress), name)
        return replace(result, seconds=time.perf_counter() - start, file=file)

    def predict(self, sources: Iterable[Source]) -> list[NDArray[np.bool_]]:
        """Masks, bool ``(H, W)`` each, of photographs of any sizes: as estimators of scikit-learn,
        for `map` without what else it gives. Raises `InputError` for the first that is none."""
        return [self(source).mask for source in sources]

    def predict_proba(self, sources: Iterable[Source]) -> list[NDArray[np.float32]]:
        """Maps, float32 ``(H, W)`` each, of the probability that a pixel was generated."""
        return [self(source).probability for source in sources]

    def map(self, sources: Iterable[Source]) -> Iterator[Localization | InputError]:
        """Localize photographs one after the other; an error takes its turn, and others go on."""
        for source in sources:
            try:
                yield self(source)
            except InputError as error:
                yield error

    def plan(self, height: int, width: int) -> Plan:
        """What is done to a photograph of that size, in pixels."""
        names = ("window", "stride", "small", "reduce", "restore")
        settings: dict[str, Any] = {name: getattr(self.card, name) for name in names}
        return make_plan((height, width), patch=self.backbone.spec.patch, **settings)

    @cached_property
    def batch(self) -> int:
        """Windows in a batch, see `batch_size`."""
        return batch_size(self.backbone.device, self.window)

    @cached_property
    def _tokens(self) -> Callable[[Tensor], Tensor]:
        if self.engine == "torch":
            return self.backbone
        return tokens_by(self.engine, self.backbone, self.window, self.precision)

    def patch_logits(
        self, image: NDArray[np.uint8], plan: Plan, progress: bool = False
    ) -> Iterator[Tensor]:
        """Logits ``(n, C, h, w)`` of an image's windows, batch by batch."""
        windows = plan.windows(image, self.backbone.device)
        hidden = not progress or len(windows) <= COUNTED or unwatched()
        with tqdm(total=len(windows), unit="window", leave=False, disable=hidden) as bar:
            for first in range(0, len(windows), self.batch):
                batch = windows[first : first + self.batch]
                yield self.window_logits(batch)
                bar.update(len(batch))

    @torch.inference_mode()
    def window_logits(self, windows: list[Pixels]) -> Tensor:
        """Logits ``(N, C, h, w)`` at patch resolution of windows uint8 ``(H, W, 3)`` of one size,
        in one batch if memory allows; NaN or infinity is an `InputError`."""
        device, lower = self.backbone.device, getattr(torch, self.precision)

        def run(batch: Iterable[Pixels]) -> Tensor:
            with torch.autocast(device.type, lower, enabled=lower != torch.float32):
                tokens = self._tokens(as_batch([*batch], device))
            logits: Tensor = self.head(tokens.float())
            if not (logits.abs() < 1e30).all():  # not a number, or its windows' sums will be none
                values = "logits of the head" if tokens.isfinite().all() else "tokens"
                advice = f"in {self.precision}; use the precision float32, or other weights"
                name = self.backbone.spec.name
                raise InputError(f"The {values} of {name!r} are not all finite {advice}.")
            return logits

        return torch.cat(self._batches.run(run, windows))

    @torch.inference_mode()
    def logits(self, image: NDArray[np.uint8]) -> Tensor:
        """Logits of an image, uint8 ``(H, W, 3)`` RGB: float32 ``(C, H, W)`` on the device."""
        plan = self.plan(*image.shape[:2])
        return assemble(plan, self.patch_logits(image, plan))

    @torch.inference_mode()
    def localization(
        self,
        image: NDArray[np.uint8],
        plan: Plan,
        patch_logits: Iterable[Tensor],
        source: str,
        seconds: float = 0.0,
    ) -> Localization:
        """The map of an image from the logits of all its windows, ``(n, C, h, w)`` as they come."""
        maps = (probabilities(strip)[-1] for strip in strips(plan, patch_logits))
        probability, score = gathered(maps, plan.assembled)
        probability = restored(plan, probability)
        mask = probability > self.card.threshold
        unlike = self.card.unlike(image)
        rank = None if unlike else self.card.rank(score)
        made = (image, source, plan, self.settings, seconds, rank, unlike)
        return Localization(probability, mask, score, *made)

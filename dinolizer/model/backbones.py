"""Frozen vision transformers as sources of patch tokens."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.model.pocket import build_pocket_vit
from dinolizer.paths import ASSETS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNTRAINED_SEED = 0


@dataclass(frozen=True)
class BackboneSpec:
    """What is constant about a backbone.

    Attributes
    ----------
    name
        The key in `BACKBONES`, stored in heads.
    architecture
        Builds the timm model with random weights.
    patch, window, stride
        Side of a patch, side of a window (a multiple of the patch) and default step, in pixels.
    mean, std
        Per RGB channel, for an image in [0, 1].
    weights
        The safetensors file in the package's ``assets``, or None: random weights of a fixed seed.
    licence, citation
        Of the weights.
    """

    name: str
    architecture: Callable[[], VisionTransformer]
    patch: int
    window: int
    stride: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: str | None
    licence: str
    citation: str


BACKBONES = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            name="pocket",
            architecture=build_pocket_vit,
            patch=14,
            window=224,
            stride=112,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            weights="pocket-vit.safetensors",
            licence="Apache-2.0",
            citation="This project; see the card beside the weights.",
        ),
        BackboneSpec(
            name="untrained-pocket",
            architecture=build_pocket_vit,
            patch=14,
            window=224,
            stride=112,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            weights=None,
            licence="Apache-2.0",
            citation="This project; random weights, for tests and as a control.",
        ),
    )
}


class Backbone(nn.Module):
    """A frozen timm vision transformer that gives the normed patch tokens of its last layer.

    It stays in eval mode and without gradients, also where a model that contains it is put in train
    mode. The input is an RGB image in [0, 1]; its normalisation is done here.

    Parameters
    ----------
    spec
        Names the patch and the normalisation.
    model
        The transformer; it is frozen in place.

    Attributes
    ----------
    dim : int
        D, the number of values of a token.
    hash : str
        SHA-256 of the weights, see `weights_hash`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: BackboneSpec, model: VisionTransformer) -> None:
        super().__init__()
        self.spec = spec
        self.model = model.eval().requires_grad_(False)
        self.dim = int(model.embed_dim)
        self.hash = weights_hash(model)
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mean.device

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode: the backbone is frozen, its batch statistics and dropout too."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Tensor) -> Tensor:
        """Patch tokens of a batch of images, without gradients; see `tokens`."""
        return self.tokens(batch)

    def tokens(self, batch: Tensor) -> Tensor:
        """Patch tokens of a batch of images; gradients reach whatever adapter was put inside.

        Parameters
        ----------
        batch
            ``(N, 3, H, W)`` float, RGB in [0, 1]; H and W are multiples of the patch.

        Returns
        -------
        Tensor
            ``(N, D, H / patch, W / patch)``; class token and registers are dropped.

        Raises
        ------
        InputError
            For another type or shape.
        """
        patch = self.spec.patch
        if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point():
            raise InputError(
                f"The batch is {batch.dtype} {tuple(batch.shape)}, but it must be floating-point "
                "(N, 3, H, W), RGB in [0, 1]."
            )
        if batch.shape[2] % patch or batch.shape[3] % patch:
            raise InputError(
                f"The images are {batch.shape[2]}x{batch.shape[3]}, but both sides must be "
                f"multiples of the patch of {patch} pixels: crop or pad them."
            )
        # timm drops the model's own num_prefix_tokens here: 5 with a class token and 4 registers.
        intermediates: list[Tensor] = self.model.forward_intermediates(  # type: ignore[assignment]
            (batch - self.mean) / self.std,
            indices=1,
            norm=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return intermediates[0]  # (N, D, h, w)


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over the sorted names, the shapes and the float32 bytes of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """Device of that name; without a name the GPU where there is one, else the CPU.

    Raises
    ------
    InputError
        For a name torch does not know, and for CUDA where there is none.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(
            f"The device is {str(name)!r}, but it must be one that torch finds here: 'cpu' always "
            "is, and 'cuda' where there is a GPU."
        ) from None
    return device


def load_backbone(
    name: str, weights: Path | None = None, device: str | torch.device | None = None
) -> Backbone:
    """Build a backbone of `BACKBONES` with its weights.

    Parameters
    ----------
    name
        Key in `BACKBONES`.
    weights
        Safetensors file to use in place of the backbone's own.
    device
        See `pick_device`.

    Raises
    ------
    InputError
        For an unknown name, and for weights that are missing, damaged or another model's.
    """
    if name not in BACKBONES:
        raise InputError(f"The model is {name!r}, but it must be one of {list(BACKBONES)}.")
    spec = BACKBONES[name]
    place = pick_device(device)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(UNTRAINED_SEED)
        model = spec.architecture()
    path = weights or (ASSETS / spec.weights if spec.weights else None)
    if path:
        _load_weights(model, path, name)
    return Backbone(spec, model).to(place)


def _load_weights(model: nn.Module, path: Path, name: str) -> None:
    try:
        model.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The weights {path} of {name!r} cannot be read ({error}); a whole safetensors file is "
            "expected."
        ) from None
    except RuntimeError as error:  # names or shapes differ; torch lists all of them over lines
        first = str(error).splitlines()[1].strip().rstrip(".")
        raise InputError(
            f"The weights {path} do not fit the model {name!r} ({first}); give a file made for it."
        ) from None

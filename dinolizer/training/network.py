"""What is trained: the recipe, and a backbone and a head as one module."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.model.backbones import Backbone
from dinolizer.model.head import CLASSES, make_head
from dinolizer.model.lora import Lora
from dinolizer.training.augmentations import Augmentations
from dinolizer.training.heads import Heads

PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class Recipe:
    """What decides the result of a training, the data and the backbone's weights apart.

    The paper's learning rate, batch and epochs are not known: the values are this project's.

    Attributes
    ----------
    policy
        A key of `dinolizer.model.head.CLASSES`.
    lora
        Settings of the adapter that is trained along, or None: the backbone is frozen.
    lr
        Highest learning rate of AdamW; it falls to 0 along a cosine.
    epochs, batch
        Passes over the images, and crops per step, of all processes together.
    patience
        Epochs without a better validation Dice after which a streamed training stops.
    seed
        Of the crops, their order, and the adapter's first values.
    precision
        ``"no"`` (float32), ``"bf16"`` or ``"fp16"``, as Accelerate names them.
    augmentations
        Of the training crops.
    """

    policy: str
    lora: Lora | None
    lr: float
    epochs: int = 20
    batch: int = 32
    patience: int = 5
    seed: int = 0
    precision: str = "no"
    augmentations: Augmentations = field(default_factory=Augmentations)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "patience", "lr"):
            if not getattr(self, name) > 0:
                raise InputError(f"The {name} is {getattr(self, name)}, but it must be over 0.")
        for name, allowed in (("policy", tuple(CLASSES)), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"The {name} is {getattr(self, name)!r}, but it must be one of {list(allowed)}."
                )


class Network(nn.Module):
    """A backbone and a linear head, from uint8 crops to logits.

    The head reads tokens standardised per channel, as in `dinolizer.training.heads.fit_head`, so
    that a learning rate means the same for every backbone; `plain_head` reads them as they are.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = make_head(backbone.dim, classes)
        self.register_buffer("mean", torch.zeros(backbone.dim, 1, 1))
        self.register_buffer("scale", torch.ones(backbone.dim, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits float ``(N, C, h, w)`` of uint8 ``(N, 3, H, W)`` RGB."""
        return self.head((self.tokens(images) - self.mean) * self.scale)

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens ``(N, D, h, w)``; gradients reach the adapter, where there is one."""
        return self.backbone.tokens(images.float() / 255)

    def standardise(self, tokens: Tensor) -> None:
        """Set mean and scale from tokens; a constant channel says nothing and gets the scale 0."""
        std, mean = torch.std_mean(tokens.float(), dim=(0, 2, 3))
        self.mean.copy_(mean[:, None, None])
        self.scale.copy_(torch.where(std > 1e-6, 1 / std, 0)[:, None, None])

    def start_from(self, head: Heads) -> None:
        """Take over a single linear head, with its standardisation."""
        self.mean.copy_(head.mean[0, :, None, None])
        self.scale.copy_(head.scale[0, :, None, None])
        self.head.load_state_dict({"weight": head.weight[0], "bias": head.bias[0]})

    def plain_head(self) -> nn.Conv2d:
        """The head for tokens as they are: ``w . (x - mean) * scale + b = (w scale) . x + b'``."""
        head = make_head(self.backbone.dim, self.head.out_channels)
        state = self.head.state_dict()
        weight = state["weight"] * self.scale
        bias = state["bias"] - torch.einsum("cdij,dij->c", weight, self.mean)
        head.load_state_dict({"weight": weight, "bias": bias})
        return head.eval().requires_grad_(False).to(self.mean.device)

    def trained(self) -> dict[str, Tensor]:
        """Copy what a checkpoint needs: all that is not the frozen backbone."""
        parameters = {name: value for name, value in self.named_parameters() if value.requires_grad}
        tensors = parameters | {"mean": self.mean, "scale": self.scale}
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

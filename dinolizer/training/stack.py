"""Many heads side by side, so that one pass over the tokens fits or asks all of them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dinolizer.model.head import make_head


class Stack(nn.Module):
    """K heads of one shape on the same tokens; each standardises them in its own way.

    The shape is a convolution from tokens to logits: 1x1 is the paper's linear head. With hidden
    values it is followed by a ReLU and by a linear map of them. At the edge of the window the
    outermost tokens are repeated.

    Parameters
    ----------
    count, dim, classes
        K, D and C.
    kernel
        Side of the convolution, in patches; odd.
    hidden
        Hidden values of a patch; 0 for none.
    seed
        Of the random start that hidden values need; all else starts at 0.

    Attributes
    ----------
    mean, scale
        ``(K, D)``: what is subtracted from the tokens, and what they are multiplied by then.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        count: int,
        dim: int,
        classes: int = 1,
        *,
        kernel: int = 1,
        hidden: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.kernel, self.hidden = kernel, hidden
        width = hidden or classes
        self.register_buffer("mean", torch.zeros(count, dim))
        self.register_buffer("scale", torch.ones(count, dim))
        self.weight = nn.Parameter(torch.zeros(count, width, dim, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(count, width))
        if hidden:
            generator = torch.Generator().manual_seed(seed)
            nn.init.normal_(self.weight, std=(dim * kernel**2) ** -0.5, generator=generator)
            self.last_weight = nn.Parameter(torch.zeros(count, classes, hidden))
            self.last_bias = nn.Parameter(torch.zeros(count, classes))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of all heads: tokens ``(N, D, h, w)``, float32, to ``(N, K, C, h, w)``."""
        weight, bias = self.folded()
        border = self.kernel // 2
        padded = F.pad(tokens, (border,) * 4, mode="replicate") if border else tokens
        logits = F.conv2d(padded, weight.flatten(0, 1), bias.flatten())
        if self.hidden:  # each head reads its own hidden values only
            last = self.last_weight.flatten(0, 1)[..., None, None]
            groups = len(self.last_bias)
            logits = F.conv2d(logits.relu(), last, self.last_bias.flatten(), groups=groups)
        return logits.unflatten(1, (len(bias), -1))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weights ``(K, F, D, k, k)`` and biases ``(K, F)`` for tokens as they are:
        ``w . (x - mean) * scale + b = (w * scale) . x + b'``."""
        weight = self.weight * self.scale[:, None, :, None, None]
        return weight, self.bias - torch.einsum("kfdyx,kd->kf", weight, self.mean)

    def take(self, numbers: Sequence[int]) -> "Stack":
        """Copy some of the heads, in the order of the numbers; frozen."""
        chosen = torch.as_tensor(numbers, device=self.weight.device)
        count, classes = len(numbers), (self.last_bias if self.hidden else self.bias).shape[1]
        taken = Stack(
            count, self.mean.shape[1], classes, kernel=self.kernel, hidden=self.hidden
        ).to(self.weight.device)
        taken.load_state_dict({name: part[chosen] for name, part in self.state_dict().items()})
        return taken.eval().requires_grad_(False)

    def linear(self, number: int) -> nn.Conv2d:
        """One of the heads, where they are linear, as the plain 1x1 convolution that it is."""
        weight, bias = (part[number].detach() for part in self.folded())
        head = make_head(weight.shape[1], weight.shape[0]).to(weight.device)
        head.load_state_dict({"weight": weight, "bias": bias})
        return head.eval().requires_grad_(False)

    def cut_at(self, logits: Tensor) -> "Stack":
        """Copy the heads with as much taken off the logits of each, ``(K,)``; frozen.

        What lies over 0 then, lay over that cut before.
        """
        moved = self.take(range(len(self.bias)))
        (moved.last_bias if self.hidden else moved.bias).sub_(logits[:, None])
        return moved

    @property
    def size(self) -> int:
        """Parameters of one head, those of the standardisation being folded into them."""
        return sum(parameter[0].numel() for parameter in self.parameters())

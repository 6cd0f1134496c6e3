"""Weights files: found on the hub or named by the user, read and fitted strictly into a model."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import eva, vision_transformer
from torch import Tensor, nn

from dinolizer.errors import InputError
from dinolizer.model.specs import Transformer

HUB_FILE = "model.safetensors"
PATCH_WEIGHT = "patch_embed.proj.weight"


def hub_file(repository: str, name: str) -> Path:
    """Get the weights file of a hub repository, from the hub's own cache or the network.

    Cache and network are huggingface_hub's: ``HF_HOME``, ``HF_HUB_OFFLINE`` and so on hold.

    Parameters
    ----------
    repository
        For example ``timm/vit_base_patch14_reg4_dinov2.lvd142m``.
    name
        Of the model, for the message.

    Raises
    ------
    InputError
        If it is neither in the cache nor can be downloaded.
    """
    try:
        # The cache first: asking the hub whether it has newer ones takes half a minute offline.
        with suppress(LocalEntryNotFoundError):
            return Path(hf_hub_download(repository, HUB_FILE, local_files_only=True))
        return Path(hf_hub_download(repository, HUB_FILE))
    except Exception as error:  # the errors of its transports share no base
        raise InputError(
            f"The weights of {name!r} ({HUB_FILE} of {repository}) are neither in the hub's cache "
            f"nor could they be downloaded ({type(error).__name__}); connect to the network once, "
            "let HF_HOME name a cache that holds them, or give the file with --weights FILE."
        ) from None


def read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """Read a safetensors file; ``name`` is the model's, for the message.

    Raises
    ------
    InputError
        For a file that is missing, damaged or of another format.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The weights {path} of {name!r} cannot be read ({str(error).rstrip('.')}); give a "
            "whole safetensors file."
        ) from None


def fit_weights(model: Transformer, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Load a state dict into a model: every name and shape must agree.

    Only a position embedding of another grid is resampled, by timm's own checkpoint filter: the hub
    holds DINOv2's for 37x37 patches, and a window of 504 pixels has 36x36.

    Raises
    ------
    InputError
        For the weights of another model; ``path`` and ``name`` are for the message.
    """
    filter_of = eva if isinstance(model, eva.Eva) else vision_transformer
    patch = state.get(PATCH_WEIGHT)
    # timm would resample the patch embedding too, and so make another model's weights fit.
    if patch is not None and patch.shape == model.state_dict()[PATCH_WEIGHT].shape:
        try:
            state = filter_of.checkpoint_filter_fn(dict(state), model)
        except Exception:  # made for models timm knows: what another does to it is open
            state = dict(state)
    check_fit(model, state, path, name)
    model.load_state_dict(state, strict=True)


def check_fit(model: nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Check that a state dict has exactly a model's names and shapes.

    Raises
    ------
    InputError
        With the first difference.
    """
    difference = _difference(model.state_dict(), state)
    if difference:
        raise InputError(
            f"The weights {path} do not fit the model {name!r} ({difference}); give a file made "
            "for it."
        )


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    for name, tensor in expected.items():
        if name not in found:
            return f"{name} is missing"
        shape, wanted = tuple(found[name].shape), tuple(tensor.shape)
        if shape != wanted:
            return f"{name} is {shape} and not {wanted}"
    extra = next((name for name in found if name not in expected), None)
    return f"{extra} is not part of it" if extra else None


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over the sorted names, the shapes and the float32 bytes of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()

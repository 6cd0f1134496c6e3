"""Weights files: shipped, from the hub, converted or the user's; all read and fitted strictly."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import eva, vision_transformer
from torch import Tensor, nn

from dinolizer.errors import InputError, refuse
from dinolizer.model.specs import BACKBONES, BackboneSpec, Transformer
from dinolizer.paths import ASSETS, atomic, check_regular, file_hash, weights_dir, write_file

HUB_FILE = "model.safetensors"
HUB_LIMIT = 2 * 2**30
"""Bytes: the largest of the backbones, a ViT-L in float32, takes 1.2 GB."""
PATCH_WEIGHT = "patch_embed.proj.weight"


def weights_file(spec: BackboneSpec) -> Path | None:
    """The file that a spec's ``weights`` names, downloaded or checked; None for random weights."""
    source, _, rest = (spec.weights or "").partition(":")
    match source:
        case "package":
            return ASSETS / rest
        case "hub":
            return hub_file(rest, spec.name)
        case "fetch":
            return checked(rest, fetched_path(rest))
    return None


def hub_file(repository: str, name: str) -> Path:
    """The weights in a repository, from the hub's own cache, which keeps each large file under its
    SHA-256, or the network, as ``HF_HOME``, ``HF_HUB_OFFLINE`` and so on say."""
    try:
        # The cache first: asking the hub whether it has newer ones takes half a minute offline.
        with suppress(LocalEntryNotFoundError):
            return _unchanged(Path(hf_hub_download(repository, HUB_FILE, local_files_only=True)))
        size = hf_hub_download(repository, HUB_FILE, dry_run=True).file_size or 0
        large = f"{size:,} bytes, but at most {HUB_LIMIT:,} are expected of {name!r}"
        advice = "it is another file; download it by hand if it is right, and name it as the"
        refuse({f"{HUB_FILE} of {repository} has {large}: {advice} weights.": size > HUB_LIMIT})
        return _unchanged(Path(hf_hub_download(repository, HUB_FILE)))
    except InputError:
        raise
    except Exception as error:  # the errors of its transports share no base
        kept = f"of {name!r} ({HUB_FILE} of {repository}) are not in the hub's cache"
        why = f"and could not be downloaded ({type(error).__name__})"
        advice = "connect to the network once, let HF_HOME name a cache that holds them, or name a"
        raise InputError(f"The weights {kept}, {why}; {advice} file of weights.") from None


def _unchanged(path: Path, expected: str = "", source: str = "", advice: str = "") -> Path:
    """A file, if it has the SHA-256 expected; by default one of the hub's cache, which it names."""
    blob = path.resolve()
    if not expected and len(blob.name) == 64:
        expected, source = blob.name, "the hub has"
        advice = f"delete {blob}, and they are downloaded again"
    if expected and (sha256 := file_hash(path)) != expected:
        hashes = f"{sha256[:12]}, but {source} {expected[:12]}: they are damaged or were changed"
        raise InputError(f"The SHA-256 of the weights {path} is {hashes}; {advice}.")
    return path


def fetched_path(name: str) -> Path:
    """Where ``dinolizer fetch NAME`` puts converted weights; their record is the JSON beside."""
    return weights_dir() / f"{name}.safetensors"


def head_file(name: str) -> Path:
    """Where the head is that was fetched or is shipped with a backbone, if one is."""
    return (weights_dir() if BACKBONES[name].fetched else ASSETS) / f"{name}-head.safetensors"


def checked(name: str, path: Path) -> Path:
    """A file of a conversion, if it is there and has the SHA-256 that the record has of it."""
    again = f"run 'dinolizer fetch {name}'"
    if not path.is_file():
        raise InputError(f"The weights of {name!r} are not here ({path}); to download: {again}.")
    try:
        expected = str(json.loads(fetched_path(name).with_suffix(".json").read_text())[path.name])
    except Exception:  # what is no record meets almost any
        expected = "not recorded"
    return _unchanged(path, expected, "that of the conversion is", f"{again} again")


def save_converted(
    spec: BackboneSpec, state: Mapping[str, Tensor], record: Mapping[str, object]
) -> None:
    """Write a backbone's tensors to `fetched_path` in float32, and beside them a record: what is
    known of their source, the SHA-256 of them and of a head that is there, licence and date."""
    path, head = fetched_path(spec.name), head_file(spec.name)
    with atomic(path) as draft:
        # Each tensor gets memory of its own, whatever the pickle shared: safetensors needs that.
        plain = torch.contiguous_format
        save_file({k: v.float().clone(memory_format=plain) for k, v in state.items()}, draft)
    whole = dict(record) | {
        **{file.name: file_hash(file) for file in (path, head) if file.is_file()},
        "licence": spec.licence,
        "citation": spec.citation,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_file(path.with_suffix(".json"), json.dumps(whole, indent=2) + "\n")


def read_checkpoint(path: Path, key: str, wanted: str) -> dict[str, Tensor]:
    """Read the state dict under a key of a file of ``torch.save``; nothing but tensors is ever
    unpickled. The `InputError` for any other file ends by the file that is ``wanted``."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        held = "holds more than tensors, perhaps code, or is damaged; it was not run"
        raise InputError(f"The checkpoint {path} {held}: give {wanted}.") from None
    except Exception as error:  # what a damaged file does to the reader is open
        reason = f"({type(error).__name__}), but a whole file that torch.save wrote is expected"
        raise InputError(f"The checkpoint {path} cannot be read {reason}; give {wanted}.") from None
    state = content.get(key) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        for name, tensor in state.items()
    ):
        lack = f"has no state dict under the key {key!r}, as the published one has"
        raise InputError(f"The checkpoint {path} {lack}; give {wanted}.")
    return state


def read_weights(path: Path, name: str) -> dict[str, Tensor]:
    """Read a safetensors file of a model's, or raise an `InputError`."""
    try:
        check_regular(path)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = f"({str(error).rstrip('.')}); give a whole safetensors file"
        raise InputError(f"The weights {path} of {name!r} cannot be read {reason}.") from None


def fit_weights(model: Transformer, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Load a state dict into a model: every name and shape must agree, but a position embedding of
    another grid, as DINOv2's of 37x37 patches, is resampled by timm's own checkpoint filter."""
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
    """Refuse a state dict that has not exactly a model's names and shapes, and finite values."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if difference := misfit(state, shapes):
        wrong = f"do not fit the model {name!r} ({difference}); give a file made for it"
        raise InputError(f"The weights {path} {wrong}.")
    check_finite(state, str(path))


def check_finite(
    tensors: Mapping[str, Tensor], of: str, advice: str = "make or get that file again"
) -> None:
    """Refuse tensors that hold NaN or infinity; ``of`` says what they are of."""
    for name, tensor in tensors.items():
        wrong = f"The {name} of {of} is not finite: it holds NaN or infinity; {advice}."
        refuse({wrong: not tensor.isfinite().all()})


def misfit(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The first tensor that has not its name or shape, in words; None if all have exactly these."""
    for name, wanted in shapes.items():
        if name not in state:
            return f"{name} is missing"
        if (shape := tuple(state[name].shape)) != wanted:
            return f"{name} is {shape} and not {wanted}"
    extra = next((name for name in state if name not in shapes), None)
    return f"{extra} is not part of it" if extra else None


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over the sorted names, the shapes and the float32 bytes of a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()

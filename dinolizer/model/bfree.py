"""The B-Free checkpoint: fetched, converted once to safetensors, and checked at every load.

What is known of it was read in its authors' public repository (grip-unina/B-Free) and in public
code that uses it. The archive holds ``BFREE_dino2reg4/config.yaml`` and ``model_epoch_best.pth``, a
pickled dict whose ``model`` is a state dict. The wrapper it is for keeps the patch embedding apart
from the rest of the transformer, and sorts the keys into two groups when it loads them: those that
begin with ``patch_embed.`` and the others. Neither group carries a prefix of the wrapper's, so both
together are the state dict of one timm model at 504 pixels with one logit, > 0 meaning generated.
"""

import json
import pickle
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pooch
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dinolizer.data.fetch import download, extract
from dinolizer.errors import InputError
from dinolizer.model.specs import BACKBONES, build
from dinolizer.model.weights import check_fit
from dinolizer.paths import atomic, weights_dir

URL = "https://www.grip.unina.it/download/prog/B-Free/weights/BFREE_dino2reg4.zip"
MD5 = "f3f53fa647848b16cf81c913f148a198"
"""Of the archive, as its authors publish it; they publish no SHA-256."""
CONFIG = "config.yaml"
CHECKPOINT = "model_epoch_best.pth"
MEMBERS = {CONFIG: 2**16, CHECKPOINT: 2**29}
"""Name to largest size in bytes; the float32 weights of a ViT-B are 346 million."""
CONFIGURATION = {
    "arch": "timm_c5i504_vit_base_patch14_reg4_dinov2.lvd142m",  # five crops of 504 pixels
    "norm_type": "resnet",  # ImageNet's mean and standard deviation
}
"""What the configuration says of the model, where it says it."""


def weights_path() -> Path:
    """Where the converted weights are, once they are fetched; their record is the JSON beside."""
    return weights_dir() / "bfree.safetensors"


def fetch(file: Path | None = None) -> Path:
    """Bring the B-Free weights into the user's cache, converted to safetensors.

    Parameters
    ----------
    file
        The published archive (``.zip``, its MD5 is checked) or the checkpoint out of it (any other
        suffix); by default the archive is downloaded, unless good weights are there already.

    Returns
    -------
    Path
        `weights_path`.

    Raises
    ------
    InputError
        If the file is missing, damaged, another one or holds code, if it cannot be downloaded, and
        if there is no room for it.
    """
    if file is None:
        with suppress(InputError):
            return checked_weights()
    folder = weights_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file is not None and not file.is_file():
            raise InputError(
                f"There is no file {file}; give B-Free's archive {Path(URL).name}, or {CHECKPOINT} "
                "out of it."
            )
        if file is not None and file.suffix.lower() != ".zip":
            return _convert(file, {"source": file.name})
        archive = file or folder / Path(URL).name
        if file is None:
            download(URL, archive, f"md5:{MD5}")
        elif (found := pooch.file_hash(str(file), "md5")) != MD5:
            raise InputError(
                f"The archive {file} has the MD5 {found}, but the published one has {MD5}; "
                "download it again."
            )
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            members = extract(archive, MEMBERS, Path(scratch))
            _check_config(members[CONFIG])
            path = _convert(members[CHECKPOINT], {"source": archive.name, "source_md5": MD5})
        if file is None:
            archive.unlink()
        return path
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"The B-Free weights cannot be brought to {folder} ({str(error).rstrip('.')}); make "
            "room for 1.2 GB there, or let DINOLIZER_CACHE name a folder that has it."
        ) from None


def checked_weights() -> Path:
    """Path of the converted weights, after their SHA-256 was compared with the recorded one.

    Raises
    ------
    InputError
        If they are missing, or not what was converted.
    """
    path = weights_path()
    if not path.is_file():
        raise InputError(
            f"The weights of 'bfree' are not here ({path}); run 'dinolizer fetch bfree' to "
            "download them (nonprofit use only), or 'dinolizer fetch bfree --from-file FILE' "
            "where you have them."
        )
    try:
        expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        expected = "not recorded"
    found = pooch.file_hash(str(path), "sha256")
    if found != expected:
        raise InputError(
            f"The SHA-256 of the weights {path} is {found[:12]}, but that of the conversion is "
            f"{expected[:12]}: they are damaged or were changed; run 'dinolizer fetch bfree' again."
        )
    return path


def _check_config(path: Path) -> None:
    """Refuse a configuration that contradicts the backbone's spec."""
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise InputError(
            f"{CONFIG} in B-Free's archive is no YAML mapping, but the configuration of the model "
            "is expected there; give the published archive."
        )
    for key, expected in CONFIGURATION.items():
        if config.get(key, expected) != expected:
            raise InputError(
                f"{CONFIG} in B-Free's archive says {key}: {config[key]!r}, but {expected!r} is "
                "expected; give the published archive."
            )


def _convert(checkpoint: Path, record: dict[str, Any]) -> Path:
    """Write a checkpoint's tensors as safetensors with a record of where they come from."""
    state = _read_checkpoint(checkpoint)
    spec = BACKBONES["bfree"]
    with torch.device("meta"):  # names and shapes only
        check_fit(build(spec), state, checkpoint, spec.name)
    path = weights_path()
    with atomic(path) as draft:
        # Each tensor gets memory of its own, whatever the pickle shared: safetensors needs that.
        plain = torch.contiguous_format
        save_file({k: v.float().clone(memory_format=plain) for k, v in state.items()}, draft)
        sha256 = pooch.file_hash(str(draft), "sha256")
    record |= {
        "sha256": sha256,
        "checkpoint_sha256": pooch.file_hash(str(checkpoint), "sha256"),
        "licence": spec.licence,
        "citation": spec.citation,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with atomic(path.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(record, indent=2) + "\n")
    return path


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint; nothing but tensors is ever unpickled."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"The checkpoint {path} holds more than tensors, perhaps code, or is damaged; it was "
            f"not run: give B-Free's own {CHECKPOINT}."
        ) from None
    except Exception as error:  # what a damaged file does to the reader is open
        raise InputError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}), but a whole file that "
            f"torch.save wrote is expected; give B-Free's own {CHECKPOINT}."
        ) from None
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        for name, tensor in state.items()
    ):
        raise InputError(
            f"The checkpoint {path} has no state dict under the key 'model', as B-Free's has; give "
            f"B-Free's own {CHECKPOINT}."
        )
    return state

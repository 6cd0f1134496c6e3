"""The B-Free checkpoint: fetched, and converted once to safetensors.

By its authors' repository (grip-unina/B-Free) and public code that uses it, the archive holds
``BFREE_dino2reg4/config.yaml`` and ``model_epoch_best.pth``, a pickled dict whose ``model`` is a
state dict. The wrapper it is for loads the keys in ``patch_embed.`` apart from the others, but
prefixes neither: together they are the state dict of one timm model at 504 pixels whose one logit
is positive for generated images.
"""

import tempfile
from contextlib import suppress
from pathlib import Path

import pooch
import torch
import yaml
from safetensors import SafetensorError

from dinolizer.data.fetch import download, extract
from dinolizer.errors import InputError
from dinolizer.model.specs import BACKBONES, build
from dinolizer.model.weights import check_fit, checked_weights, read_checkpoint, save_converted
from dinolizer.paths import weights_dir

NAME = "bfree"
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


def fetch(file: Path | None = None) -> Path:
    """Bring the B-Free weights into the user's cache as safetensors, and return their path.

    ``file`` is the published ``.zip`` (its MD5 is checked) or the checkpoint out of it (any other
    suffix); without it the archive is downloaded, unless good weights are there. Raises
    `InputError` for a file that is missing, damaged, another one or holds code, a failed download
    or a full disk.
    """
    if file is None:
        with suppress(InputError):
            return checked_weights(NAME)
    elif not file.is_file():
        raise InputError(
            f"There is no file {file}; give B-Free's archive {Path(URL).name}, or {CHECKPOINT} "
            "out of it."
        )
    folder = weights_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file is not None and file.suffix.lower() != ".zip":
            return _convert(file, {"source": file.name})
        archive = file or folder / Path(URL).name
        if file is None:
            download(URL, archive, f"md5:{MD5}")
        elif (md5 := pooch.file_hash(str(file), "md5")) != MD5:
            raise InputError(
                f"The archive {file} has the MD5 {md5}, but the published one has {MD5}; "
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


def _convert(checkpoint: Path, record: dict[str, str]) -> Path:
    spec = BACKBONES[NAME]
    state = read_checkpoint(checkpoint, "model", f"B-Free's own {CHECKPOINT}")
    with torch.device("meta"):  # names and shapes only
        check_fit(build(spec), state, checkpoint, NAME)
    return save_converted(spec, state, checkpoint, record)


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

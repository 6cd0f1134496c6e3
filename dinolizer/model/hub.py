"""Heads on the Hugging Face hub: a repository of the file, and of a page that says what it is."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, ModelCard, ModelCardData

from dinolizer.errors import InputError
from dinolizer.model.head import read_head
from dinolizer.model.specs import BACKBONES
from dinolizer.model.weights import HUB_FILE
from dinolizer.paths import ASSETS, check_outputs, file_hash, write_file


def save_repository(head: Path, folder: Path, repository: str = "") -> None:
    """Write what `push` sends: the file of a head, any adapter inside, as ``model.safetensors``,
    and ``README.md``, made of its card. `InputError` where these are there, or there is no head."""
    card, files = read_head(head)[0], [folder / HUB_FILE, folder / "README.md"]
    check_outputs(files, inputs=[head])
    spec, data = BACKBONES[card.backbone], ModelCardData(library_name="dinolizer")
    data.license = "apache-2.0" if spec.licence == "Apache-2.0" else "other"
    data.pipeline_tag, data.tags = "image-segmentation", ["image-forensics"]
    facts = asdict(card) | {"untouched": len(card.untouched), "sha256": file_hash(head)}
    values = {"spec": spec, "facts": facts, "repository": repository or folder}
    page = ModelCard.from_template(data, str(ASSETS / "model-card.md"), None, **values)
    write_file(files[0], head.read_bytes())
    page.save(files[1])


def push(head: Path, repository: str) -> str:
    """Send a head to a repository ``USER/NAME``, private where it is new; return its address."""
    with TemporaryDirectory() as folder:
        save_repository(head, Path(folder), repository)
        try:
            url = HfApi().create_repo(repository, private=True, exist_ok=True)
            HfApi().upload_folder(repo_id=repository, folder_path=folder)
        except Exception as error:  # the errors of its transports share no base
            sent = f"The head {head} could not be sent to {repository} ({type(error).__name__})"
            advice = "give a repository of yours as USER/NAME, and log in by 'hf auth login'"
            raise InputError(f"{sent}; {advice}.") from None
    return str(url)

"""Heads on the Hugging Face hub: a repository of the file, and of a page that says what it is."""

import shutil
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, ModelCard, ModelCardData

from dinolizer.errors import InputError
from dinolizer.model.head import read_card
from dinolizer.model.specs import BACKBONES
from dinolizer.model.weights import HUB_FILE
from dinolizer.paths import atomic, check_outputs, file_hash

PAGE = """# A DinoLizer head on {backbone}

Says for each pixel of a photograph how probable it is that a generative inpainter made it: one
linear map of the patch tokens of a frozen vision transformer. {caution}

```python
from dinolizer import Localizer

mask = Localizer.from_pretrained("{repository}")("photo.jpg").mask
```

| | |
|---|---|
{rows}
"""


def save_repository(head: Path, folder: Path, repository: str = "") -> None:
    """Write what `push` sends: the file of a head, any adapter inside, as ``model.safetensors``,
    and ``README.md``, made of its card. `InputError` where these are there, or there is no head."""
    card, files = read_card(head), [folder / HUB_FILE, folder / "README.md"]
    check_outputs(files, inputs=[head])
    spec = BACKBONES[card.backbone]
    facts = asdict(card) | {"untouched": len(card.untouched), "sha256": file_hash(head)}
    facts |= {"licence": spec.licence, "citation of the backbone": spec.citation}
    data = ModelCardData(
        library_name="dinolizer",
        pipeline_tag="image-segmentation",
        license="apache-2.0" if spec.licence == "Apache-2.0" else "other",
        tags=["image-forensics", "inpainting-localization"],
    )
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    about = {"backbone": spec.name, "caution": spec.caution, "repository": repository or folder}
    with atomic(files[0]) as draft:
        shutil.copyfile(head, draft)
    ModelCard(f"---\n{data}\n---\n{PAGE.format(rows=rows, **about)}").save(files[1])


def push(head: Path, repository: str) -> str:
    """Send a head to a repository ``USER/NAME``, private where it is new; return its address."""
    with TemporaryDirectory() as folder:
        save_repository(head, Path(folder), repository)
        try:
            url = HfApi().create_repo(repository, private=True, exist_ok=True)
            HfApi().upload_folder(repo_id=repository, folder_path=folder)
        except Exception as error:  # the errors of its transports share no base
            raise InputError(
                f"The head {head} could not be sent to {repository} ({type(error).__name__}); give "
                "a repository of yours as USER/NAME, and log in by 'hf auth login'."
            ) from None
    return str(url)

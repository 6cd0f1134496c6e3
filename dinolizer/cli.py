"""The commands at the shell: a thin front door."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dinolizer.errors import InputError

if TYPE_CHECKING:
    from dinolizer.model.localizer import Localizer

# What needs torch is imported inside the commands: --help answers at once.
app = typer.Typer(
    help="Localize generative inpainting in photographs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turn what the user gave wrong into its sentence on stderr and exit code 1."""
    try:
        yield
    except InputError as error:
        typer.echo(f"dinolizer: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def localize(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Image files; or one folder of images, or one CSV manifest."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Backbone: 'pocket', 'pocket-learned', 'pocket-rotary', 'bfree' (see the fetch "
            "command), 'dinov2-base', 'dinov3-base', either also '-small' or '-large', or "
            "'untrained-' and one of these.",
        ),
    ] = "pocket",
    head: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Head; by default the model's own, if it has one."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Safetensors of the backbone; by default its published weights."
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="'exact', or faster and less exact: 'half', 'tiles', 'whole'.",
        ),
    ] = "exact",
    small: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="'resize' or 'pad' images smaller than a window; by default as the head says.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="'cpu' or 'cuda'; by default the GPU if there is one.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="'float32', or where the hardware is faster with it 'bfloat16' or 'float16'.",
        ),
    ] = "float32",
    masks: Annotated[
        bool, typer.Option("--masks", help="Of many images: write the masks.")
    ] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Of many images: write the maps.")] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Of many images: only part I of N; see merge."),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of many images: stop when more than N cannot be read."),
    ] = None,
) -> None:
    """Find what was inpainted in images.

    Image files get a mask (PNG), the map (NPZ) and the settings with the score (JSON) each. The
    images of one folder or manifest, however many, get a row each in DIR/localized.parquet; run
    again, an interrupted run goes on.
    """
    from dinolizer.bulk.listing import Shard, read_listing
    from dinolizer.bulk.run import scan
    from dinolizer.model.localizer import Localizer

    with _one_sentence():
        many = [path for path in paths if path.is_dir() or path.suffix.lower() == ".csv"]
        if many and len(paths) > 1:
            raise InputError(
                f"{many[0]} was given together with other paths; give one folder or one manifest "
                "by itself, or image files."
            )
        if not many and (masks or maps or shard is not None or max_failures is not None):
            raise InputError(
                "--masks, --maps, --shard and --max-failures go with one folder or manifest; image "
                "files get a mask and a map each."
            )
        part = None if shard is None else Shard.parse(shard)
        listing = read_listing(many[0]) if many else None
        localizer = Localizer.from_pretrained(
            model,
            head,
            device,
            weights,
            mode=mode,
            precision=precision,
            small=small,  # type: ignore[arg-type]  # others are refused with a sentence
        )
        if listing is None:
            _localize_files(localizer, paths, out)
            return
        file, rows = scan(
            localizer,
            listing,
            out,
            shard=part,
            masks=masks,
            maps=maps,
            max_failures=max_failures,
        )
        failed = len(rows) - rows["error"].null_count
        typer.echo(f"{file}: {len(rows)} images, of which {failed} could not be read")


def _localize_files(localizer: "Localizer", paths: Sequence[Path], out: Path) -> None:
    """Write three files an image, and a line; what cannot be read makes the exit code 1."""
    from tqdm.auto import tqdm

    from dinolizer.data.files import find_images

    images, failed = find_images(paths), 0
    for path, stem in tqdm(
        zip(images, _stems(images), strict=True), total=len(images), disable=len(images) == 1
    ):
        try:
            result = localizer(path)
        except InputError as error:
            failed += 1
            tqdm.write(f"dinolizer: {error}", file=sys.stderr)
            continue
        result.save(out, stem)
        renamed = "" if stem == path.stem else f"  saved as {stem}"
        tqdm.write(f"{path}  score {result.score:.3f}  marked {result.marked:.1%}{renamed}")
    if failed:
        raise typer.Exit(1)


def _stems(images: Sequence[Path]) -> list[str]:
    """Names for the results: the file's own, with a number from its second use on."""
    taken: set[str] = {path.stem for path in images}
    used: set[str] = set()
    stems = []
    for path in images:
        stem, number = path.stem, 2
        while stem in used or (stem != path.stem and stem in taken):
            stem, number = f"{path.stem}_{number}", number + 1
        used.add(stem)
        stems.append(stem)
    return stems


@app.command()
def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="The --out of 'localize --shard'.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Parquet file to write.")
    ],
) -> None:
    """Merge the tables of all shards of a run into one; refuse doubles, gaps and other settings."""
    from dinolizer.bulk.merging import merge as run

    with _one_sentence():
        rows = run(folders, out)
        failed = len(rows) - rows["error"].null_count
        typer.echo(f"{out}: {len(rows)} images, of which {failed} could not be read")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="'bfree' or 'photos'.")],
    from_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of bfree: the published zip, or model_epoch_best.pth out of it; by default the "
            "zip is downloaded (about 320 MB).",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Of photos: the folder for them.")
    ] = Path("data/photos"),
) -> None:
    """Get what cannot be shipped; an interrupted download goes on.

    'bfree' is the B-Free backbone, converted and checked: its licence is nonprofit use only, and
    whatever is trained on it inherits that. 'photos' are 100 photographs for the laptop profile
    (DIV2K, 450 MB, for academic research). The DINOv2 and DINOv3 backbones need no fetching: they
    come from their hub at first use.
    """
    with _one_sentence():
        if name == "bfree":
            from dinolizer.model.bfree import fetch as run
            from dinolizer.model.specs import BACKBONES

            typer.echo(f"{run(from_file)}  {BACKBONES[name].licence}")
        elif name == "photos":
            from dinolizer.pocket.photos import fetch_photos

            fetch_photos(out)
            typer.echo(f"{out}  DIV2K, for academic research")
        else:
            raise InputError(
                f"The name is {name!r}, but only 'bfree' and 'photos' can be fetched; the weights "
                "of the other models are found when they are used."
            )


@app.command()
def train(
    manifests: Annotated[
        list[Path], typer.Argument(metavar="MANIFEST...", help="CSV manifests, taken together.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The head, ending in .safetensors.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="Backbone.")] = "pocket",
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its weights; by default its own.")
    ] = None,
    variant: Annotated[
        str, typer.Option(help="'v1': frozen, linear head; 'v2': LoRA, three classes.")
    ] = "v1",
    policy: Annotated[
        str | None,
        typer.Option(help="'pristine', 'fake' or 'three-class'; by default the variant's."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 20,
    batch: Annotated[int, typer.Option(help="Crops per step, of all processes together.")] = 32,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; by default the variant's.")
    ] = None,
    patience: Annotated[
        int, typer.Option(help="Epochs without a better validation Dice before it stops.")
    ] = 5,
    crops: Annotated[
        str | None,
        typer.Option(help="'fixed' or 'fresh' in every epoch; by default the variant's."),
    ] = None,
    cache_gb: Annotated[
        float, typer.Option(help="Gigabytes that the tokens of fixed crops may take.")
    ] = 8,
    device: Annotated[
        str | None, typer.Option(help="'cpu' or 'cuda'; by default the GPU if there is one.")
    ] = None,
    precision: Annotated[str, typer.Option(help="'float32', 'bfloat16' or 'float16'.")] = "float32",
    overwrite: Annotated[bool, typer.Option(help="Replace a head that is there.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that prepare crops ahead.")] = 4,
) -> None:
    """Train a head on images listed in manifests; an interrupted run goes on.

    On several GPUs: torchrun --nproc-per-node 4 -m dinolizer train ...
    """
    with _one_sentence():
        import pandas as pd

        from dinolizer.data.manifest import read_manifest
        from dinolizer.model.backbones import load_backbone
        from dinolizer.training.recipes import train as run

        run(
            pd.concat([read_manifest(path) for path in manifests], ignore_index=True),
            load_backbone(model, weights, device="cpu"),
            out,
            variant,
            policy=policy,
            epochs=epochs,
            batch=batch,
            lr=lr,
            patience=patience,
            crops=crops,
            cache_gb=cache_gb,
            device=device,
            overwrite=overwrite,
            precision=precision,
            seed=seed,
            workers=workers,
        )


@app.command()
def pretrain(
    photos: Annotated[Path, typer.Argument(metavar="PHOTOS", help="Folder of photographs.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for weights and checkpoints.")],
    device: Annotated[
        str | None, typer.Option(help="'cpu' or 'cuda'; by default the GPU if there is one.")
    ] = None,
) -> None:
    """Make the pocket weights from a folder of photographs; an interrupted run goes on."""
    from dinolizer.pocket.build import pretrain as run

    with _one_sentence():
        run(photos, out, device)


@app.command()
def prepare(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="File of a profile.")],
) -> None:
    """Make what the notebooks of a profile share: images, tokens, heads, thresholds."""
    from dinolizer.study.jobs import prepare as run

    with _one_sentence():
        run(profile)


@app.command()
def evaluate(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="File of a profile.")],
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Only part I of N; by default all of it.")
    ] = "1/1",
) -> None:
    """Compute the rows of a profile's benchmark and robustness study ahead of the notebooks.

    They go into the cache. What is there is not computed again; run again, an interrupted run goes
    on, and any number of shards may run at the same time.
    """
    from dinolizer.bulk.listing import Shard
    from dinolizer.study.jobs import compute_rows

    with _one_sentence():
        part = Shard.parse(shard)
        compute_rows(profile, part.number, part.count)


@app.command()
def summarise(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="Name of a profile.")],
) -> None:
    """Write the summary page of a profile's results: claim by claim, from the tables."""
    from dinolizer.study.summary import summarise_results as run

    with _one_sentence():
        for path in run(profile):
            typer.echo(str(path))


@app.command()
def check_parameters(
    notebook: Annotated[Path, typer.Argument(metavar="NOTEBOOK")],
    profile: Annotated[Path, typer.Argument(metavar="PROFILE")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write those that the notebook has, for papermill."),
    ] = None,
) -> None:
    """Check that the notebooks know every parameter name of a profile."""
    import yaml

    from dinolizer.paths import atomic
    from dinolizer.study.parameters import parameters_for

    with _one_sentence():
        parameters = parameters_for(notebook, profile)
        if out is not None:
            with atomic(out) as draft:
                draft.write_text(yaml.safe_dump(parameters), encoding="utf-8")


@app.command()
def manifest(
    dataset: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="Which dataset; see data/README.md.")
    ] = None,
    root: Annotated[
        Path | None, typer.Argument(metavar="ROOT", help="Its folder, or its list's file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="CSV file to write.")
    ] = None,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Leave out what lacks its mask, and count it.")
    ] = False,
    choice: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A choice of the dataset's own, such as quality."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check this manifest and its files instead.")
    ] = None,
) -> None:
    """Write the manifest of a dataset on disk, or check one; say what was found and left out."""
    from dinolizer.data.checks import check_files
    from dinolizer.data.datasets import make_manifest
    from dinolizer.data.manifest import read_manifest

    with _one_sentence():
        if check is not None:
            if dataset is not None or out is not None:
                raise InputError("--check was given with a dataset; check a manifest, or make one.")
            frame = read_manifest(check)
            notes = check_files(frame)
            typer.echo(f"{check}: {len(frame)} images and their files are as the manifest says")
            for note in notes:
                typer.echo(f"  {note}")
            return
        if dataset is None or root is None or out is None:
            raise InputError("Give a dataset, its folder and --out FILE, or --check FILE.")
        choices: dict[str, object] = {}
        for text in choice or []:
            name, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"The choice is {text!r}, but it must be NAME=VALUE.")
            choices[name] = value
        typer.echo(str(make_manifest(dataset, root, out, choices, incomplete=incomplete)))

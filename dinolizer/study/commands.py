"""Commands for pictures, lists and results, and ``dinolizer study``, which the workflow calls."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from dinolizer import options
from dinolizer.errors import InputError, progress, say
from dinolizer.paths import check_outputs

# What needs torch is imported inside the commands: --help answers at once.
study = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def fetch(
    name: Annotated[options.FetchName, Argument(help="What to get.")],
    from_file: Annotated[Path | None, Option(metavar="FILE", help="The published file.")] = None,
    from_folder: Annotated[Path | None, Option(metavar="DIR", help="Files you have.")] = None,
    out: Annotated[Path | None, Option(metavar="DIR", help="Of pictures; default: data.")] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Get what cannot be shipped; an interrupted download goes on.

    'dinolizer' is the authors' released model (387 MB) and 'bfree' the B-Free backbone (320 MB),
    both converted and checked: B-Free's licence is nonprofit use only, and whatever is trained on
    it inherits that. 'cocoglide' are the 1,024 test images of CocoGlide with their manifest (123
    MB, for nonprofit use), 'photos' are 100 photographs for the laptop profile (DIV2K, 450 MB, for
    academic research), 'bsds' the 200 test photographs of BSDS500 (71 MB, for research and
    education), 'inpaintings' 69 real outputs of published models, each under its own licence
    (31 MB). DINOv2 and DINOv3 need no fetching: they come from their hub at first use. Nothing is
    downloaded that --from-file (dinolizer, bfree, bsds) or --from-folder (bsds, inpaintings) has.
    """
    folder = out or Path("data") / (name if name in ("bsds", "photos") else "")
    if name in ("dinolizer", "bfree"):
        from dinolizer.model import published
        from dinolizer.model.specs import BACKBONES

        got = f"{published.fetch(name, from_file)}  Licence: {BACKBONES[name].licence}"
    elif name == "cocoglide":
        from dinolizer.data.datasets import fetch_cocoglide

        got = f"{fetch_cocoglide(folder, overwrite=overwrite)}\n{folder / 'cocoglide.csv'}  "
        got += "CocoGlide (GRIP-UNINA), for nonprofit use only"
    elif name == "inpaintings":
        from dinolizer.data.inpaintings import fetch_inpaintings

        got = f"{fetch_inpaintings(folder, from_folder, overwrite=overwrite)}\n"
        got += f"{folder / 'inpaintings.csv'}  licences: its column of that name"
    elif name == "bsds":
        from dinolizer.pocket.photos import fetch_bsds

        fetch_bsds(folder, from_file or from_folder, overwrite=overwrite)
        got = f"{folder}  BSDS500 (UC Berkeley), for research and education"
    else:
        from dinolizer.pocket.photos import DIV2K_NAMES, fetch_photos

        check_outputs([folder / photo for photo in DIV2K_NAMES], overwrite=overwrite)
        fetch_photos(folder)
        got = f"{folder}  DIV2K, for academic research"
    typer.echo(got)


def manifest(
    dataset: Annotated[options.DatasetName, Argument(help="Which; see data/README.md.")],
    root: Annotated[Path, Argument(help="Its folder, or its list's file.")],
    out: Annotated[Path, Option("--out", "-o", metavar="FILE", help="CSV file to write.")],
    incomplete: Annotated[
        bool, Option("--incomplete", help="Leave out what lacks a mask.")
    ] = False,
    invert: Annotated[bool, Option("--invert", help="Black marks the edit in the masks.")] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Write the manifest of a dataset on disk; say what was found and left out."""
    check_outputs([out], ".csv", inputs=[root], overwrite=overwrite)
    from dinolizer.data.datasets import make_manifest

    report = make_manifest(dataset, root, out, incomplete=incomplete, invert=invert)
    typer.echo(str(report))


def check(path: Annotated[Path, Argument(metavar="MANIFEST", help="CSV file.")]) -> None:
    """Check a manifest and all files that it names."""
    from dinolizer.data.checks import check_files
    from dinolizer.data.manifest import read_manifest

    frame = read_manifest(path)
    notes = check_files(frame)
    typer.echo(f"{path}: {len(frame)} images and their files are as the manifest says")
    for note in notes:
        typer.echo(f"  {note}")


def train(
    ctx: typer.Context,
    manifests: Annotated[list[Path], Argument(help="CSV manifests, taken together.")],
    out: Annotated[Path, Option(metavar="FILE", help="The head, ending in .safetensors.")],
    model: options.Model = "pocket",
    weights: options.File = None,
    variant: Annotated[
        options.VariantName, Option(help="'v1': frozen, linear head; 'v2': LoRA, three classes.")
    ] = "v1",
    policy: Annotated[
        options.Policy | None, Option(help="Of labels; by default the variant's.")
    ] = None,
    epochs: Annotated[int, Option(min=1, help="Passes over the images.")] = 20,
    batch: Annotated[int, Option(min=1, help="Crops per step, of all processes together.")] = 32,
    lr: Annotated[float | None, Option(min=0, help="Rate; by default the variant's.")] = None,
    patience: Annotated[int, Option(min=1, help="Epochs without a better validation Dice.")] = 5,
    crops: Annotated[
        Literal["fixed", "fresh"] | None, Option(help="In every epoch; by default the variant's.")
    ] = None,
    cache_gb: Annotated[float, Option(min=0, help="That tokens of fixed crops may take.")] = 8,
    device: options.Device = None,
    precision: options.Precise = "float32",
    seed: Annotated[int, Option(min=0, max=2**32 - 1, help="Of everything random.")] = 0,
    workers: Annotated[int, Option(min=0, help="Processes that prepare crops ahead.")] = min(
        4, os.cpu_count() or 1
    ),
    overwrite: options.Overwrite = False,
) -> None:
    """Train a head on images listed in manifests; an interrupted run goes on.

    On several GPUs: torchrun --nproc-per-node 4 -m dinolizer train ..."""
    check_outputs([out], ".safetensors", inputs=[*manifests, weights], overwrite=overwrite)
    import pandas as pd

    from dinolizer.data.manifest import read_manifest
    from dinolizer.model.backbones import load_backbone
    from dinolizer.training.recipes import train as run

    files = dict.fromkeys(path.resolve() for path in manifests)  # each once, however it is spelled
    frame = pd.concat([read_manifest(path) for path in files], ignore_index=True)
    backbone = load_backbone(model, weights, device="cpu")
    of_data = ("manifests", "out", "model", "weights", "variant")
    recipe = {name: value for name, value in ctx.params.items() if name not in of_data}
    run(frame, backbone, out, variant, **recipe)


def calibrate(
    head: Annotated[Path, Argument(help="File of a head.")],
    photographs: Annotated[Path, Argument(help="Folder of photographs that nobody edited.")],
    out: Annotated[Path, Option(metavar="FILE", help="The head with the new card.")],
    model: options.Model = "pocket",
    weights: options.File = None,
    most: Annotated[float | None, Option(min=0, max=1, help="Highest false-positive rate.")] = None,
    about: Annotated[str, Option(help="What the photographs are; by default the folder.")] = "",
    device: options.Device = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Measure what untouched photographs score, so that a score says something.

    Their scores are kept in the card of the head: 'localize' then says how many of a hundred score
    lower than a picture. With --most the threshold is raised until the false-positive rate of
    their pixels is no higher."""
    from dinolizer.data.files import list_images
    from dinolizer.model.calibration import calibrated
    from dinolizer.model.head import read_head, write_head
    from dinolizer.model.localizer import Localizer

    check_outputs([out], ".safetensors", inputs=[head], overwrite=overwrite)
    paths = progress([Path(path) for path in list_images(photographs)[0]], "photographs")
    localizer = Localizer.from_pretrained(model, head, device, weights)
    card = calibrated(localizer, paths, about or photographs.name, most)
    write_head(out, read_head(head)[1], card)
    typer.echo(f"{out}: {len(card.untouched)} photographs, threshold {card.threshold:g}")


def verify(
    folder: Annotated[Path, Argument(help="A profile's results.")] = Path("results/pocket"),
    quick: Annotated[bool, Option("--quick", help="Make nothing again.")] = False,
    cores: Annotated[int, Option(min=1, help="To make the results again on.")] = 2,
) -> None:
    """Say whether committed results are those that were made: files by their hashes, verdicts by
    their numbers, the summary by the tables.

    Without --quick all is made again, in a scratch folder, and every table is compared with the
    committed one, to two decimals."""
    from dinolizer.study.results import check, reproduce, tables

    wrong = check(folder)
    number = len(tables(folder))
    if not quick:
        other = reproduce(folder.resolve(), cores)
        wrong += other
        typer.echo(f"reproduced: {number - len(other)} of {number} tables")
    for line in wrong:
        say(line)
    if wrong:
        raise typer.Exit(1)
    typer.echo(f"{folder}: every file is the one that was made, and the summary follows from them")


@study.command()
def prepare(profile: options.Profile) -> None:
    """Make what the notebooks of a profile share: images, tokens, heads, thresholds."""
    from dinolizer.study.parameters import find_profile
    from dinolizer.study.setup import prepare as run

    run(find_profile(profile))


@study.command()
def evaluate(
    profile: options.Profile,
    shard: Annotated[str, Option(metavar="I/N", help="Only part I of N.")] = "1/1",
) -> None:
    """Compute the rows of a profile's benchmark and robustness study ahead of the notebooks.

    What is in the cache is not computed again, and any number of shards may run at the same time.
    """
    from dinolizer.data.files import Shard
    from dinolizer.study.parameters import find_profile
    from dinolizer.study.setup import compute_rows

    part = Shard.parse(shard)
    compute_rows(find_profile(profile), part.number, part.count)


@study.command()
def export_images(
    profile: options.Profile,
    folder: Annotated[Path, Argument(metavar="DIR", help="A new folder.")],
    degrade: Annotated[
        list[str] | None, Option(metavar="NAME=LEVEL", help="Such as jpeg=70; in this order.")
    ] = None,
) -> None:
    """Copy a profile's test images and masks, with a manifest, for other methods to draw maps of.

    The maps are then scored by 'dinolizer score DIR/manifest.csv --maps MAPS'."""
    from dinolizer.study import peers
    from dinolizer.study.parameters import find_profile
    from dinolizer.study.setup import Study

    steps = []
    for text in degrade or []:
        name, _, level = text.partition("=")
        try:
            steps.append((name, float(level)))
        except ValueError:
            raise InputError(f"The degradation is {text!r}, but it must be NAME=LEVEL.") from None
    study = Study.of_profile("03-benchmark", find_profile(profile))
    images, seed = study.dataset.test, study.parameters["seed"]
    typer.echo(f"{peers.export_images(images, folder, steps, seed)}: {len(images)} images")


@study.command()
def summarise(profile: options.Profile) -> None:
    """Write the summary page of a profile's results, and the list of all files' hashes."""
    from dinolizer.study.parameters import find_profile, read_profile
    from dinolizer.study.results import summarise_results

    file = find_profile(profile)
    for path in summarise_results(str(read_profile(file).get("profile", file.stem))):
        typer.echo(str(path))


@study.command()
def check_parameters(
    notebook: Annotated[Path, Argument(help="An .ipynb file.")], profile: options.Profile
) -> None:
    """Check the names and values that a profile sets; print the notebook's own, as YAML."""
    import yaml

    from dinolizer.study.parameters import find_profile, parameters_for

    typer.echo(yaml.safe_dump(parameters_for(notebook, find_profile(profile))), nl=False)

"""Profiles: the parameter files that papermill passes to every notebook."""

import ast
import json
import reprlib
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model

from dinolizer.errors import InputError, refuse
from dinolizer.paths import PROFILES

MAX_YAML = 10_000  # bytes
POSITIVE = ("epochs", "rounds", "draws", "steps", "seeds", "repeats")
"""Parameters that count what is done at least once; other numbers may be 0."""
Model = TypeVar("Model", bound=BaseModel)


def find_profile(name: str) -> Path:
    """Path of a profile in ``notebooks/profiles``, or the YAML file that it is."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if path.parent == PROFILES and not path.is_file():
        known = ", ".join(sorted(profile.stem for profile in PROFILES.glob("*.yaml")))
        raise InputError(f"Unknown profile {name!r}: choose one of {known}.")
    return path


def read_profile(path: Path) -> dict[str, object]:
    """Names and values of a profile file: flat YAML, each name once, or an InputError."""
    parameters = read_yaml(path)
    if not isinstance(parameters, dict) or any(isinstance(v, dict) for v in parameters.values()):
        raise InputError(f"The profile {path} is not flat: write one 'name: value' a line.")
    return {str(name): value for name, value in parameters.items()}


def read_yaml(path: Path) -> Any:
    """What a short file of YAML says, without tags that make objects; else an InputError."""
    refuse({f"There is no file {path}: give a YAML file of that name.": not path.is_file()})
    try:
        if path.stat().st_size > MAX_YAML:
            raise ValueError(f"it has over {MAX_YAML} bytes")
        return yaml.load(path.read_text(encoding="utf-8"), UniqueNames)
    except Exception as error:  # yaml's constructors meet wrong values with almost any
        where = " ".join(str(error).split())
        raise InputError(f"{path} is no short YAML file ({where}): correct it there.") from error


class UniqueNames(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """As in every YAML loader, if each name is there once."""
        names = [key.value for key, _ in node.value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(problem=f"{', '.join(twice)} set twice")
        return super().construct_mapping(node, deep)


def read_defaults(notebook: Path) -> dict[str, object]:
    """Names and values, plain literals, in the cell of a notebook that is tagged ``parameters``."""
    if not notebook.is_file():
        raise InputError(f"No notebook at {notebook}: give the path of an .ipynb file.")
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        values = assigned("\n".join("".join(cell["source"]) for cell in tagged))
        defaults = {name: ast.literal_eval(value) for name, value in values.items()}
    except Exception as error:  # a file of another kind meets almost any
        said = f"{notebook} is not a Python notebook with plain parameters: save it with Jupyter."
        raise InputError(said) from error
    if not defaults:
        raise InputError(f"{notebook} has no parameters: tag the cell of them 'parameters'.")
    return defaults


def assigned(source: str) -> dict[str, ast.expr]:
    """Names that lines of Python give a value, and that value."""
    lines = [line for line in ast.parse(source).body if isinstance(line, ast.Assign)]
    return {ast.unparse(line.targets[0]): line.value for line in lines}


def parameters_for(notebook: Path, profile: Path) -> dict[str, object]:
    """What a profile sets for a notebook, checked before anything is run. Raises InputError for a
    name that no notebook knows, of which papermill only warns, and as `check_values`."""
    defaults, given = read_defaults(notebook), read_profile(profile)
    known = set(defaults)
    if not given.keys() <= known:  # the other notebooks are large: read only where it matters
        others = (path for path in notebook.parent.glob("*.ipynb") if path != notebook)
        known.update(*map(read_defaults, others))
    if unknown := [name for name in given if name not in known]:
        them = f"{', '.join(unknown)}, unknown to {notebook.name} and every notebook beside it"
        raise InputError(f"{profile} sets {them}: use only {', '.join(sorted(known))}.")
    chosen = {name: value for name, value in given.items() if name in defaults}
    check_values(chosen, defaults, str(profile), {})
    return chosen


def check_values(
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
    source: str,
    choices: Mapping[str, Iterable[str]],
) -> None:
    """Refuse, naming the ``source``, a value or an item of a list of another type than its default,
    a number that is nan, infinite, below 0, or 0 where it must be at least 1, and a text that is
    none of the ``choices`` for its name."""

    def kind(name: str, example: object) -> Any:
        match example:
            case list():
                given = values[name] if isinstance(values[name], list) else []
                return list[kind(name, (example or given or [""])[0])]  # type: ignore[misc]
            case bool():
                return bool
            case int() | float():
                return Annotated[type(example), Field(ge=name in POSITIVE, allow_inf_nan=False)]
        return Literal[tuple(choices[name])] if name in choices else str

    fields: dict[str, Any] = {name: (kind(name, defaults[name]), ...) for name in values}
    checked(create_model("Parameters", __config__={"strict": True}, **fields), values, source)


def checked(model: type[Model], values: object, source: str) -> Model:
    """What a pydantic model makes of values from a ``source``; an InputError names a wrong one."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        name, rule = ".".join(map(str, wrong["loc"])) or "its lines", wrong["msg"].lower()
        hint = "; a number has a point before an exponent (1.0e-4)" if "number" in rule else ""
        given = reprlib.repr(wrong["input"])
        raise InputError(f"{source} sets {name} to {given}: {rule}{hint}.") from None

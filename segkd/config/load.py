"""YAML files as closed models, with messages a person can act on."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from segkd.config.params import Params
from segkd.config.plain_yaml import read_yaml
from segkd.config.study import Study
from segkd.errors import ConfigError, explain, listing, without_credentials

Model = TypeVar("Model", bound=BaseModel)


def validation_message(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """All faults of a validation, each with its path, the value found and, for unknown keys, the closest known one."""
    faults = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"]) or "(top)"
        if item["type"] == "extra_forbidden":
            faults.append(f"{place}: unknown key{_nearest(model, item['loc'])}")
        else:
            found = without_credentials(repr(item["input"]))
            faults.append(f"{place}: {item['msg'].removeprefix('Value error, ')}; found {found}"[:400])
    count = f"{len(faults)} fault{'s' * (len(faults) > 1)}"
    return f"The configuration cannot be used ({count}).\n  where: {where}\n{listing(faults)}"


def _nearest(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    fields = _fields_at(model, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), fields, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are {', '.join(sorted(fields))}" if fields else ""


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the model that a location leads to, as far as the JSON schema tells."""
    schema = model.model_json_schema()
    node: Any = schema
    for part in location:
        node = _resolve(node, schema)
        options = [_resolve(one, schema) for one in node.get("anyOf", node.get("oneOf", []))] or [node]
        node = next((found for one in options if (found := _child(one, part)) is not None), {})
    node = _resolve(node, schema)
    options = [_resolve(one, schema) for one in node.get("anyOf", node.get("oneOf", []))] or [node]
    return [name for one in options for name in one.get("properties", {})]


def _child(node: dict[str, Any], part: int | str) -> Any:
    if isinstance(part, int):
        return node.get("items")
    if part in node.get("properties", {}):
        return node["properties"][part]
    mapping = node.get("discriminator", {}).get("mapping", {})
    if part in mapping:
        return {"$ref": mapping[part]}
    extra = node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), None)
    return extra if isinstance(extra, dict) else None


def _resolve(node: Any, schema: dict[str, Any]) -> dict[str, Any]:
    while isinstance(node, dict) and "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return cast(dict[str, Any], node) if isinstance(node, dict) else {}


def load(model: type[Model], path: Path) -> Model:
    """Read a YAML file as a closed model; ConfigError lists every fault at once."""
    content = read_yaml(path)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError(validation_message(error, model, str(path))) from None


def load_params(path: Path = Path("params.yaml")) -> Params:
    """params.yaml, checked."""
    return load(Params, path)


def load_study(name: str, folder: Path = Path("workflow/studies")) -> Study:
    """workflow/studies/<name>.yaml, checked."""
    path = folder / f"{name}.yaml"
    if not path.exists():
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        near = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            explain(
                f"There is no study {name!r}.",
                expected=f"one of {', '.join(known)}",
                found=name,
                where=folder,
                fix=f"did you mean {near[0]!r}?" if near else "add the file, or correct `studies`",
            )
        )
    return load(Study, path)

"""Read YAML safely and turn it into closed models, with messages a person can act on."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from segkd.config.params import Params
from segkd.config.study import Study
from segkd.errors import ConfigError, explain, listing

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, anchors and aliases: a configuration says each thing once, in place."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(
                f"anchors and aliases are not allowed (line {event.start_mark.line + 1}): write the value out"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} stands twice (line {key_node.start_mark.line + 1}): remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; ConfigError where it is missing, broken, or uses tags, anchors or duplicate keys."""
    try:
        text = path.read_text(encoding="utf-8")
        return yaml.load(text, Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(
            explain(
                "A configuration file is missing.",
                expected=path,
                found="no such file",
                where=path.parent,
                fix="run from the project's folder, or give the path",
            )
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            explain(
                "A configuration file cannot be read.",
                expected="plain YAML: mappings, lists, text, numbers",
                found=str(error),
                where=path,
                fix="correct the file",
            )
        ) from None


def validation_message(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """All faults of a validation, each with its path, the value found and, for unknown keys, the closest known one."""
    faults = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"]) or "(top)"
        if item["type"] == "extra_forbidden":
            faults.append(f"{place}: unknown key{_nearest(model, item['loc'])}")
        else:
            faults.append(f"{place}: {item['msg'].removeprefix('Value error, ')}; found {item['input']!r}"[:400])
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

"""YAML read as what it looks like: mappings, lists, text, numbers, true and false; each thing said once, in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from segkd.errors import ConfigError, explain

_LARGEST = 2**63  # larger numbers cannot be meant, and Python refuses to write them out


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses tags, duplicate keys, anchors and aliases, and takes dates for the text that they are."""

    yaml_implicit_resolvers = {  # noqa: RUF012 -- as in the class above
        first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":timestamp", ":value"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused("anchors and aliases are not allowed", event, "write the value out")
        if getattr(event, "tag", None) is not None:
            raise _refused(f"tags are not allowed, found {event.tag!r}", event, "write a plain value")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refused("a key must be text or a number", key_node, "write one word before the colon")
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _refused(f"key {key!r} stands twice", key_node, "remove one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _refused(what: str, place: Any, fix: str) -> yaml.YAMLError:
    return yaml.YAMLError(f"{what} (line {place.start_mark.line + 1}): {fix}")


def _integer(loader: Any, node: Any) -> int:
    try:
        value = int(loader.construct_yaml_int(node))
    except ValueError:  # thousands of digits
        value = _LARGEST
    if abs(value) >= _LARGEST:
        raise _refused("a number has more than 64 bits", node, "write a smaller one")
    return value


def _text(loader: Any, node: Any) -> str:
    text = str(loader.construct_yaml_str(node))
    if any("\ud800" <= one <= "\udfff" for one in text):
        raise _refused("half a character, which no file can hold", node, "write the whole character")
    return text


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; ConfigError where it is missing, broken, or says more than plain values."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
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
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise ConfigError(
            explain(
                "A configuration file cannot be read.",
                expected="plain YAML: mappings, lists, text, numbers",
                found="values nested too deeply" if isinstance(error, RecursionError) else error,
                where=path,
                fix="correct the file",
            )
        ) from None

"""YAML as each engine reads it.

LLaMA-Factory reads its YAML with OmegaConf: `1e-4` is a float, a date is a string, and a key that is there
twice is an error. Axolotl reads with PyYAML: `1e-4` is a string, and the last of two equal keys wins. What
we write is read alike by both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from tunebook.errors import TunebookError, join_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tunebook.types import EngineName

_FLOAT = "tag:yaml.org,2002:float"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"

# The pattern of OmegaConf 2.3 and 2.4 (omegaconf/_yaml.py). It differs from YAML 1.1 in needing neither a
# dot nor a sign in an exponent.
_OMEGACONF_FLOAT = re.compile(
    r"""^(?:
     [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
_FLOAT_STARTS = list("-+0123456789.")

_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _OmegaConfLoader(_SafeLoader):  # type: ignore[misc, valid-type]
    """Resolves scalars as OmegaConf does. Keys that are there twice are found by `duplicates`."""


_OmegaConfLoader.add_implicit_resolver(_FLOAT, _OMEGACONF_FLOAT, _FLOAT_STARTS)
_OmegaConfLoader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for start, resolvers in _OmegaConfLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Quotes every string that either engine would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write out a value each time that it is used: people read recipes."""
        return True


_Dumper.add_implicit_resolver(_FLOAT, _OMEGACONF_FLOAT, _FLOAT_STARTS)


def read_mapping(path: Path, engine: EngineName) -> dict[str, Any]:
    """Read a YAML file that holds one mapping, as `engine` reads it.

    Raises:
        TunebookError: The file cannot be read, is no YAML, is no mapping, or (LLaMA-Factory only) has a key
            twice. The message names file and line.
    """
    return parse_mapping(read_text(path), engine, source=str(path))


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        TunebookError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as err:
        raise TunebookError(
            f"{path}: cannot be read: {err.strerror}", fix="check the path and its rights"
        ) from err
    except UnicodeDecodeError as err:
        raise TunebookError(
            f"{path}: is not UTF-8 text (byte {err.start})", fix="save the file as UTF-8"
        ) from err


def parse_mapping(text: str, engine: EngineName, *, source: str) -> dict[str, Any]:
    """As `read_mapping`, from `text`; `source` is what messages call it."""
    try:
        root = compose(text, engine)
        if engine == "llamafactory":
            _refuse_duplicates(root, source)
        values = None if root is None else construct(root, engine)
    except yaml.YAMLError as err:
        raise _syntax_error(err, text, source) from err
    if values is None:
        raise TunebookError(f"{source}: holds no keys", fix="write `key: value` lines into it")
    if not isinstance(values, dict):
        raise TunebookError(
            f"{source}: holds a {type(values).__name__}, not a mapping", fix="write it as `key: value` lines"
        )
    strangers = [key for key in values if not isinstance(key, str)]
    if strangers:
        raise TunebookError(
            f"{source}: the key {strangers[0]!r} is read as {type(strangers[0]).__name__}, not as a name",
            fix="put the key in quotes",
        )
    return values


def compose(text: str, engine: EngineName) -> yaml.Node | None:
    """Return the tree of a YAML text, its nodes knowing their lines; None for an empty one.

    Raises:
        yaml.YAMLError: `text` is no YAML, is nested endlessly, or unfolds to more than a recipe ever holds.
    """
    try:
        root = yaml.compose(text, Loader=_loader(engine))
    except RecursionError:
        raise yaml.YAMLError("brackets inside brackets, deeper than can be read") from None
    if root is not None:
        _refuse_unfolding(root)
    return root


_MOST_VALUES = 100_000


def _refuse_unfolding(root: yaml.Node) -> None:
    """Refuse aliases that hold themselves, or that a few lines of unfold to millions of values."""
    # After a node's parts: an alias is the same node again, so each is counted once and added wherever it is.
    counted: dict[int, int] = {}
    open_nodes: set[int] = set()
    waiting: list[tuple[yaml.Node, bool]] = [(root, False)]
    while waiting:
        node, done = waiting.pop()
        if id(node) in counted:
            continue
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        parts = [part for one in parts for part in (one if isinstance(one, tuple) else (one,))]
        if not done:
            open_nodes.add(id(node))
            waiting.append((node, True))
            if any(id(part) in open_nodes for part in parts):
                raise yaml.MarkedYAMLError(problem="an alias that holds itself", problem_mark=node.start_mark)
            waiting.extend((part, False) for part in parts)
            continue
        open_nodes.discard(id(node))
        counted[id(node)] = 1 + sum(counted[id(part)] for part in parts)
        if counted[id(node)] > _MOST_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"unfolds to more than {_MOST_VALUES:,} values", problem_mark=node.start_mark
            )


def construct(node: yaml.Node, engine: EngineName) -> Any:
    """Return what a tree of `compose` holds; of two equal keys the last one wins.

    `<<` merges are folded into the tree.
    """
    loader = _loader(engine)("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _loader(engine: EngineName) -> type[yaml.SafeLoader]:
    return _OmegaConfLoader if engine == "llamafactory" else _SafeLoader


def parse_value(text: str) -> Any:
    """Read one value of a `key=value` override, as OmegaConf's dotlist does for either engine.

    Raises:
        yaml.YAMLError: `text` is no YAML.
    """
    root = compose(text, "llamafactory")
    return None if root is None else construct(root, "llamafactory")


def dump(values: Mapping[str, Any]) -> str:
    """Return `values` as YAML that both engines read back equal, keys in the order given."""
    return yaml.dump(
        dict(values),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=4096,
    )


def _refuse_duplicates(root: yaml.Node | None, source: str) -> None:
    errors = [
        TunebookError(
            f"{source}, line {node.start_mark.line + 1}: the key {node.value!r} is there twice",
            fix="delete one of them",
        )
        for node in (duplicates(root) if root is not None else ())
    ]
    if errors:
        raise join_errors(errors)


def duplicates(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Yield each key that is in its mapping a second time, nested mappings included."""
    # On the composed tree, since constructing a mapping folds `<<` merges into it, after which a merged key
    # and the key that overrides it look like two.
    waiting, visited = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            names = set()
            for key, value in node.value:
                waiting.append(value)
                if isinstance(key, yaml.ScalarNode) and key.tag == "tag:yaml.org,2002:str":
                    if key.value in names:
                        yield key
                    names.add(key.value)


def _syntax_error(err: yaml.YAMLError, text: str, source: str) -> TunebookError:
    mark = getattr(err, "problem_mark", None)
    if mark is None:
        return TunebookError(f"{source}: is not YAML: {err}", fix="correct the syntax")
    problem = getattr(err, "problem", None) or "cannot be read"
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or line[mark.column : mark.column + 1] == "\t":
        return TunebookError(
            f"{source}, line {mark.line + 1}: a tab where YAML needs spaces", fix="use spaces"
        )
    return TunebookError(
        f"{source}, line {mark.line + 1}, column {mark.column + 1}: {problem}: {line.strip()!r}",
        fix="correct the line, e.g. `key: value` with a space after the colon",
    )

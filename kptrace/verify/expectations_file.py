"""The file that ``kptrace verify`` reads -> what is to be traced, and what is to come of it. Pure.

::

    defaults:                 # for every check that does not say otherwise; may be left out
      namespace: shop
      from: pod/client
    checks:
    - target: svc/web
    - target: svc/web:metrics
      name: metrics are closed to the shop
      expect: [dropped, rejected]

A check has ``target`` and may have ``name`` and the keys below; they are the flags of ``kptrace
trace``. Whatever is wrong raises ``UsageError`` with the line, what is wrong, and what would do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, get_args

import yaml

from kptrace.model import API_VERSION, AddressKind, Outcome, TraceRequest
from kptrace.model.errors import UsageError
from kptrace.model.suggestions import nearest
from kptrace.model.targets import parse_source, parse_target
from kptrace.verify.results import Expectation

KIND = "Expectations"
TOP = ("apiVersion", "kind", "defaults", "checks")
MOST_COUNT = 200
LONGEST = 60.0
LARGEST = 1 << 20


class _Reader:
    """Knows the file's name, for errors; nodes know their lines."""

    def __init__(self, file: str) -> None:
        self._file = file

    def wrong(self, node: yaml.Node, text: str, hint: str) -> NoReturn:
        raise UsageError(f"{self._file}:{node.start_mark.line + 1}: {text}", hint)

    def top(self, text: str) -> yaml.Node:
        if len(text) > LARGEST:
            raise UsageError(f"{self._file}: is larger than {LARGEST >> 20} MiB", "split it")
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise UsageError(
                f"{self._file}:{line}: no YAML: {error.problem or error.context}",
                "a list stands behind `checks:`, one `- target: ...` an entry",
            ) from None
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            said = str(error).partition("\n")[0] or type(error).__name__
            raise UsageError(f"{self._file}: no YAML: {said}", "write it as plain YAML") from None
        if node is None:
            raise UsageError(
                f"{self._file}: is empty", "write `checks:` and a list of targets below it"
            )
        return node

    def mapping(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{what} is {_form(node)}", f"write `key: value` with {_or(known)}")
        nodes_by_name: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self.text(key, "a key")
            if name not in known:
                self.wrong(key, f"{what} has no key {name!r}", _nearest(name, known))
            if name in nodes_by_name:
                self.wrong(key, f"{name} stands here twice", "leave one of them")
            nodes_by_name[name] = value
        return nodes_by_name

    def listed(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            text = "an empty list" if isinstance(node, yaml.SequenceNode) else _form(node)
            self.wrong(node, f"{what} is {text}", "write a list, one `- target: svc/NAME` an entry")
        return list(node.value)

    def text(self, node: yaml.Node, what: str) -> str:
        """As it was typed: ``on`` and ``1.10`` too are names."""
        if not isinstance(node, yaml.ScalarNode):
            self.wrong(node, f"{what} is {_form(node)}", "write one word or text")
        value = str(node.value).strip()
        if not value:
            self.wrong(node, f"{what} is empty", "write a value, or leave the key out")
        return value

    def word(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> str:
        value = self.text(node, what)
        if value not in known:
            self.wrong(node, f"{what} cannot be {value!r}", _nearest(value, known))
        return value

    def number(self, node: yaml.Node, what: str, least: float, most: float) -> float:
        value = self.text(node, what)
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            self.wrong(node, f"{what} cannot be {value!r}", f"a number from {least:g} to {most:g}")
        return number

    # --- the keys of a check --------------------------------------------------------------------

    def family(self, node: yaml.Node, what: str) -> int:
        return int(self.word(node, what, ("4", "6")))

    def via(self, node: yaml.Node, what: str) -> str:
        return self.word(node, what, get_args(AddressKind))

    def count(self, node: yaml.Node, what: str) -> int:
        number = self.number(node, what, 1, MOST_COUNT)
        if number != int(number):
            self.wrong(node, f"{what} is no whole number", f"write {int(number)}")
        return int(number)

    def timeout(self, node: yaml.Node, what: str) -> float:
        return self.number(node, what, 0.1, LONGEST)

    def expect(self, node: yaml.Node, what: str) -> tuple[Outcome, ...]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes:
            self.wrong(node, f"{what} is an empty list", f"name {_or(tuple(Outcome))}")
        return tuple(Outcome(self.word(node, what, tuple(Outcome))) for node in nodes)


# By key: the field of Question, and how its value is read.
FIELDS: Mapping[str, tuple[str, Callable[[_Reader, yaml.Node, str], Any]]] = {
    "from": ("source", _Reader.text),
    "namespace": ("namespace", _Reader.text),
    "via": ("via", _Reader.via),
    "node": ("node", _Reader.text),
    "family": ("family", _Reader.family),
    "count": ("count", _Reader.count),
    "timeout": ("timeout", _Reader.timeout),
    "expect": ("expect", _Reader.expect),
}
DEFAULTS = tuple(FIELDS)
CHECK = ("target", "name", *FIELDS)


def read_expectations(text: str, file: str, namespace: str) -> tuple[Expectation, ...]:
    """file: its name, for errors; namespace: where neither a check nor the defaults name one."""
    reader = _Reader(file)
    node = reader.top(text)
    top = reader.mapping(node, "the file", TOP)
    for key, only in (("apiVersion", API_VERSION), ("kind", KIND)):
        if key in top:
            reader.word(top[key], key, (only,))
    if "checks" not in top:
        reader.wrong(node, "has no `checks`", "write `checks:` and a list of targets below it")
    usual: dict[str, Any] = {"namespace": namespace}
    if "defaults" in top:
        usual |= _fields(reader, reader.mapping(top["defaults"], "defaults", DEFAULTS))
    return tuple(_check(reader, node, usual) for node in reader.listed(top["checks"], "`checks`"))


def _check(reader: _Reader, node: yaml.Node, usual: Mapping[str, Any]) -> Expectation:
    nodes_by_name = reader.mapping(node, "a check", CHECK)
    if "target" not in nodes_by_name:
        reader.wrong(node, "a check without a target", "add `target: svc/NAME`")
    fields = {**usual, **_fields(reader, nodes_by_name)}
    text = reader.text(nodes_by_name["target"], "target")
    try:
        target = parse_target(text, fields["namespace"])
    except UsageError as error:
        reader.wrong(nodes_by_name["target"], error.message, error.hint)
    try:
        if fields.get("source"):
            parse_source(fields["source"], fields["namespace"])
    except UsageError as error:
        reader.wrong(nodes_by_name.get("from", node), error.message, error.hint)
    if "node" in nodes_by_name and fields.get("via") != "nodePort":
        reader.wrong(
            nodes_by_name["node"], "node says whose node port is used", "add `via: nodePort`"
        )
    name = reader.text(nodes_by_name["name"], "name") if "name" in nodes_by_name else ""
    line = node.start_mark.line + 1
    return Expectation(request=TraceRequest(target=target, **fields), name=name, line=line)


def _fields(reader: _Reader, nodes_by_name: Mapping[str, yaml.Node]) -> dict[str, Any]:
    return {
        field: read(reader, nodes_by_name[key], key)
        for key, (field, read) in FIELDS.items()
        if key in nodes_by_name
    }


def _form(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return f"{node.value!r}" if node.value else "empty"


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = nearest(word, known)
    text = f"it is one of: {', '.join(known)}" if len(known) > 1 else f"it is {known[0]}"
    return f"did you mean {near}? {text}" if near else text


def _or(texts: tuple[str, ...]) -> str:
    return f"{', '.join(texts[:-1])} or {texts[-1]}" if len(texts) > 1 else texts[0]

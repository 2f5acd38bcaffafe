"""Writes tests/cases/native/recorded: one kernel's rules as facts, and as its tools print them.

    python tests/kernel/record_native.py          (root)

tests/rules/test_asked.py reads both and compares them; so the decoders are tested without a kernel.
To be run when a fact's form changes; then read the diff.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from kptrace.agent.state.rule_queries import ReadError, RuleReader
from kptrace.rules.live.source import LiveSource
from kptrace.rules.load import load_ruleset
from kptrace.rules.model.ruleset import Ruleset

CASES = Path(__file__).parent.parent / "cases" / "native"
BULKY = ("u32", "string", "bpf", "cgroup", "hashlimit", "nfacct", "chunk-types", "1/day")


def main() -> None:
    name = f"kpt-record-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        _record(name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def _run(name: str, *words: str, given: str = "") -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", name, *words], input=given, capture_output=True, text=True
    )
    if done.returncode and words[0] != "ipset":
        raise SystemExit(f"{words}: {done.stderr}")
    return done.stdout


def _record(name: str) -> None:
    for line in (CASES / "ipsets.txt").read_text().splitlines():
        _run(name, "ipset", "restore", given=f"{line}\n")
    for program in ("iptables", "ip6tables"):
        lines = (CASES / f"{program}.txt").read_text().splitlines()
        text = "\n".join(line for line in lines if not any(word in line for word in BULKY))
        for backend in ("nft", "legacy"):
            _run(name, f"{program}-{backend}-restore", given=f"{text}\n")
    _run(name, "nft", "-f", "-", given=(CASES / "native.nft").read_text())
    texts = {
        f"{program}-{backend}-save.txt": _run(name, f"{program}-{backend}-save", "-c")
        for program in ("iptables", "ip6tables")
        for backend in ("nft", "legacy")
    }
    texts["nft-ruleset.json"] = _run(name, "nft", "-j", "list", "ruleset")
    texts["ipset-save.txt"] = _run(name, "ipset", "save")
    facts: dict[str, str] = {}
    rulesets = RuleReader(f"/run/netns/{name}")

    def ask(files: list[str]) -> dict[str, str]:
        found = {f: t for f, t in rulesets.read(files).items() if not isinstance(t, ReadError)}
        facts.update(found)
        return found

    _read_all(load_ruleset(texts), Ruleset([LiveSource(ask)]))  # type: ignore[arg-type]
    folder = CASES / "recorded"
    folder.mkdir(exist_ok=True)
    for file, text in texts.items():
        (folder / file).write_text(re.sub(r" on \w+ \w+ .*", "", text))
    decoded = {file: json.loads(facts[file]) for file in sorted(facts)}
    (folder / "facts.json").write_text(_lines(decoded))


def _read_all(spoken: Ruleset, native: Ruleset) -> None:
    for table in spoken.tables():
        for chain in native.chain_names(table):
            list(native.chain(table, chain).rules)  # type: ignore[union-attr]
        for each in spoken.set_names(table):
            list(native.set(table, each).members)  # type: ignore[union-attr]
    for each in native.set_names(None):
        native.set(None, each)


def _lines(decoded: dict[str, object]) -> str:
    """A fact a line."""
    return (
        "{\n"
        + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in decoded.items())
        + "\n}\n"
    )


if __name__ == "__main__":
    main()

"""The command line without a lab: pages of help, wrong usage, exit codes, forms of a report.

All by the real command, in a process of its own; saved runs stand in for a lab.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import typer
import yaml

import kptrace
from kptrace.bundle import archive
from kptrace.cli.app import app
from kptrace.model import Outcome
from kptrace.protocol.recording import pack, unpack

ROOT = Path(kptrace.__file__).parents[1]
MAIN = "import sys; sys.argv[0] = {!r}; from kptrace.cli.app import main; main()"


def run(*args: str, program: str = "kptrace", **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    return subprocess.run(
        [sys.executable, "-c", MAIN.format(program), *args],
        cwd=ROOT,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- help -----------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and group of commands, as words."""

    def below(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, (*words, name))

    return below(typer.main.get_command(app), ())


@pytest.mark.parametrize("words", list(commands()), ids=lambda words: " ".join(words) or "kptrace")
def test_every_page_of_help(words: tuple[str, ...]) -> None:
    done = run(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(('kptrace', *words))} ")
    assert max(map(len, lines)) <= 80
    assert run("help", *words).stdout == done.stdout


@pytest.mark.parametrize("group", [(), ("lab",)], ids=["kptrace", "lab"])
def test_no_line_in_the_list_of_commands_is_cut(group: tuple[str, ...]) -> None:
    listed = run(*group, "--help").stdout.partition("Commands:\n")[2].splitlines()
    assert all(re.match(r"  [a-z]+ +[A-Z].*[^.]\.$", line) for line in listed), listed


@pytest.mark.parametrize(
    ("program", "name"), [("kptrace", "kptrace"), ("kubectl-kptrace", "kubectl kptrace")]
)
@pytest.mark.parametrize("columns", ["80", "60"])
def test_the_first_example_is_a_trace_in_the_cluster(program: str, name: str, columns: str) -> None:
    shown = run("--help", program=program, COLUMNS=columns).stdout
    first = shown.partition("Examples:\n")[2].splitlines()[0].split("  ")[1]
    assert first == f"{name} svc/web -n shop --from pod/client"
    assert max(map(len, shown.splitlines())) <= int(columns)


def test_flags_stand_under_headings_the_own_ones_first() -> None:
    shown = run("trace", "--help").stdout
    headings = re.findall(r"^(\w.*):$", shown, re.MULTILINE)
    assert headings[:2] == ["Arguments", "Options"]
    own, cluster = shown.index("--namespace"), shown.index("--certificate-authority")
    assert own < shown.index("--output") < shown.index("--lab-name") < cluster
    assert shown.count("--namespace ") == 1


def test_help_lists_the_commands() -> None:
    listed = run("--help").stdout.partition("Commands:")[2]
    assert {line.split()[0] for line in listed.splitlines() if line[:3].strip()} >= {
        "trace",
        "replay",
        "causes",
        "lab",
    }
    assert run("-h").stdout == run("--help").stdout
    assert "--version" in run("--help").stdout


def test_as_a_plugin_of_kubectl() -> None:
    done = run("--help", program="/usr/local/bin/kubectl-kptrace")
    assert done.stdout.startswith("Usage: kubectl kptrace ")


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"kptrace {kptrace.__version__}\n")


def test_a_start_costs_no_heavy_import() -> None:
    heavy = ("rich", "scapy", "kubernetes", "pyroute2", "asyncio", "dns", "yaml", "ssl", "ctypes")
    code = f"import kptrace.cli.app, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n"


# --- wrong usage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--nonsense",), "No such option"),
        (("svc/web", "--count", "0"), "--count"),
        (("svc/web", "--count", "x"), "--count"),
        (("svc/web", "--timeout", "0"), "--timeout"),
        (("svc/web", "-o", "table"), "-o"),
        (("svc/web", "--expect", "broken"), "--expect"),
        (("svc/web", "-4", "-6"), "-4 and -6 exclude each other"),
        (("svc/web", "--node", "a"), "--node a says whose node port is used"),
        (("svc/", "--lab"), "is empty"),
        (("svc/web", "svc/web"), "unexpected extra argument"),
        (("trace",), "Missing argument"),
        (("replay",), "Missing argument"),
        (("lab", "sideways"), "No such command"),
        (("lab", "up", "--nodes", "1"), "2 to 9 nodes"),
        (("lab", "up", "--name", "A B"), "cannot be a lab's name"),
        (("causes", "bad-luck"), "no cause bad-luck"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage(args: tuple[str, ...], said: str) -> None:
    done = run(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    done = run("svc/web")
    assert (done.returncode, done.stdout) == (3, "")
    message, hint = done.stderr.splitlines()
    assert message.startswith("kptrace: no cluster: there is no kubeconfig")
    assert "--kubeconfig" in hint
    assert "--lab" in hint


def test_the_command_trace_may_be_left_out() -> None:
    assert run("trace", "svc/web").stderr == run("svc/web").stderr


@pytest.mark.parametrize("name", ["nothing.tar.gz", "."])
def test_no_such_run(tmp_path: Path, name: str) -> None:
    done = run("replay", str(tmp_path / name))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("kptrace: ")


def test_hostile_words_reach_no_terminal(tmp_path: Path) -> None:
    done = run("replay", str(tmp_path / "\x1b]0;owned\x07\x1b[31m"))
    assert done.returncode == 3
    assert "\x1b" not in done.stderr
    assert "\x07" not in done.stderr


# --- reports --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blocked(cases: Path) -> Path:
    return cases / "replay-tunnel-port-blocked"


def test_another_outcome_exits_1_and_the_expected_one_0(blocked: Path, tmp_path: Path) -> None:
    assert run("replay", str(blocked)).returncode == 1
    saved = unpack(archive.read(blocked), "x")
    for expect, code in (
        ((Outcome.DROPPED,), 0),
        ((Outcome.REFUSED, Outcome.DROPPED), 0),
        ((Outcome.REFUSED,), 1),
    ):
        question = msgspec.structs.replace(saved.request, expect=expect)
        path = tmp_path / "run.tar.gz"
        archive.write(path, pack(msgspec.structs.replace(saved, request=question)))
        assert run("replay", str(path)).returncode == code


def test_forms(blocked: Path) -> None:
    made = json.loads(run("replay", str(blocked), "-o", "json").stdout)
    assert (made["kind"], made["outcome"]) == ("Trace", "dropped")
    assert yaml.safe_load(run("replay", str(blocked), "-o", "yaml").stdout) == made
    junit = ElementTree.fromstring(run("replay", str(blocked), "-o", "junit").stdout)
    assert junit.find(".//failure") is not None
    text, wide = (run("replay", str(blocked), "-o", form).stdout for form in ("text", "wide"))
    assert len(wide.splitlines()) > len(text.splitlines())


def test_colour(blocked: Path) -> None:
    def coloured(*args: str, **environ: str) -> bool:
        return "\033[" in run("replay", str(blocked), *args, **environ).stdout

    assert not coloured()
    assert coloured("--color", "always")
    assert coloured(FORCE_COLOR="1")
    assert not coloured(FORCE_COLOR="1", NO_COLOR="1")
    assert not coloured("--color", "never", FORCE_COLOR="1")


def test_what_is_piped_stays_clean(blocked: Path) -> None:
    """No progress and no escapes where nobody looks."""
    done = run("replay", str(blocked))
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_causes() -> None:
    listed = run("causes").stdout
    assert "tunnel-port-blocked" in listed
    assert "UDP 8472" in run("causes", "tunnel-port-blocked").stdout

"""Completion: the words are those of the command line, and real shells complete with them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from kptrace.cli import SHORT
from kptrace.cli.app import app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "completions"
PROGRAM = FOLDER / "kubectl_complete-kptrace"
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"

# A kubectl that keeps what it was asked, and a cluster with a name that no cluster can have.
KUBECTL = """#!/bin/sh
echo "$@" >> "$ASKED"
case $* in
*services*) printf 'service/web\\nservice/web-two\\nservice/$(touch owned)\\n' ;;
*pods*) printf 'pod/client\\n' ;;
*nodes*) printf 'node/node-a\\nnode/node-b\\n' ;;
*namespaces*) printf 'namespace/shop\\nnamespace/default\\n' ;;
*contexts*) printf 'arn:aws:eks:eu-1:1:cluster/prod\\nadmin@dev\\n' ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL)
    program.chmod(0o755)
    return tmp_path / "asked"


def complete(*words: str, asked: Path | None = None, shell: str = "sh") -> tuple[list[str], str]:
    """The candidates, without what they mean, and the directive."""
    path = f"{asked.parent / 'bin'}:{SYSTEM}" if asked else SYSTEM
    done = subprocess.run(
        [*shell.split(), PROGRAM, *words],
        env={"PATH": path, "ASKED": str(asked)}
        if asked
        else {"PATH": path, "KUBECTL_PATH": "false"},
        cwd=asked.parent if asked else None,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    *lines, directive = done.stdout.splitlines()
    return [line.partition("\t")[0] for line in lines], directive


def test_the_words_are_those_of_the_command_line(build: Path) -> None:
    done = subprocess.run(
        [sys.executable, build / "completions.py", "--check"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


SHELLS = [
    pytest.param(
        name, marks=pytest.mark.skipif(not shutil.which(name.split()[0]), reason=f"no {name} here")
    )
    for name in ("sh", "bash --posix", "busybox sh", "zsh --emulate sh")
]


@pytest.mark.parametrize("shell", SHELLS)
def test_any_shell_reads_it(shell: str, asked: Path) -> None:
    assert complete("la", shell=shell) == (["lab"], ":4")
    assert complete("-n", "shop", "svc/w", asked=asked, shell=shell)[0] == [
        "svc/web",
        "svc/web-two",
    ]


def test_it_starts_with_commands_and_targets() -> None:
    found, directive = complete("")
    assert set(found) == {*SHORT, "help", "svc/", "pod/"}
    assert directive == ":4"
    assert complete("sv") == (["svc/"], ":6")
    assert complete() == (found, directive)


def options_of(name: str) -> set[str]:
    command = getattr(typer.main.get_command(app), "commands", {})[name]
    told = {opt for each in command.params if each.param_type_name == "option" for opt in each.opts}
    return {opt for opt in told if opt.startswith("--")}


@pytest.mark.parametrize("name", [name for name in SHORT if name != "lab"])
def test_every_option_of_a_command(name: str) -> None:
    found, directive = complete(name, "--")
    assert set(found) == {*options_of(name), "--help"}
    assert directive == ":4"


@pytest.mark.parametrize(
    ("words", "found", "directive"),
    [
        (("trace", "--color", "a"), ["auto", "always"], ":4"),
        (("svc/web", "--color", "a"), ["auto", "always"], ":4"),
        (("svc/web", "--color=n"), ["never"], ":4"),
        (("--color", "never", "sv"), ["svc/"], ":6"),
        (("lab", "he"), ["heal"], ":4"),
        (("lab", "up", "--proxy", "iptables-"), ["iptables-legacy"], ":4"),
        (("help", "la"), ["lab"], ":4"),
        (("help", "lab", "st"), ["status"], ":4"),
        (("causes", "no-ro"), ["no-route"], ":4"),
        (("lab", "break", "bridge-nf"), ["bridge-nf-off"], ":4"),
        (("replay", "some"), [], ":0"),
        (("svc/web", "--save", ""), [], ":0"),
        (("explain", "svc/web", ""), [], ":4"),
        (("svc/web", "--count", ""), [], ":4"),
        (("explain", "--from", "n"), ["node/"], ":6"),
    ],
)
def test_what_may_stand_there(words: tuple[str, ...], found: list[str], directive: str) -> None:
    assert complete(*words) == (found, directive)


# --- names of the cluster -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "found", "question"),
    [
        (("svc/",), ["svc/web", "svc/web-two"], "get services -o name"),
        (("service/web-",), ["service/web-two"], "get services -o name"),
        (("explain", "-n", "shop", "pod/"), ["pod/client"], "get pods -o name -n shop"),
        (("svc/a", "--from", "node/"), ["node/node-a", "node/node-b"], "get nodes -o name"),
        (("svc/a", "-n", "s"), ["shop"], "get namespaces -o name"),
        (("svc/a", "--namespace=d"), ["default"], "get namespaces -o name"),
        (("svc/a", "--context", "a"), ["admin@dev"], "config get-contexts -o name"),
        (
            ("--context=prod", "--as", "me", "--count", "3", "svc/"),
            ["svc/web", "svc/web-two"],
            "get services -o name --context=prod --as me",
        ),
    ],
)
def test_names_are_asked_of_the_same_cluster(
    words: tuple[str, ...], found: list[str], question: str, asked: Path
) -> None:
    assert complete(*words, asked=asked) == (found, ":4")
    assert asked.read_text() == f"{question} --request-timeout=3s\n"
    assert not (asked.parent / "owned").exists()


@pytest.mark.parametrize(
    "words",
    [("",), ("tr",), ("svc/web", "--"), ("--lab", "svc/"), ("explain", "--offline", "svc/")],
)
def test_the_cluster_is_not_asked(words: tuple[str, ...], asked: Path) -> None:
    complete(*words, asked=asked)
    assert not asked.exists()


def test_kubectl_completes_with_it(tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl here")
    plugin = tmp_path / "kubectl-kptrace"
    plugin.write_text("#!/bin/sh\n")
    plugin.chmod(0o755)
    done = subprocess.run(
        [kubectl, "__complete", "kptrace", "lab", "he"],
        env={"PATH": f"{tmp_path}:{FOLDER}:{SYSTEM}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        "heal\tUndo one fault, or all.",
        ":4",
    ]


# --- shells ---------------------------------------------------------------------------------------

STARTS = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
LOADS = {
    "bash": f"source {FOLDER}/kptrace.bash",
    "zsh": f"fpath=({FOLDER} $fpath); autoload -U compinit; compinit -u -D; setopt no_prompt_cr",
    "fish": f"source {FOLDER}/kptrace.fish",
}
# it stands in for kptrace: what the shell made of the line
ECHO = "#!/bin/sh\nprintf '<'; printf '[%s]' \"$@\"; printf '>\\n'\n"


class Typed:
    """An interactive shell on a terminal of its own."""

    def __init__(self, shell: str, folder: Path) -> None:
        program = folder / "kptrace"
        program.write_text(ECHO)
        program.chmod(0o755)
        (folder / "a run.tar.gz").touch()
        path = f"{folder}:{FOLDER}:{SYSTEM}"
        environ = {"PATH": path, "HOME": str(folder), "TERM": "dumb", "KUBECTL_PATH": "false"}
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe(STARTS[shell][0], STARTS[shell], environ)
        self._seen = ""
        self.line(LOADS[shell] + "; echo load''ed")
        self.until("loaded")

    def line(self, text: str) -> None:
        os.write(self._terminal, f"{text}\r".encode())

    def until(self, word: str) -> str:
        end = time.monotonic() + 60
        while word not in self._seen:
            ready, _, _ = select.select([self._terminal], [], [], end - time.monotonic())
            assert ready, f"waited in vain for {word!r}: {self._seen!r}"
            self._seen += os.read(self._terminal, 4096).decode(errors="replace")
        before, _, self._seen = self._seen.partition(word)
        return before

    def completed(self, text: str) -> str:
        """What the program is given when this is typed, Tabs and all."""
        self.line(f"kptrace {text}")
        self.until("\n<")
        return self.until(">\r")

    def close(self) -> None:
        os.close(self._terminal)  # hangs up
        os.waitpid(self._pid, 0)


@pytest.fixture(params=list(STARTS))
def typed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Typed]:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here: its completion was not tried")
    shell = Typed(request.param, tmp_path)
    yield shell
    shell.close()


def test_a_shell_completes(typed: Typed) -> None:
    assert typed.completed("expl\tX") == "[explain][X]"
    assert typed.completed("sv\tX") == "[svc/X]"
    assert typed.completed("svc/web --col\talw\t") == "[svc/web][--color][always]"
    assert typed.completed("svc/web:http --trac\t") == "[svc/web:http][--trace-rule]"
    assert typed.completed("lab up --proxy=ipv\t") == "[lab][up][--proxy=ipvs]"
    assert typed.completed("replay a\\ r\t") == "[replay][a run.tar.gz]"

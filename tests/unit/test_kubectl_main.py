"""The command line of `kubectl slipway`: arguments, what is sent, what is said, exit codes."""

import copy
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.unit.test_kubectl_show import ABORTED, CANDIDATE, LIVE, SERVED, STABLE, churn

from slipway.kubectl import main
from slipway.kubectl.client import ChangedError, ClusterError

Object = dict[str, Any]
UNDER_WAY = churn("Progressing", stable=STABLE, candidate=CANDIDATE, rollout=LIVE)
SERVES = churn(stable=STABLE, history=[SERVED])
WITHDRAWN = churn("Degraded", stable=STABLE, rollout={**LIVE, "outcome": "Failed", "message": "too slow"}, history=[ABORTED])


class Api:
    """A cluster with one ModelDeployment, which becomes each of `states` in turn; `obeys` is what a request makes of it."""

    def __init__(self, *states: Object, obeys: Object | None = None, conflicts: int = 0) -> None:
        self.namespace = "shop"
        self.states, self.obeys, self.conflicts = states, obeys, conflicts
        self.sent: list[Object] = []
        self.asked_for: list[tuple[str, ...]] = []

    def get(self, namespace: str, name: str) -> Object:
        self.asked_for.append((namespace, name))
        if name != "churn":
            raise ClusterError(f"no ModelDeployment {name} in namespace {namespace}; there are: churn")
        return self.states[-1]

    def list(self, namespace: str) -> list[Object]:
        self.asked_for.append((namespace,))
        return list(self.states)

    def follow(self, namespace: str, name: str, seconds: float = 0) -> Iterator[Object]:
        self.get(namespace, name)
        if not self.sent:
            yield from self.states
            return
        found = copy.deepcopy(self.states[-1])
        found["status"]["request"] = self.sent[-1]
        yield found
        if self.obeys is not None:
            yield {**self.obeys, "status": {"request": self.sent[-1], "handled": self.sent[-1]["at"], **self.obeys["status"]}}

    def request(self, found: Object, request: Object) -> None:
        if self.conflicts:
            self.conflicts -= 1
            raise ChangedError
        self.sent.append(request)

    def who(self) -> str:
        return "ops-1"

    def kept(self, found: Object) -> set[str] | None:
        return {"churn-7f9c", "churn-0000"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answer a function that runs a command line on a cluster and answers its exit code."""

    def ran(api: Api, *words: str) -> int:
        monkeypatch.setattr(main, "Cluster", lambda kubeconfig, context: api)
        return main.main(words)

    return ran


PAUSED = churn("Paused", stable=STABLE, candidate=CANDIDATE, rollout={**LIVE, "paused": True})
# name, cluster, command line -> exit code, what is sent, what is printed
TABLE: list[tuple[str, Api, str, int, Object | None, str]] = [
    ("pause", Api(UNDER_WAY, obeys=PAUSED), "pause churn", 0, {"verb": "Pause"}, "churn-b41d (version 3) stays at 25%"),
    (
        "it changed in between",
        Api(UNDER_WAY, UNDER_WAY, obeys=PAUSED, conflicts=1),
        "pause churn",
        0,
        {"verb": "Pause"},
        "stays at 25%",
    ),
    ("nobody obeys", Api(UNDER_WAY), "pause churn", 2, {"verb": "Pause"}, "not obeyed within 10 s: is the operator running?"),
    ("nobody waits", Api(UNDER_WAY), "pause churn --wait=false", 0, {"verb": "Pause"}, "asked for Pause"),
    ("promote", Api(UNDER_WAY), "promote churn --wait=false", 0, {"verb": "Promote", "full": False}, ""),
    ("promote in full", Api(UNDER_WAY), "promote churn --full --wait=false", 0, {"verb": "Promote", "full": True}, ""),
    ("rollback", Api(UNDER_WAY), "rollback churn --wait=false", 0, {"verb": "Rollback", "revision": None}, ""),
    (
        "rollback to one",
        Api(SERVES),
        "rollback churn churn-0000 --wait=false",
        0,
        {"verb": "Rollback", "revision": "churn-0000"},
        "",
    ),
    ("rollback to none", Api(SERVES), "rollback churn churn-9", 1, None, "churn: churn-9 is not kept; kept are churn-0000"),
    ("no rollout", Api(SERVES), "promote churn", 1, None, "churn: no rollout is under way"),
    ("obeyed, but passed over", Api(UNDER_WAY, obeys=UNDER_WAY), "pause churn", 1, {"verb": "Pause"}, "Slipway passed it over"),
    (
        "a spec that nobody saw",
        Api(churn(observedGeneration=3)),
        "pause churn",
        1,
        None,
        "has not taken notice of the latest spec",
    ),
    (
        "somebody else's is in the way",
        Api(
            churn(
                "Progressing", stable=STABLE, candidate=CANDIDATE, rollout=LIVE, request={"verb": "Abort", "at": "x", "by": "bob"}
            )
        ),
        "pause churn --wait=false",
        0,
        {"verb": "Pause"},
        "this replaces bob's Abort",
    ),
    ("no such name", Api(SERVES), "abort chrun", 3, None, "no ModelDeployment chrun in namespace shop; there are: churn"),
    (
        "wait: promoted",
        Api(UNDER_WAY, churn(stable={**STABLE, "revision": "churn-b41d"})),
        "wait churn",
        0,
        None,
        "churn-b41d (version 2) serves",
    ),
    ("wait: withdrawn", Api(UNDER_WAY, WITHDRAWN), "wait churn", 1, None, "churn-b41d was withdrawn: too slow"),
    ("wait: too long", Api(UNDER_WAY), "wait churn --timeout 1m", 2, None, "not within 60 s"),
    (
        "wait: not for what another spec left",
        Api(churn(observedGeneration=3, stable=STABLE)),
        "wait churn --timeout 5",
        2,
        None,
        "not within 5 s",
    ),
    ("status", Api(UNDER_WAY), "status churn", 0, None, "└─ step 2 of 3"),
    ("list", Api(UNDER_WAY), "list", 0, None, "NAME"),
    ("list of none", Api(), "list", 0, None, "no ModelDeployment in namespace shop"),
    ("history", Api(SERVES), "history churn", 0, None, "serves"),
    (
        "watch without a terminal",
        Api(UNDER_WAY, UNDER_WAY, SERVES),
        "watch churn",
        0,
        None,
        "Ready: churn-7f9c (version 2) serves",
    ),
]


@pytest.mark.parametrize(("api", "words", "code", "sent", "said"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(
    run: Any, capsys: pytest.CaptureFixture[str], api: Api, words: str, code: int, sent: Object | None, said: str
) -> None:
    assert run(api, *words.split()) == code
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
    if code and not words.startswith("wait"):
        assert not captured.out, "what went wrong is no output"
    assert len(api.sent) == (sent is not None)
    if sent is not None:
        assert sent.items() <= api.sent[0].items()
        assert api.sent[0]["by"] == "ops-1"
        assert api.sent[0].keys() == {"verb", "at", "by", "full", "revision", "weight"}, (
            "null removes what an earlier request had"
        )


def test_a_line_is_printed_once(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(Api(UNDER_WAY, UNDER_WAY, SERVES), "watch", "churn")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_somebody_else_asks_meanwhile(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    other = churn("Progressing", stable=STABLE, candidate=CANDIDATE, rollout=LIVE)
    other["status"] |= {"request": {"verb": "Abort", "at": "y", "by": "bob"}, "handled": "y"}
    api = Api(UNDER_WAY)
    api.obeys = other
    assert run(api, "pause", "churn") == 1
    assert "replaced by bob's Abort" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_machine_output(run: Any, capsys: pytest.CaptureFixture[str], output: str) -> None:
    read = json.loads if output == "json" else yaml.safe_load

    def answer(*words: str) -> Any:
        assert run(Api(SERVES), *words, "-o", output) == 0
        return read(capsys.readouterr().out)

    assert answer("status", "churn") == SERVES
    assert answer("list")["items"] == [SERVES]
    assert answer("history", "churn")["history"] == [{**SERVED, "kept": True}]


@pytest.mark.parametrize(
    ("words", "asked_for"),
    [("list", ("shop",)), ("list -A", ("",)), ("list -n other", ("other",)), ("status churn -n other", ("other", "churn"))],
)
def test_where(run: Any, words: str, asked_for: tuple[str, ...]) -> None:
    api = Api(SERVES)
    assert run(api, *words.split()) == 0
    assert api.asked_for[0] == asked_for


@pytest.mark.parametrize(
    "words",
    [
        "",
        "promte churn",
        "status",
        "status churn -o wide",
        "wait churn --timeout soon",
        "pause churn --full",
        "pause churn --wait=perhaps",
        "abort churn churn-7f9c",
    ],
)
def test_what_cannot_be_understood_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(words.split())
    assert ended.value.code == 64
    assert "usage: kubectl slipway" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    ["", "status", "watch", "list", "history", "wait", "promote", "abort", "pause", "resume", "retry", "rollback", "set-weight"],
)
def test_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert "exit codes:" in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours(run: Any, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    run(Api(UNDER_WAY), "status", "churn")
    assert ("\x1b[" in terminal.getvalue()) == coloured


def test_on_a_terminal_the_picture_is_drawn_anew(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert run(Api(UNDER_WAY, SERVES), "watch", "churn") == 0
    assert [picture.count("churn-b41d") for picture in terminal.getvalue().split("\x1b[H\x1b[J")] == [0, 1, 0]

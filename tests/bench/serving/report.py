"""The tables of the serving benchmark, in Markdown."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.serving.cases import Case
from tests.bench.serving.servers import KINDS, Kind
from tests.bench.table import grid, median
from tests.bench.traffic import Figures

FORMS = {"json": "V2 JSON", "binary": "V2 binary", "grpc": "gRPC"}
_SUBJECT = KINDS["slipway"].title
_PEER = KINDS["mlserver"].title  # what ratios are beside
_CALLS = {  # of bare.py
    "onnx": "InferenceSession.run",
    "sklearn": "predict",
    "xgboost": "Booster.inplace_predict",
    "lightgbm": "Booster.predict",
}


@dataclass(frozen=True)
class Sample:
    """One load: what the generator counted, and the CPU time of the server."""

    figures: Figures
    cpu_seconds: float


@dataclass(frozen=True)
class Cell:
    """The medians of the rounds of one server, form and number of connections."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    failed: int

    @staticmethod
    def of(samples: list[Sample]) -> "Cell":
        """Answer the medians; failures are added up."""
        return Cell(
            median([sample.figures.requests / sample.figures.seconds for sample in samples]),
            median([sample.figures.p50_ms for sample in samples]),
            median([sample.figures.p99_ms for sample in samples]),
            median([sample.cpu_seconds / max(1, sample.figures.requests) * 1e6 for sample in samples]),
            sum(sample.figures.failed for sample in samples),
        )


@dataclass(frozen=True)
class Footprint:
    """What a server takes: seconds from exec to ready, resident MB before the first request and after the last."""

    start_seconds: float
    idle_megabytes: float
    loaded_megabytes: float


@dataclass
class Result:
    """All that was measured of one model; cells by form, connections and title of what was loaded."""

    case: Case
    bare_rate: float
    cells: dict[tuple[str, int, str], Cell] = field(default_factory=dict[tuple[str, int, str], Cell])
    footprints: dict[str, Footprint] = field(default_factory=dict[str, Footprint])


def _rate(cell: Cell) -> float:
    return cell.rate


def _rate_of_cpu(cell: Cell) -> float:
    """Requests a second of CPU time: what else the machine does shows less in it."""
    return 1e6 / cell.cpu_us if cell.cpu_us else 0.0


def tables(results: list[Result], kinds: list[Kind], how: str) -> list[str]:
    """Answer the ratios, a table for each model, the footprints; `how` says how they were measured."""
    notes = [how, f"A star: beside {_PEER}'s JSON, as it has no binary tensors over REST."]
    return [
        "\n".join([_ratios(results, "requests/s", _rate), "", *notes]),
        _ratios(results, "requests a second of CPU time", _rate_of_cpu),
        *(_table(result, kinds) for result in results),
        _footprints(results, kinds),
    ]


def _ratio(result: Result, protocol: str, connections: int, title: str, figure: Callable[[Cell], float] = _rate) -> str:
    """Answer how many times the peer's figure this is; beside its JSON, with a star, where the peer lacks the form."""
    own = result.cells.get((protocol, connections, title))
    peer = result.cells.get((protocol, connections, _PEER))
    star = ""
    if peer is None and protocol == "binary":
        peer, star = result.cells.get(("json", connections, _PEER)), "*"
    if not (own and peer and figure(peer)):
        return ""
    ratio = f"{figure(own) / figure(peer):.1f}{star}"
    return f"**{ratio}**" if title == _SUBJECT else ratio


def _ratios(results: list[Result], what: str, figure: Callable[[Cell], float]) -> str:
    columns = list(dict.fromkeys((protocol, connections) for protocol, connections, _ in results[0].cells))
    cells = [["model", *(f"{FORMS[protocol]}, {connections}" for protocol, connections in columns)]]
    cells += [[result.case.title, *(_ratio(result, *column, _SUBJECT, figure) for column in columns)] for result in results]
    title = f"### serving: {_SUBJECT}'s {what} over {_PEER}'s, by form and connections"
    return "\n".join([title, "", *grid(cells)])


def _table(result: Result, kinds: list[Kind]) -> str:
    cells = [["form", "connections", "server", "requests/s", "p50 ms", "p99 ms", "CPU us/request", "failed", f"x {_PEER}"]]
    for form in dict.fromkeys(protocol for protocol, _, _ in result.cells):
        for (protocol, connections, title), cell in result.cells.items():
            if protocol == form:
                figures = [
                    f"{cell.rate:,.0f}",
                    f"{cell.p50_ms:.2f}",
                    f"{cell.p99_ms:.2f}",
                    f"{cell.cpu_us:.0f}",
                    f"{cell.failed}",
                ]
                cells.append([FORMS[form], f"{connections}", title, *figures, _ratio(result, protocol, connections, title)])
        cells += [[FORMS[form], "", kind.title, "cannot", *[""] * 5] for kind in kinds if form not in kind.protocols]
    rate = result.bare_rate
    cells.append(["", "", f"{_CALLS[result.case.runtime]} alone", f"{rate:,.0f}", "", "", f"{1e6 / rate:.1f}", "", ""])
    return "\n".join([f"### serving: {result.case.title}", "", *grid(cells)])


def _footprints(results: list[Result], kinds: list[Kind]) -> str:
    cells = [["model", "server", "cold start s", "RSS MB idle", "RSS MB after load"]]
    for result in results:
        for title, found in result.footprints.items():
            figures = [f"{found.start_seconds:.2f}", f"{found.idle_megabytes:.0f}", f"{found.loaded_megabytes:.0f}"]
            cells.append([result.case.title, title, *figures])
    sizes = {kind.requirements: (kind.title.partition(",")[0], kind.installed_megabytes()) for kind in reversed(kinds)}
    installed = ", ".join(f"{title} {megabytes:.0f} MB" for title, megabytes in reversed(sizes.values()))
    notes = ["Cold start: exec to ready, files in the page cache.", f"Packages installed, without byte code: {installed}."]
    return "\n".join(["### serving: footprint", "", *grid(cells), "", *notes])

"""Values of an OpenAPI schema, as hypothesis draws them: right ones, many of them at a limit, and ways to make them wrong.

Only what the CustomResourceDefinition uses of OpenAPI is known here. Its patterns are in CEL rules of the form
`self.matches(r'...')`, its limits of durations and percentages too: both are read from there.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import hypothesis.strategies as st

Schema = dict[str, Any]
Known = Mapping[str, st.SearchStrategy[Any]]
_PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
_PATTERN = re.compile(r"matches\(r'(.*?)'\)")
_DURATIONS = ("1ms", "100ms", "250ms", "1s", "1.5s", "30s", "1m", "1m30s", "1h", "24h", "168h")
_LIMIT = re.compile(r"(<=|>=|<|>) (?:duration\('([^']+)'\)|([0-9.]+))")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def values(schema: Schema, known: Known, path: str = "") -> st.SearchStrategy[Any]:
    """Answer the right values of a schema. `known` has those of paths, such as `steps[].hold`, of which it says too little."""
    if path in known:
        return known[path]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from([0, 1, "1", "500m", "0.5", "512Mi", "1Gi", "10G", 2**31])
    kind = schema["type"]
    return _KINDS[kind](schema, known, path)


def _object(schema: Schema, known: Known, path: str) -> st.SearchStrategy[Any]:
    properties, required = schema.get("properties", {}), schema.get("required", ())
    fields = {name: values(sub, known, f"{path}.{name}".lstrip(".")) for name, sub in properties.items()}
    if isinstance(schema.get("additionalProperties"), dict):
        key = next((st.from_regex(pattern, fullmatch=True, alphabet=_PRINTABLE) for pattern in _patterns(schema)), st.text())
        held = values(schema["additionalProperties"], known, f"{path}.*")
        return st.dictionaries(key.filter(lambda name: len(name) <= 63 and "slipway" not in name), held, max_size=3)

    @st.composite
    def one(draw: st.DrawFn) -> Any:
        asked = _MOSTLY if not path else _SOMETIMES if "." in path else st.booleans()
        return {name: draw(field) for name, field in fields.items() if name in required or (not field.is_empty and draw(asked))}

    return one()


_SOMETIMES, _MOSTLY = st.sampled_from([False, False, True]), st.sampled_from([True, True, False])


def _array(schema: Schema, known: Known, path: str) -> st.SearchStrategy[Any]:
    least, most = schema.get("minItems", 0), schema.get("maxItems", 3)
    sizes = st.sampled_from([least, max(least, 1), min(max(least, 1) + 1, most), min(max(least, 1) + 1, most), most])
    item = values(schema["items"], known, f"{path}[]")
    keys = schema.get("x-kubernetes-list-map-keys", ())

    def distinct(items: list[Any]) -> list[Any]:
        if not keys and schema.get("x-kubernetes-list-type") != "set":
            return items
        key: Callable[[Any], str] = lambda each: repr([each.get(name) for name in keys] if keys else each)  # noqa: E731
        return list({key(each): each for each in items}.values())

    return sizes.flatmap(lambda size: st.lists(item, min_size=size, max_size=size)).map(distinct)


def _integer(schema: Schema, known: Known, path: str) -> st.SearchStrategy[Any]:
    least, most = schema.get("minimum", 1), schema.get("maximum", 2**31)
    return st.sampled_from([least, min(least + 1, most), most]) | st.integers(least, most)


def _number(schema: Schema, known: Known, path: str) -> st.SearchStrategy[Any]:
    least, most = schema.get("minimum", -1e6), schema.get("maximum", 1e6)
    return st.sampled_from([least, (least + most) / 2, most])


def _string(schema: Schema, known: Known, path: str) -> st.SearchStrategy[Any]:
    rule, longest = _rules(schema), schema.get("maxLength", 64)
    if "(ms|s|m|h)" in rule:
        limits = [(sign, seconds(text)) for sign, text, _ in _LIMIT.findall(rule) if text]
        found = [*_DURATIONS, *(text for _, text, _ in _LIMIT.findall(rule) if text)]
        return st.sampled_from([text for text in found if _within(seconds(text), limits)] + ["0s"] * (not limits))
    if r"(\.[0-9]+)?%$" in rule:
        limits = [(sign, float(text)) for sign, _, text in _LIMIT.findall(rule) if text]
        numbers = ("0.001", "0.5", "1", "80", "95", "99", "99.99", "100")
        return st.sampled_from([f"{text}%" for text in numbers if _within(float(text), limits)])
    for pattern in _patterns(schema):
        return st.from_regex(pattern, fullmatch=True, alphabet=_PRINTABLE).filter(lambda text: len(text) <= longest)
    least = schema.get("minLength", 0)
    return st.text(_PRINTABLE, min_size=least, max_size=min(longest, 20)) | st.just("x" * longest)


def _rules(schema: Schema) -> str:
    return " && ".join(rule["rule"] for rule in schema.get("x-kubernetes-validations", ()))


def _patterns(schema: Schema) -> list[str]:
    return _PATTERN.findall(_rules(schema))


def seconds(text: str) -> float:
    """Answer a duration in seconds."""
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", text))


def _within(value: float, limits: list[tuple[str, float]]) -> bool:
    holds = {"<=": value.__le__, ">=": value.__ge__, "<": value.__lt__, ">": value.__gt__}
    return all(holds[sign](limit) for sign, limit in limits)


_KINDS: dict[str, Callable[[Schema, Known, str], st.SearchStrategy[Any]]] = {
    "object": _object,
    "array": _array,
    "integer": _integer,
    "number": _number,
    "string": _string,
    "boolean": lambda *_: st.booleans(),
}


def wrong(schema: Schema, value: Any) -> list[Any]:
    """Answer copies of a right value, each with one place that the schema refuses."""
    found: list[Any] = []
    for place, sub, held in _places(schema, value, ()):
        for bad in _bad(sub, held):
            broken = copy.deepcopy(value)
            found.append(_put(broken, place, bad))
    return found


def _places(schema: Schema, value: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Schema, Any]]:
    """Yield every place of a value, with its schema and what it holds."""
    yield place, schema, value
    if schema.get("type") == "object":
        for name, held in value.items():
            sub = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(sub, dict):
                yield from _places(sub, held, (*place, name))
    elif schema.get("type") == "array":
        for index, held in enumerate(value):
            yield from _places(schema["items"], held, (*place, index))


def _bad(schema: Schema, held: Any) -> Iterator[Any]:
    """Yield what the schema refuses in the place of what is there."""
    kind = schema.get("type")
    if kind == "object":
        yield [held]
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            yield {**held, "noSuchField": 1}
        for name in schema.get("required", ()):
            yield {key: value for key, value in held.items() if key != name}
    elif kind == "array":
        yield {}
        if schema.get("minItems"):
            yield []
        if held and "maxItems" in schema:
            yield held * (schema["maxItems"] // len(held) + 1)
    elif kind in ("integer", "number"):
        yield "many"
        if "minimum" in schema:
            yield schema["minimum"] - 1
        if "maximum" in schema:
            yield schema["maximum"] + 1
    elif kind == "boolean":
        yield "perhaps"
    elif schema.get("x-kubernetes-int-or-string"):
        yield "lots"
    else:
        yield ["text"]
        if "enum" in schema:
            yield "NoSuchWord"
        elif _patterns(schema):
            yield "not such a text;"
        if "maxLength" in schema and "enum" not in schema:
            yield "x" * (schema["maxLength"] + 1)


def _put(value: Any, place: tuple[Any, ...], held: Any) -> Any:
    if not place:
        return held
    at = value
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = held
    return value

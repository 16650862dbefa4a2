"""What scikit-learn imports, without what serving seldom needs of it."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_DEFERRED = ("scipy.integrate", "scipy.stats")


class _Function:
    """A function of a module that is imported when it is called."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(import_module(self._module), self._name)(*arguments, **options)


@contextmanager
def sparingly() -> Generator[None]:
    """For imports of scikit-learn: without pandas, 0.6 s and 35 MB, which it takes if it is there and can do without until a
    frame is made; and with modules of scipy deferred, 0.7 s and 35 MB, of which it takes a few functions by name for what
    is asked in training and scoring.
    """
    standins: dict[str, ModuleType | None] = {}
    if "pandas" not in sys.modules:
        standins["pandas"] = None  # the import system's word for a module that is absent
    for name in _DEFERRED:
        if name not in sys.modules:
            standins[name] = _deferred(name)
    sys.modules.update(standins)  # pyright: ignore[reportArgumentType, reportCallIssue]
    try:
        yield
    finally:
        for name, module in standins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _deferred(name: str) -> ModuleType:
    module = ModuleType(name)
    spec = find_spec(name)
    assert spec is not None  # noqa: S101
    module.__path__ = list(spec.submodule_search_locations or ())
    setattr(module, "__getattr__", lambda function: _Function(name, function))  # noqa: B010 - PEP 562
    return module

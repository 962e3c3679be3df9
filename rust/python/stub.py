"""Writes the extension's types, for python/sage_ws/_core/_rust.pyi: `make stub`.

Both cores have one face, and the fallback's is written down with types. So the stub is made from the
fallback; stubtest then holds the extension to it, and a signature that only one of the two has is found.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from textwrap import indent
from types import FunctionType, GenericAlias, ModuleType
from typing import Any

# What the native core alone has.
DIRECT = Path(__file__).with_name("direct.pyi")
HEAD = "# Written by rust/python/stub.py from the fallback's types: change those, then `make stub`.\n\n"
IMPORTS = {
    "collections.abc": ("Callable", "Mapping"),
    "contextvars": ("Context",),
    "typing": ("Any", "Final", "Literal", "Self", "final"),
}
# What Python itself calls, and what object's own type already says.
INHERITED = {"__eq__", "__hash__", "__repr__", "__setattr__", "__delattr__", "__reduce__", "__init__"}


def annotation(text: object, owner: ModuleType) -> str:
    """A type as the source has it, but for an alias of its module: that becomes what it stands for."""

    def expanded(match: re.Match[str]) -> str:
        value = vars(owner).get(match[0])
        return repr(value) if isinstance(value, GenericAlias) else match[0]

    return re.sub(r"\b[A-Z]\w*\b", expanded, str(text))


def default(value: object) -> str:
    """A default that can be written as a literal, or an ellipsis."""
    is_literal = isinstance(value, (bool, int, float, str, bytes, type(None))) and value != inf
    return repr(value) if is_literal else "..."


def docstring(text: str) -> str:
    """As it stands in the fallback, closing quotes on a line of their own where it has several."""
    text = inspect.cleandoc(text)
    return f'"""{text}\n"""' if "\n" in text else f'"""{text}"""'


def function(found: Callable[..., Any], name: str, decorator: str = "") -> Iterator[str]:
    """A function's lines, docstring included."""
    owner = sys.modules[found.__module__]
    parameters, keyword_only = [], False
    signature = inspect.signature(found)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            parameters.append("*")
        text = f"{'**' if parameter.kind is parameter.VAR_KEYWORD else ''}{parameter.name}"
        if parameter.annotation is not parameter.empty:
            text += f": {annotation(parameter.annotation, owner)}"
        if parameter.default is not parameter.empty:
            text += f" = {default(parameter.default)}"
        parameters.append(text)
    if decorator:
        yield decorator
    returned = annotation(signature.return_annotation, owner)
    yield f"def {name}({', '.join(parameters)}) -> {returned}:"
    yield indent(docstring(found.__doc__), "    ") if found.__doc__ else "    ..."


def members(cls: type) -> Iterator[str]:
    """A class's lines: what it holds, how it is made, what it does."""
    yield docstring(cls.__doc__ or cls.__name__)
    match_args = getattr(cls, "__match_args__", None)
    if match_args:
        yield f"__match_args__: Final = {match_args!r}"
        fields = {name: text for base in cls.__mro__ for name, text in inspect.get_annotations(base).items()}
        for name in match_args:
            yield from ("@property", f"def {name}(self) -> {fields[name]}: ...")
    else:
        yield from (f"{name}: {text}" for name, text in inspect.get_annotations(cls).items())
    constructor = vars(cls).get("__new__") or vars(cls)["__init__"]
    parameters = next(iter(function(getattr(constructor, "__func__", constructor), "__new__")))
    yield re.sub(r"\((cls|self)(.*)\) -> .*", r"(cls\2) -> Self: ...", parameters)
    for name, member in vars(cls).items():
        is_private = name.startswith("_") and not name.startswith("__")
        # What is private and a property is for the layer above, which is checked with these types.
        if name in INHERITED or (is_private and not isinstance(member, property)):
            continue
        if isinstance(member, property) and member.fget:
            yield from function(member.fget, name, "@property")
        elif isinstance(member, classmethod):
            yield from function(member.__func__, name, "@classmethod")
        elif isinstance(member, FunctionType):
            yield from function(member, name)


def stub(core: ModuleType) -> str:
    """The whole file, not yet formatted."""
    direct = DIRECT.read_text().partition("@final")
    names = sorted([*core.__all__, *re.findall(r"^class (\w+)", direct[2], re.MULTILINE)])
    lines: list[str] = [f"__all__ = {names!r}", ""]
    for name in core.__all__:
        found = getattr(core, name)
        if isinstance(found, type):
            lines += ["@final", f"class {name}:"]
            lines += (indent(member, "    ") for member in members(found))
        else:
            lines += function(found, name)
        lines.append("")
    body = "\n".join(lines) + "".join(direct[1:])
    imports = ""
    for module, known in IMPORTS.items():
        used = [name for name in known if re.search(rf"\b{name}\b", body)]
        imports += f"from {module} import {', '.join(used)}\n" if used else ""
    return f"{HEAD}{imports}\n{body}"


if __name__ == "__main__":
    os.environ["SAGE_WS_CORE"] = "pure"
    import sage_ws._core._pure

    Path(sys.argv[1]).write_text(stub(sage_ws._core._pure))

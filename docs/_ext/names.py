"""Links from names to where they are documented, and tables of what a package offers.

A name is documented in the module that defines it. ``ccdgraph.run.Served``, which the package only
passes on, a short name in a docstring or a type is looked up as Python would and leads there; types
of other libraries lead to their own pages. What no import finds is a slip, and fails a build that
is nitpicky.

``.. exports:: ccdgraph.run`` lists the names in ``__all__`` with the first line of each.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import re
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

TORCH = "https://docs.pytorch.org/docs/stable"
PYTHON = "https://docs.python.org/3/library"
PAGES = {
    "torch.Tensor": f"{TORCH}/tensors.html#torch.Tensor",
    "torch.device": f"{TORCH}/tensor_attributes.html#torch.device",
    "torch.Generator": f"{TORCH}/generated/torch.Generator.html",
    "torch.nn.modules.module.Module": f"{TORCH}/generated/torch.nn.Module.html",
    "torch.nn.parameter.Parameter": f"{TORCH}/generated/torch.nn.parameter.Parameter.html",
    "pathlib.Path": f"{PYTHON}/pathlib.html#pathlib.Path",
    **{
        f"collections.abc.{name}": f"{PYTHON}/collections.abc.html#collections.abc.{name}"
        for name in dir(collections.abc)
    },
}
SAME = {"torch._C.Generator": "torch.Generator"}  # as autodoc names it


def found(name: str, module: str | None) -> Any:
    """What Python finds under ``name``, from inside ``module`` or from outside; None if nothing."""
    if module:
        try:
            return _attributes(importlib.import_module(module), name.split("."))
        except AttributeError:
            pass
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            return _attributes(importlib.import_module(".".join(parts[:end])), parts[end:])
        except (ImportError, AttributeError):
            continue
    return None


def _attributes(value: Any, names: list[str]) -> Any:
    for name in names:
        value = getattr(value, name)
    return value


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, text: nodes.Element
) -> nodes.Node | None:
    """A reference to the definition; the text alone where there is a value but no page."""
    if node.get("refdomain") != "py":
        return None
    name = SAME.get(node["reftarget"], node["reftarget"])
    if name in PAGES:
        return nodes.reference("", "", text, internal=False, refuri=PAGES[name])
    value = found(name, node.get("py:module"))
    if value is None:
        return None
    place = _place(value) or name
    if SAME.get(place, place) in PAGES:
        page = PAGES[SAME.get(place, place)]
        return nodes.reference("", "", text, internal=False, refuri=page)
    domain = env.domains.python_domain
    here = node.get("refdoc", env.docname)
    linked = domain.resolve_xref(env, here, app.builder, "obj", place, node, text)
    return linked if linked is not None else text


class Exports(SphinxDirective):
    """A table of what a package offers under its own name."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """A line for every name in ``__all__``; nothing where there is none."""
        package = self.arguments[0]
        offers = importlib.import_module(package)
        names = getattr(offers, "__all__", ())
        if not names:
            return []
        lines = [f".. rubric:: from {package} import ...", ""]
        lines += [".. list-table::", "   :widths: 30 70", "   :class: exports", ""]
        for name in sorted(names, key=str.lower):
            value = getattr(offers, name)
            lines.append(f"   * - :py:obj:`{name} <{_place(value) or f'{package}.{name}'}>`")
            lines.append(f"     - {_first_line(value)}")
        holder = nodes.Element()
        self.state.nested_parse(StringList(lines, source=package), self.content_offset, holder)
        return holder.children


def _place(value: Any) -> str | None:
    """Where a class or function is defined; constants do not know."""
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else None


def _first_line(value: Any) -> str:
    # a constant would show what is said of its class
    own = inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)
    text = (inspect.getdoc(value) or "") if own else ""
    line = text.split("\n\n")[0].replace("\n", " ")
    return re.sub(r":(?!math)[a-z]+:`~?([^`]+)`", r"``\1``", line)  # names of the module, not ours


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers both."""
    app.add_directive("exports", Exports)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "version": "1"}

import tomllib
from pathlib import Path

pyproject = Path(__file__).parents[1] / "pyproject.toml"

project = "ccdgraph"
author = "ccdgraph contributors"
copyright = "ccdgraph contributors"
version = release = tomllib.loads(pyproject.read_text())["project"]["version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "py:obj"

# A name is documented in the module that defines it, not again in the package that re-exports it.
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"ccdgraph {release}"
html_copy_source = False

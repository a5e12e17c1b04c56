import logging
import os
import sys
import tomllib
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

here = Path(__file__).parent
pyproject = here.parent / "pyproject.toml"
sys.path.insert(0, str(here / "_ext"))
# Recipes run in this process: threads that spin would starve whatever else the machine does.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
logging.getLogger("faiss").setLevel(logging.WARNING)

project = "ccdgraph"
author = "ccdgraph contributors"
copyright = "ccdgraph contributors"
version = release = tomllib.loads(pyproject.read_text())["project"]["version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas without a network
    "sphinx.ext.viewcode",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "measured",
    "names",
    "internal_links",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "recipes", "_ext"]
default_role = "py:obj"

# A name is documented in the module that defines it, not again in the package that re-exports it.
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
# It comes with builds of torch for CUDA; the kernels are documented without it as well.
autodoc_mock_imports = [] if find_spec("triton") else ["triton"]
# Types stand linked in the signature, one parameter a line where it is long, and again beside what
# is described. sphinx-autodoc-typehints warns of the frozen dataclasses (forward references).
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_mock_imports = [] if find_spec("triton") else ["triton"]  # comes with CUDA
nitpicky = True  # a name that leads nowhere fails the build
# Types that only a type checker imports, typer's own, and one that dataclasses inherit by name.
_UNIMPORTED = r"(pa|pd)\.\w+|Figure|Axes|Data|HeteroData|Exit|Initialisation|types\.Annotated.*"
nitpick_ignore_regex = [("py:.*", _UNIMPORTED)]
maximum_signature_line_length = 120
napoleon_google_docstring = True
napoleon_numpy_docstring = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Every recipe runs whenever the pages are built; one that fails fails the build.
sphinx_gallery_conf = {
    "examples_dirs": "recipes",
    "gallery_dirs": "how_to",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "only_warn_on_example_error": False,
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
    "capture_repr": (),
    "reset_modules": (),
}

html_theme = "furo"
pygments_dark_style = "github-dark"  # the default underlines names of modules like links
html_title = f"ccdgraph {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Repairs two things that Sphinx makes of these pages."""
    app.connect("doctree-read", without_mail)
    app.connect("autodoc-process-signature", without_factories)


def without_factories(app: Sphinx, *about: Any) -> tuple[str | None, str | None]:
    """Writes defaults made anew as ``...``; ``<factory>`` is no Python and cuts types at commas."""
    *_, signature, returned = about
    return signature and signature.replace("<factory>", "..."), returned


def without_mail(app: Sphinx, page: nodes.document) -> None:
    """Takes Recall@20 for no address of e-mail: these pages have none."""
    for link in list(page.findall(nodes.reference)):
        if link.get("refuri", "").startswith("mailto:"):
            link.replace_self(link.children)

import logging
import os
import sys
import tomllib
import warnings
from pathlib import Path

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
    "sphinx.ext.viewcode",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "measured",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "recipes", "_ext"]
default_role = "py:obj"

# A name is documented in the module that defines it, not again in the package that re-exports it.
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
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
html_title = f"ccdgraph {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

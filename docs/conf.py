"""Sphinx's configuration: ``sphinx-build -W --keep-going docs docs/_build``."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import fastrnn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "fastrnn"
author = "the fastrnn developers"
copyright = author  # noqa: A001 (Sphinx's name)
version = release = fastrnn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "reference",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = False
default_role = "code"  # docstrings put names in single backticks

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {"version": version}

#: The reference is built without the largest packages, too.
autodoc_mock_imports = [name for name in ("torch", "onnx", "dask") if not find_spec(name)]
autodoc_typehints = "none"  # numpydoc's sections say more than ``Any``
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

intersphinx_mapping: dict[str, tuple[str, None]] = {}  # builds read nothing from the network

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

html_theme = "pydata_sphinx_theme"
html_title = "fastrnn"
html_static_path = ["_static"]
html_css_files = ["fastrnn.css"]
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}

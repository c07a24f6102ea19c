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
    "sphinx_gallery.gen_gallery",
    "pictures",
    "reference",
]
exclude_patterns = ["_build", "_ext", "gallery/*.ipynb", "gallery/*.py", "gallery/*.md5"]
suppress_warnings = ["config.cache", "toc.empty_glob"]
nitpicky = False
default_role = "code"  # docstrings put names in single backticks

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {"version": version}

#: The reference is built without the largest package, too; the others are of the extra `docs`.
autodoc_mock_imports = [] if find_spec("torch") else ["torch"]
autodoc_typehints = "none"  # numpydoc's sections say more than ``Any``
toc_object_entries_show_parents = "hide"
autosummary_generate = False  # numpydoc brings it along
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/(\d_|actor_critic|lbfgs)",  # those that run by themselves
    "ignore_pattern": "side_by_side",
    "within_subsection_order": "FileNameSortKey",
    "copyfile_regex": "",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1000,
    "plot_gallery": True,
}

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
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
#: Pages without others beside them have no navigation at their left.
_ALONE = ("index", "start", "speed", "guarantees", "numerics", "trust", "reproduction")
html_sidebars = {name: [] for name in _ALONE}

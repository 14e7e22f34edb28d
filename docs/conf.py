"""The documentation site: `python -m sphinx -W docs docs/_build/html`.

It is built offline, and its pages ask no other site for anything. Formulas are literal blocks: they are the docstrings'
own, which read like the code, and no MathJax has to be fetched.
"""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "scoreplug"
author = "The scoreplug developers"
version = release = version_of("scoreplug")
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "components",
    "commands",
]
exclude_patterns = ["_build", "_ext", "bench", "images", "components/numbers.inc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
smartquotes = False  # "fresh" is a value, as it is typed
suppress_warnings = ["config.cache"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("References", "notes_style")]
nitpick_ignore_regex = [("py:.*", r".*")]  # types of torch and numpy live on sites that are not asked

html_theme = "furo"
html_title = f"scoreplug {version}"
html_static_path = ["_static"]
html_css_files = ["scoreplug.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

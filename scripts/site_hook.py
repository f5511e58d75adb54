"""Lets the documentation site show files of the repository that are not in docs/.

Pages link to each other as they do in a forge, relative to the repository. What such a link points
to outside of docs/ becomes a page (documents of the root) or a file of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(\]\()([^)\s:#]+)(#[^)\s]*)?(\))")
_SHOWN = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
_PAGES = {"README.md": "index.md", **_SHOWN}
_OTHERS = "repository"
"""Where the site has the files of the repository that are no pages."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of the root, and what pages link to outside of docs/."""
    for name in _SHOWN:
        files.append(
            File.generated(config, _PAGES[name], content=(_ROOT / name).read_text("utf-8"))
        )
    for path in sorted(Path(config.docs_dir).rglob("*.md")):
        folder = path.relative_to(_ROOT).parent.as_posix()
        for match in _LINK.finditer(path.read_text("utf-8")):
            target = posixpath.normpath(posixpath.join(folder, match[2]))
            source = f"{_OTHERS}/{target}"
            is_other = not target.startswith(("docs/", "..")) and target not in _PAGES
            if is_other and (_ROOT / target).is_file() and files.get_file_from_path(source) is None:
                files.append(File.generated(config, source, abs_src_path=str(_ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links that leave docs/ point to what the site has in their stead."""
    of_root = {shown: name for name, shown in _SHOWN.items()}
    own = of_root.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    here = posixpath.dirname(page.file.src_uri)

    def pointed(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(own), match[2]))
        if target.startswith("docs/"):
            shown = target.removeprefix("docs/")
        else:
            shown = _PAGES.get(target, f"{_OTHERS}/{target}")
        relative = posixpath.relpath(shown, here or ".")
        return f"{match[1]}{relative}{match[3] or ''}{match[4]}"

    return _LINK.sub(pointed, markdown)

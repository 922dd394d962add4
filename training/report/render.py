"""The templates of this package: the report in HTML and in Markdown, and the model card.

The HTML page is one file with its pictures inside, without script or network, so it can be mailed
and opened from disk. On a phone a wide table becomes a list and a wide picture scrolls in its box.
"""

import base64
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image


def render(template: str, **context: Any) -> bytes:
    """Fill a file of the folder templates/; values are escaped where it is HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"base64": _base64, "code": _mark_code, "png_size": png_size}
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|")  # of Markdown
    return environment.get_template(template).render(context).encode("utf-8", "har-printable")


def png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG. Raises OSError where the file is none."""
    with Image.open(path, formats=["PNG"]) as image:
        return image.size


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _mark_code(text: str) -> Markup:
    """Escaped, `code` as such; a browser must not break "--epochs" after its first hyphen."""

    def replace(match: re.Match[str]) -> str:
        words = re.sub(r"(?<!\S)--[\w-]+", r'<span class="option">\g<0></span>', match[1])
        return f"<code>{words}</code>"

    return Markup(re.sub(r"`([^`]+)`", replace, str(escape(text))))

"""The templates of this package: the report in HTML and in Markdown, and the model card.

The HTML page is one file: pictures inside, no script, no network, so it can be mailed and opened
from disk; a policy in its head forbids both. On a phone a table of few columns is set smaller, and
one of many columns or of sentences becomes a list, a block for each row and a line for each cell,
so no figure is hidden. Pictures too wide for a phone scroll in a box of their own, the page never
does.
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
    return environment.get_template(template).render(context).encode()


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

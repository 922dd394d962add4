"""The pages of `har-serve`: a form, an answer, a refusal. HTML from here, no template engine.

Odd: the server writes every page whole, and the script only adds dropping and waiting, so that the
form works without it. The policy in the header allows no inline script or style, so whatever a
file or a class is called, nothing of it can run; bars are SVG, whose widths are attributes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from ...pipeline.decode import VIDEO_SUFFIXES

STYLE = """
:root{color-scheme:light;--ink:#1d2430;--soft:#5a6675;--line:#dfe4ea;--accent:#0b5c93}
*{box-sizing:border-box}
body{margin:0;background:#f5f7fa;color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
main{max-width:760px;margin:0 auto;padding:24px 16px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px}h2{font-size:1.1rem;margin:24px 0 8px}
p{margin:0 0 14px;overflow-wrap:anywhere}.soft{color:var(--soft);font-size:.9rem}
form{background:#fff;border:2px dashed #aab6c4;border-radius:12px;padding:20px;text-align:center}
form.over{border-color:var(--accent);background:#eef6fc}
label{display:block;margin:0 0 12px;font-weight:600}
input[type=file]{max-width:100%;font:inherit}
button{margin-top:14px;padding:9px 26px;font:inherit;font-weight:600;color:#fff;
background:var(--accent);border:0;border-radius:8px;cursor:pointer}
button:disabled{background:#8a97a5}
.refused{border-left:4px solid #c77700;background:#fff8ec;padding:10px 14px}
ol{list-style:none;margin:0;padding:0}
li{display:grid;grid-template-columns:minmax(8ch,16ch) 1fr 6ch;gap:10px;align-items:center;
padding:4px 0}
li span{overflow-wrap:anywhere}li svg{display:block;width:100%;height:16px}
.number{text-align:right;font-variant-numeric:tabular-nums}
figure{margin:0}img{display:block;max-width:100%;height:auto;border-radius:6px}
figcaption{color:var(--soft);font-size:.88rem;margin-top:4px}
a{color:var(--accent)}
@media (max-width:480px){li{grid-template-columns:1fr 6ch}li svg{grid-column:1/-1;grid-row:2}}
"""

SCRIPT = """
const form = document.querySelector('form'), input = document.querySelector('input');
const note = document.querySelector('#note'), button = document.querySelector('button');
const most = Number(form.dataset.most);
function fits() {
  const file = input.files[0], good = file && file.size <= most;
  button.disabled = Boolean(file) && !good;
  note.textContent = file && !good ? 'This file is too large.' : '';
  return good;
}
input.addEventListener('change', fits);
for (const name of ['dragenter', 'dragover', 'dragleave', 'drop'])
  form.addEventListener(name, event => {
    event.preventDefault();
    form.classList.toggle('over', name === 'dragenter' || name === 'dragover');
  });
form.addEventListener('drop', event => {
  if (!event.dataTransfer.files.length) return;
  input.files = event.dataTransfer.files;
  if (fits()) form.requestSubmit();
});
form.addEventListener('submit', () => {
  button.disabled = true;
  note.textContent = 'Looking at it ...';
});
"""


def form(about: str, megabytes: int, seconds: int) -> str:
    """The first page. about: which model answers."""
    return _page(
        "What happens in a video?",
        f'<p class="soft">{escape(about)}</p>{_form(megabytes, seconds)}',
    )


def answer(
    name: str,
    top: Sequence[tuple[str, float]],
    frames: bytes,
    attention: bytes,
    kind: str,
    again: tuple[int, int],
) -> str:
    """The page of an answer. name: of the file. frames: PNG; attention: GIF, made by `kind`."""
    best, share = top[0]
    rows = "".join(
        f'<li><span>{escape(label)}</span><svg viewBox="0 0 100 10" preserveAspectRatio="none"'
        f' role="img" aria-label="{value:.1%}"><rect width="100" height="10" fill="#e8edf2"/>'
        f'<rect width="{100 * value:.2f}" height="10" fill="#0b5c93"/></svg>'
        f'<span class="number">{value:.3f}</span></li>'
        for label, value in top
    )
    return _page(
        best,
        f'<p class="soft">{escape(name)}: {escape(best)}, probability {share:.3f}</p>'
        f"<h2>Most probable</h2><ol>{rows}</ol>"
        f"<h2>What the model saw</h2>{_figure('png', frames, 'Frames of the clip, in order.')}"
        f"<h2>Where it looks</h2>"
        + _figure("gif", attention, f"The clip, and beside it the clip with its {kind}.")
        + f"<h2>Another video</h2>{_form(*again)}",
    )


def refusal(sentence: str, again: tuple[int, int]) -> str:
    """The page of a file that was not taken, with the reason."""
    return _page(
        "This did not work",
        f'<p class="refused" role="alert">{escape(sentence)}</p>{_form(*again)}',
    )


def _form(megabytes: int, seconds: int) -> str:
    types = ",".join(VIDEO_SUFFIXES)
    return (
        f'<form action="/predict" method="post" enctype="multipart/form-data"'
        f' data-most="{megabytes * 1_000_000}">'
        f'<label for="video">Drop a video here, or choose one</label>'
        f'<input id="video" type="file" name="video" accept="{types}" required><br>'
        f'<button>Predict</button><p class="soft" id="note" role="status"></p>'
        f'<p class="soft">Up to {megabytes} MB and {seconds} s. It stays on this machine and is '
        f"deleted when it has been answered.</p></form>"
    )


def _figure(kind: str, data: bytes, caption: str) -> str:
    return (
        f'<figure><img src="data:image/{kind};base64,{base64.b64encode(data).decode()}"'
        f' alt="{escape(caption, quote=True)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css"></head>
<body><main><h1>{escape(title)}</h1>{body}</main><script src="/script.js"></script></body></html>
"""

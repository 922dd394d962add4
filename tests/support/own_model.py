"""A project of a user with a model of his own: the example of docs/models.md as `mynet.py`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
NAME = "mynet:Tiny"
OTHERS = '''
import os
from torch.nn import functional

def make_tiny(num_classes, width=4):
    return Tiny(num_classes, width)

class Wrong(Tiny):
    """Returns something else than logits, or fails."""
    def __init__(self, num_classes, what="raise", early=True):
        super().__init__(num_classes)
        self.what = what
    def forward(self, clips):
        logits = super().forward(clips)
        if self.what == "raise":
            return clips.view(len(clips), -1, 7)
        return {
            "tuple": (logits, logits), "frames": logits[:, None], "labels": logits.argmax(1),
            "classes": logits[:, :2], "detached": logits.detach(),
        }[self.what]

class NoModule:
    def __init__(self, num_classes): ...

class Unnamed(torch.nn.Linear):
    """Its first argument is not num_classes."""

class BadHead(Tiny):
    head_name = "nowhere"

class Headless(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.last = torch.nn.Linear(3, num_classes)
    def forward(self, clips):
        return self.last(clips.mean((2, 3, 4)))
'''


def write_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write `mynet.py` (the example and more) into `folder` and work there; nothing is imported."""
    (folder / "mynet.py").write_text(EXAMPLE + OTHERS)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delenv("HAR_MODEL", raising=False)
    monkeypatch.setenv("HAR_MODEL", "")  # so that what a command adds is taken back
    forget_project(monkeypatch)
    return folder


def forget_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mynet", raising=False)

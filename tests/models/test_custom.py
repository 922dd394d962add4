"""Models of the user: what is found, what is refused, and what never runs."""

import sys
from pathlib import Path

import pytest
import torch
from own_model import NAME, write_project

from har import models
from har.models import custom


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_project(tmp_path, monkeypatch)


def clips(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 4, 16, 16).contiguous(memory_format=torch.channels_last_3d)


def test_the_example_is_built_from_the_working_folder_by_seed_and_options() -> None:
    first, again = (models.build(NAME, 3, seed=5, width=8) for _ in range(2))
    assert type(first).__name__ == "Tiny"
    assert models.options_of(NAME) == {"width": 16, "dropout": 0.0}
    assert first.classifier.weight.shape == (3, 8)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    models.check_forward(first, NAME, 3, clips())
    assert first.training
    assert models.head_name(first) == "classifier"
    assert models.transform_of(first) == models.build("resnet3d", 2, width=4).transform


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("nonet:Tiny", {}, "no module 'nonet' in .* or on sys.path: start the command where"),
        ("mynet.more:Tiny", {}, "no module 'mynet.more'"),
        ("mynet:Missing", {}, "the module mynet has no 'Missing'"),
        ("mynet:NoModule", {}, "no subclass of torch.nn.Module"),
        ("mynet:Unnamed", {}, "does not take num_classes as its first argument"),
        ("mynet:functional", {}, "no class, and a run alone calls no function"),
        ("mynet:BadHead", {}, "head_name is 'nowhere'.*its parts are features, dropout, class"),
        (NAME, {"depth": 3}, "unexpected keyword argument 'depth'; it takes width: int = 16"),
        (NAME, {"width": "wide"}, r"cannot be made \(TypeError: .*, mynet.py:1"),
        ("vgg", {}, "no model 'vgg'; choose one of resnet3d.*MODULE:CLASS"),
        ("mynet:", {}, "no model 'mynet:'"),
        ("os:system", {}, "os:system is no class, and a run alone calls no function"),
        ("torch.hub:load", {}, "is no class"),
        ("torch.nn:Linear", {}, "does not take num_classes as its first"),
        ("antigravity:geohash", {}, "a module of Python itself"),
    ],
)
def test_what_is_no_model_is_one_sentence(name: str, options: dict, text: str) -> None:
    with pytest.raises(models.CustomModelError if ":" in name[:-1] else ValueError, match=text):
        models.build(name, 3, **options)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("raise", r"fails on clips \[2, 3, 4, 16, 16\] \(RuntimeError: .*mynet.py:\d+\)"),
        ("tuple", r"returns a tuple for .*returns logits \[2,3\]"),
        ("frames", r"returns \[2, 1, 3\]"),
        ("labels", r"returns \[2\]"),
        ("classes", r"returns \[2, 2\]"),
        ("detached", "that no parameter learns from"),
    ],
)
def test_a_result_that_is_no_logits_is_named(what: str, text: str) -> None:
    model = models.build("mynet:Wrong", 3, what=what)
    with pytest.raises(models.CustomModelError, match=text):
        models.check_forward(model, "mynet:Wrong", 3, clips())


def test_a_name_from_a_file_imports_only_modules_that_hold_it(project: Path) -> None:
    (project / "script.py").write_text("open('ran', 'w')\ndef build(num_classes): ...\n")
    for name, text in {
        "script:Tiny": "has no 'Tiny'", "script.sub:Tiny": "no module",
        "script.py:Tiny": "name the module without .py: script:Tiny",
        "__main__:Tiny": "is known in that notebook alone",
    }.items():  # fmt: skip
        with pytest.raises(models.CustomModelError, match=text):
            models.build(name, 3)
    assert not (project / "ran").exists()


def test_a_function_is_called_only_where_the_user_named_it() -> None:
    with pytest.raises(models.CustomModelError, match="HAR_MODEL=mynet:make_tiny har-eval"):
        models.build("mynet:make_tiny", 3)
    models.allow("mynet:make_tiny")
    assert models.build("mynet:make_tiny", 3, width=2).classifier.in_features == 2
    models.allow("os:system")
    with pytest.raises(models.CustomModelError, match="does not take num_classes as its first"):
        models.build("os:system", 3)


def test_a_class_of_a_notebook_is_found_in_main(monkeypatch: pytest.MonkeyPatch) -> None:
    models.build(NAME, 3)
    monkeypatch.setattr("__main__.Tiny", sys.modules["mynet"].Tiny, raising=False)
    assert models.build("__main__:Tiny", 3, width=2).classifier.in_features == 2


@pytest.mark.parametrize("error", ["raise SystemExit(3)", "import nowhere", "1 / 0", "def"])
def test_a_module_that_fails_is_one_sentence(project: Path, error: str) -> None:
    (project / "broken.py").write_text(f"class Tiny: ...\n{error}\n")
    models.allow("broken:Tiny")
    with pytest.raises(models.CustomModelError, match="the module broken cannot be imported"):
        models.build("broken:Tiny", 3)


def test_an_installed_package_names_its_model_by_an_entry_point(project: Path) -> None:
    info = project / "mypackage-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[har.models]\ntiny = mynet:make_tiny\nlost = nonet:Tiny\n"
    )
    sys.path.insert(0, str(project))
    assert models.build("tiny", 3, width=2).classifier.in_features == 2
    with pytest.raises(models.CustomModelError, match="'lost' of the package mypackage cannot be"):
        models.build("lost", 3)


def test_parts_before_the_classifier_are_frozen_with_their_statistics() -> None:
    model = models.build(NAME, 3)
    with pytest.raises(models.CustomModelError, match="choose one of none, features, dropout"):
        models.freeze_parts(model, NAME, "classifier")
    models.freeze_parts(model, NAME, "features")
    before = model.features[1].running_mean.clone()
    model.train()(clips()).sum().backward()
    assert torch.equal(before, model.features[1].running_mean)
    learns = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learns == {"classifier.weight", "classifier.bias"}
    assert custom.head_name(models.build("mynet:Headless", 3)) is None

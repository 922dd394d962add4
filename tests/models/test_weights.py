"""Weight files: what is loaded, what is refused, and in which words. No network is used."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models as torchvision_models
from torchvision.models import video as torchvision_video

from har import models
from har.models.r3d import BACKBONES, R3D
from har.models.video_resnet import LAYERS, VideoResNet
from har.models.weights import KINETICS_URLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A state dict of every torchvision video ResNet, randomly initialised, on disk."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for name in BACKBONES:
        paths[name] = folder / f"{name}.pth"
        torch.save(getattr(torchvision_video, name)(num_classes=400).state_dict(), paths[name])
    return paths


def held(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


def r3d(**options: Any) -> R3D:
    model = models.build("r3d", 5, seed=0, **options)
    assert isinstance(model, R3D)
    return model


@pytest.mark.parametrize("builder", BACKBONES)
def test_kinetics_files_are_those_of_torchvision(builder: str) -> None:
    weights = torchvision_models.get_model_weights(builder)
    assert KINETICS_URLS[builder] == weights["KINETICS400_V1"].value.url


@pytest.mark.parametrize("backbone", BACKBONES)
def test_r3d_takes_all_but_the_classifier_and_shows_the_checksum(
    files: dict[str, Path], backbone: str
) -> None:
    path = files[backbone]
    model = r3d(backbone=backbone, weights=path)
    theirs = held(path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, theirs[key]) == (not key.startswith("fc.")), key
    assert model.fc.out_features == 5
    assert model.weights_info is not None
    assert model.weights_info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (model.weights_info.source, model.weights_info.path) == ("file", str(path))


def test_r3d_logits_equal_torchvisions_with_its_classifier(files: dict[str, Path]) -> None:
    model = models.build("r3d", 400, weights=files["r3d_18"]).double().eval()
    theirs = torchvision_video.r3d_18(num_classes=400).double().eval()
    theirs.load_state_dict(held(files["r3d_18"]))
    model.fc.load_state_dict(theirs.fc.state_dict())
    x = torch.randn(1, 3, 3, 18, 20, dtype=torch.float64)
    assert (model(x) - theirs(x)).abs().max() <= 1e-9


@pytest.mark.parametrize(
    ("name", "builder", "options"),
    [("resnet3d", "r3d_18", {}), ("r2plus1d", "r2plus1d_18", {"midplanes": "torchvision"})],
)
def test_scratch_networks_take_torchvision_files_and_their_own(
    files: dict[str, Path], tmp_path: Path, name: str, builder: str, options: dict[str, Any]
) -> None:
    model = models.build(name, 5, seed=0, weights=str(files[builder]), **options)
    assert isinstance(model, VideoResNet)
    assert torch.equal(model.stem[0].weight, held(files[builder])["stem.0.weight"])
    assert model.weights_info is not None
    own = tmp_path / "own.pt"
    torch.save({"epoch": 3, "model": model.state_dict()}, own)
    again = models.build(name, 7, seed=1, weights=own, **options)
    assert torch.equal(again.layer4[1].conv2[1].weight, model.layer4[1].conv2[1].weight)
    assert again.fc.out_features == 7


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_names_of_ddp_and_compile_are_taken(tmp_path: Path, prefix: str) -> None:
    old = models.build("resnet3d", 5, seed=3, width=4)
    state = {prefix + name: value for name, value in old.state_dict().items()}
    for content in (state, {"state_dict": state, "epoch": 2}):
        torch.save(content, tmp_path / "x.pt")
        new = models.build("resnet3d", 3, seed=4, width=4, weights=tmp_path / "x.pt")
        assert torch.equal(new.layer4[1].conv2[0].weight, old.layer4[1].conv2[0].weight)
        assert new.weights_info.not_loaded == ("fc.weight", "fc.bias")


def test_an_averaged_models_state_dict_is_taken(tmp_path: Path) -> None:
    old = models.build("convlstm", 5, seed=3, hidden=(4,), stem_channels=4)
    torch.save(AveragedModel(old).state_dict(), tmp_path / "ema.pt")
    new = models.build(
        "convlstm", 3, seed=4, hidden=(4,), stem_channels=4, weights=tmp_path / "ema.pt"
    )
    assert torch.equal(new.layers[0].input_weight, old.layers[0].input_weight)
    assert new.weights_info.unused == ("n_averaged", "fc.weight", "fc.bias")


def test_a_run_that_does_not_fit_says_what_it_was_trained_with(tmp_path: Path) -> None:
    options = {**models.options_of("convlstm"), "hidden": (4, 8), "peephole": True}
    del options["weights"]
    old = models.build("convlstm", 5, **options)
    torch.save(
        {"model_name": "convlstm", "model_options": options, "classes": list("abcde"), "epoch": 3,
         "model": old.state_dict()}, tmp_path / "best.pt",
    )  # fmt: skip
    advice = (
        r"; the file is of --model convlstm with --model-options 'hidden=\[4;8\],peephole=true'$"
    )
    with pytest.raises(models.WeightsError, match=advice):
        models.build("convlstm", 5, weights=tmp_path)
    with pytest.raises(models.WeightsError, match=r"; the file is of --model convlstm$"):
        models.build("resnet3d", 5, weights=tmp_path)


@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d"])
@pytest.mark.parametrize("options", [{"temporal_stride": 1}, {"stem_pool": True}, {"width": 32}])
def test_kinetics_weights_are_refused_where_the_network_is_not_torchvisions(
    name: str, options: dict[str, Any]
) -> None:
    given = {"midplanes": "torchvision", **options} if name == "r2plus1d" else options
    (option,) = options
    with pytest.raises(models.WeightsError, match=f"the kinetics400 weights of {name} .*{option}="):
        models.build(name, 5, weights="kinetics400", **given)


def test_there_are_no_kinetics_weights_of_convlstm() -> None:
    with pytest.raises(models.WeightsError, match="no kinetics400 weights for convlstm: give"):
        models.build("convlstm", 5, weights="kinetics400")


def test_wrong_network_is_refused_naming_the_first_keys(files: dict[str, Path]) -> None:
    with pytest.raises(models.WeightsError) as caught:
        r3d(weights=files["r2plus1d_18"])
    assert "missing (layer1.0.conv1.0.weight, " in str(caught.value)
    assert "unexpected (stem.3.weight, " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_shape_is_named_with_both_shapes(files: dict[str, Path]) -> None:
    with pytest.raises(models.WeightsError, match=r"stem.0.*\(64, 3, 3, 7, 7\), not \(45, 3, 1"):
        r3d(backbone="r2plus1d_18", weights=files["r3d_18"])
    with pytest.raises(models.WeightsError, match="of another shape"):
        models.build("resnet3d", 5, width=32, weights=files["r3d_18"])


def test_matched_r2plus1d_says_which_option_the_file_needs(files: dict[str, Path]) -> None:
    with pytest.raises(models.WeightsError, match="need midplanes='torchvision'"):
        models.build("r2plus1d", 5, weights=files["r2plus1d_18"])
    with pytest.raises(
        models.WeightsError, match=r"need midplanes=torchvision,width=64.*'matched'"
    ):
        models.build("r2plus1d", 5, weights="kinetics400")


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(models.WeightsError, match="does not exist; pass --weights"):
        r3d(weights=tmp_path / "nowhere.pth")
    with pytest.raises(models.WeightsError, match=r"is a folder without a best\.pt"):
        r3d(weights=tmp_path)


class Bomb:
    """Would leave a file behind if anything unpickled it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "ran", tmp_path / "evil.pth"
    for writer in (
        lambda: path.write_bytes(pickle.dumps({"stem.0.weight": Bomb(trace)})),
        lambda: torch.save({"stem.0.weight": Bomb(trace)}, path),
        lambda: torch.save(nn.Linear(2, 2), path),
    ):
        writer()
        with pytest.raises(models.WeightsError, match="cannot be read as a state dict") as caught:
            r3d(weights=path)
        assert "\n" not in str(caught.value)
        assert not trace.exists()


@pytest.mark.parametrize("damage", [b"", b"not weights at all", None])
def test_corrupt_file_is_refused_in_one_sentence(
    files: dict[str, Path], tmp_path: Path, damage: bytes | None
) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(files["mc3_18"].read_bytes()[:100_000] if damage is None else damage)
    with pytest.raises(models.WeightsError, match="cannot be read") as caught:
        r3d(weights=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"a": {"b": torch.ones(1)}}])
def test_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(models.WeightsError, match="not a state dict of named tensors"):
        r3d(weights=path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torchvision cache on a machine without network."""

    def fail(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    return tmp_path / "checkpoints"


def test_a_cache_that_cannot_be_written_is_said_too(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(
        models.WeightsError, match=r"could not be fetched \(.*File exists.*--weights PATH/"
    ):
        models.build("r3d", 3, seed=0)


@pytest.mark.parametrize(
    ("name", "options", "file"),
    [
        ("r3d", {}, "r3d_18-b3b3357e.pth"),
        ("r3d", {"backbone": "r2plus1d_18"}, "r2plus1d_18-91a641e6.pth"),
        ("r3d", {"backbone": "mc3_18"}, "mc3_18-a90a0ba3.pth"),
        ("resnet3d", {"weights": "kinetics400"}, "r3d_18-b3b3357e.pth"),
    ],
)
def test_without_network_the_error_says_what_to_fetch_and_how_to_pass_it(
    cache: Path, name: str, options: dict[str, Any], file: str
) -> None:
    with pytest.raises(models.WeightsError) as caught:
        models.build(name, 5, **options)
    sentence = str(caught.value)
    assert file in sentence
    assert "--weights PATH" in sentence
    assert "no route to host" in sentence


def test_damaged_cache_is_refused(cache: Path, files: dict[str, Path]) -> None:
    cache.mkdir()
    (cache / "r3d_18-b3b3357e.pth").write_bytes(files["r3d_18"].read_bytes())
    with pytest.raises(models.WeightsError, match="are damaged"):
        r3d()


@pytest.mark.parametrize(
    ("name", "builder", "file", "options"),
    [
        ("r3d", "r3d_18", "r3d_18-b3b3357e.pth", {}),
        ("resnet3d", "r3d_18", "r3d_18-b3b3357e.pth", {}),
        ("r2plus1d", "r2plus1d_18", "r2plus1d_18-91a641e6.pth", {"midplanes": "torchvision"}),
    ],
)
def test_cached_kinetics_weights_are_used(
    cache: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    name: str, builder: str, file: str, options: dict[str, Any],
) -> None:  # fmt: skip
    cache.mkdir()
    (cache / file).write_bytes(files[builder].read_bytes())
    digest = file.removesuffix(".pth").rpartition("-")[2]
    monkeypatch.setattr("har.models.weights._sha256", lambda _: digest + "0" * 56)
    model = models.build(name, 5, weights="kinetics400", **options)
    assert isinstance(model, VideoResNet)
    assert model.weights_info is not None
    assert model.weights_info.source == "kinetics400"
    theirs = held(files[builder])
    for key, value in model.state_dict().items():
        assert torch.equal(value, theirs[key]) == (not key.startswith("fc.")), key


@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d", "r3d"])
@pytest.mark.parametrize("last", [0, 2, 4])
def test_freezing_stops_gradients_and_norms_up_to_the_group(last: int, name: str) -> None:
    options = {"weights": "none"} if name == "r3d" else {"width": 4}
    model = models.build(name, 5, seed=0, freeze=LAYERS[last], **options).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(torch.randn(2, 3, 2, 16, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        frozen = name.split(".")[0] in LAYERS[: last + 1]
        assert (parameter.grad is None) == frozen, name
        assert parameter.requires_grad != frozen, name
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            frozen = key.split(".")[0] in LAYERS[: last + 1]
            assert torch.equal(before[key], value) == frozen, key


@pytest.mark.parametrize(
    ("last", "frozen"),
    [("stem", ("layers.0.stem_",)), ("layer1", ("layers.0.",)),
     ("layer2", ("layers.0.", "layers.1."))],
)  # fmt: skip
def test_freezing_a_convlstm_stops_the_gradients_of_its_first_layers(
    last: str, frozen: tuple[str, ...]
) -> None:
    options: dict[str, Any] = {"hidden": (4, 4), "stem_channels": 4}
    free, model = (
        models.build("convlstm", 3, seed=0, **options, **more) for more in ({}, {"freeze": last})
    )
    x = torch.randn(2, 3, 3, 16, 16)
    for network in (free, model):
        network.train()(x).square().sum().backward()
    for (name, parameter), other in zip(model.named_parameters(), free.parameters(), strict=True):
        assert (parameter.grad is None) == name.startswith(frozen), name
        if parameter.grad is not None:
            assert torch.equal(parameter.grad, other.grad), name
    with pytest.raises(ValueError, match="one of stem, layer1, layer2, got 'layer3'"):
        models.build("convlstm", 3, **options, freeze="layer3")


def test_bad_r3d_options_are_refused() -> None:
    with pytest.raises(ValueError, match="backbone must be one of r3d_18, r2plus1d_18, mc3_18"):
        r3d(weights="none", backbone="r3d_50")
    with pytest.raises(ValueError, match="freeze must be none or one of stem, layer1"):
        r3d(weights="none", freeze="layer9")

"""Weight files: what is loaded, what is refused, and in which words. No network is used."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_models import small_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision import models as torchvision_models
from torchvision.models import video as torchvision_video

from har import models
from har.models.r3d import BACKBONES
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


@pytest.mark.parametrize("builder", BACKBONES)
def test_kinetics_files_are_those_of_torchvision(builder: str) -> None:
    weights = torchvision_models.get_model_weights(builder)
    assert KINETICS_URLS[builder] == weights["KINETICS400_V1"].value.url


@pytest.mark.parametrize(
    ("source", "name", "builder", "options"),
    [
        *(("file", "r3d", backbone, {"backbone": backbone}) for backbone in BACKBONES),
        ("kinetics400", "r3d", "r3d_18", {}),
        ("kinetics400", "resnet3d", "r3d_18", {}),
        ("kinetics400", "r2plus1d", "r2plus1d_18", {"midplanes": "torchvision"}),
    ],
)
def test_all_but_the_classifier_is_taken_and_the_checksum_shown(
    cache: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, source: str,
    name: str, builder: str, options: dict[str, Any],
) -> None:  # fmt: skip
    path = files[builder]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if source == "kinetics400":
        file = KINETICS_URLS[builder].rpartition("/")[2]
        cache.mkdir()
        path = cache / file
        path.symlink_to(files[builder])
        sha256 = file.removesuffix(".pth").rpartition("-")[2] + "0" * 56
        monkeypatch.setattr("har.models.weights._sha256", lambda _: sha256)
    weights = "kinetics400" if source == "kinetics400" else str(path)
    model = models.build(name, 5, seed=0, weights=weights, **options)
    theirs = held(path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, theirs[key]) == (not key.startswith("fc.")), key
    assert isinstance(model, VideoResNet)
    assert model.fc.out_features == 5
    info = model.weights_info
    assert info is not None
    assert (info.source, info.path, info.sha256) == (source, str(path), sha256)


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_checkpoints_and_names_of_ddp_and_compile_are_taken(tmp_path: Path, prefix: str) -> None:
    old = models.build("resnet3d", 5, seed=3, width=4)
    state = {prefix + name: value for name, value in old.state_dict().items()}
    for content in (state, {"state_dict": state, "epoch": 2}, {"epoch": 3, "model": state}):
        torch.save(content, tmp_path / "x.pt")
        new = models.build("resnet3d", 3, seed=4, width=4, weights=tmp_path / "x.pt")
        assert torch.equal(new.layer4[1].conv2[0].weight, old.layer4[1].conv2[0].weight)
        assert new.fc.out_features == 3
        assert new.weights_info.not_loaded == ("fc.weight", "fc.bias")


def test_an_averaged_models_state_dict_is_taken(tmp_path: Path) -> None:
    old = small_model("convlstm", seed=3)
    torch.save(AveragedModel(old).state_dict(), tmp_path / "ema.pt")
    new = small_model("convlstm", 3, seed=4, weights=tmp_path / "ema.pt")
    assert torch.equal(new.layers[0].input_weight, old.layers[0].input_weight)
    assert new.weights_info.unused == ("n_averaged", "fc.weight", "fc.bias")


class Wrapped(nn.Module):
    """Has a part whose name is that of DDP's wrapper."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.fc = nn.Linear(2, num_classes)


class AllWrapped(nn.Module):
    """All of its parts are in it."""

    head_name = "module.fc"

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.module = Wrapped(num_classes)


@pytest.mark.parametrize("kind", [Wrapped, AllWrapped])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("averaged", [{}, {"n_averaged": torch.tensor(3)}])
def test_a_part_named_module_is_no_wrapper(
    tmp_path: Path, kind: type[nn.Module], prefix: str, averaged: dict[str, Tensor]
) -> None:
    old, new = kind(3), kind(5)
    state = {prefix + name: value for name, value in old.state_dict().items()}
    torch.save({**averaged, **state}, tmp_path / "x.pt")
    info = models.load_weights(new, tmp_path / "x.pt", builder=None, model_name="mynet:Kind")
    assert info is not None
    assert len(info.not_loaded) == 2
    for name, value in new.state_dict().items():
        assert torch.equal(value, old.state_dict()[name]) == ("fc." not in name), name


def test_two_tensors_for_one_name_are_refused(tmp_path: Path) -> None:
    state = small_model("resnet3d").state_dict()
    state["group1.0.conv1.weight"] = state["layer1.0.conv1.0.weight"] + 1  # of older versions
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(models.WeightsError, match=r"holds \d+ tensors for \d+ names: some are"):
        small_model("resnet3d", weights=tmp_path / "x.pt")


def change(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state.__setitem__(name, value(state[name]))


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (change("stem.0.weight", lambda t: t.to(torch.int8)), "stem.0.weight is torch.int8 there"),
        (change("stem.0.weight", lambda t: t + 1j), "stem.0.weight is torch.complex64 there and t"),
        (change("layer1.0.conv1.0.weight", lambda t: t * torch.nan), "conv1.0.weight holds nan or"),
        (change("stem.1.running_var", lambda t: t / 0), "stem.1.running_var holds nan or infinity"),
        (change("stem.0.weight", lambda t: t.to_sparse()), "stem.0.weight is a sparse_coo tensor"),
        (change("stem.0.weight", lambda t: t.to("meta")), "stem.0.weight is a meta tensor there"),
    ],
)
def test_tensors_that_would_load_as_something_else_are_refused_by_name(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object], text: str
) -> None:
    state = small_model("resnet3d").state_dict()
    edit(state)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(models.WeightsError, match=text) as caught:
        small_model("resnet3d", weights=tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_a_sparse_buffer_of_a_model_is_taken(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_buffer("graph", torch.zeros(2, 2).to_sparse())
    state = {**model.state_dict(), "graph": torch.eye(2).to_sparse()}
    torch.save(state, tmp_path / "x.pt")
    models.load_weights(model, tmp_path / "x.pt", builder=None, model_name="mynet:Graph")
    assert torch.equal(model.graph.to_dense(), torch.eye(2))


def test_masks_with_infinity_and_counters_of_another_type_are_taken(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    state = model.state_dict()
    state["0.num_batches_tracked"] = torch.tensor(7.0)
    torch.save(state, tmp_path / "x.pt")
    assert models.load_weights(model, tmp_path / "x.pt", builder=None, model_name="mynet:Masked")


SPLIT = {"name": "grouped", "seed": 0, "digest": "0" * 16}


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"classes": 3}, "its entry classes is 3"),
        ({"model_name": ["x"]}, r"its entry model_name is \['x'\]"),
        ({"model_options": None}, "its entry model_options is None"),
        ({"pretrained_on": {"keys": [], "groups": []}}, "its entry pretrained_on.split is missing"),
        ({"pretrained_on": {"split": SPLIT, "keys": [["a"]], "groups": []}}, "pretrained_on.keys"),
        ({"split": {}}, "its entry split.name is missing"),
        ({"split": 3}, "its entry split is 3"),
        ({"config": {"val_from_train": "x"}}, "its entry config.val_from_train is 'x'"),
        ({"parent_data": 3}, "its entry parent_data is 3"),
        ({"parent_data": [3]}, "its entry parent_data.split is missing"),
    ],
)
def test_entries_of_a_run_of_another_type_are_refused_by_name(
    tmp_path: Path, entries: dict[str, Any], text: str
) -> None:
    run = {
        "model_name": "resnet3d", "model_options": {}, "classes": ["a"], "epoch": 1,
        "split": SPLIT, "config": {}, "manifest_digest": "0", **entries,
        "model": small_model("resnet3d").state_dict(),
    }  # fmt: skip
    torch.save(run, tmp_path / "best.pt")
    with pytest.raises(models.WeightsError, match=text) as caught:
        small_model("resnet3d", weights=tmp_path)
    assert "is no checkpoint that har wrote" in str(caught.value)


def test_a_run_of_the_same_options_that_does_not_fit_names_no_options(tmp_path: Path) -> None:
    old = models.build("resnet3d", 5, width=4)
    torch.save(
        {"model_name": "resnet3d", "model_options": {}, "classes": ["a"], "epoch": 3,
         "model": old.state_dict()}, tmp_path / "best.pt",
    )  # fmt: skip
    with pytest.raises(models.WeightsError, match=r"; the file is of --model resnet3d$"):
        models.build("resnet3d", 5, weights=tmp_path)


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


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("resnet3d", {"temporal_stride": 1}, "weights of resnet3d need .*, got temporal_stride=1"),
        ("resnet3d", {"stem_pool": True}, "weights of resnet3d need .*, got stem_pool=True"),
        ("resnet3d", {"width": 32}, "weights of resnet3d need .*, got width=32"),
        ("r2plus1d", {"temporal_stride": 1}, "of r2plus1d need .*, got .*temporal_stride=1"),
        ("r2plus1d", {"stem_pool": True}, "of r2plus1d need .*, got .*stem_pool=True"),
        ("r2plus1d", {}, "need midplanes=torchvision,width=64.*, got midplanes='matched'"),
        ("convlstm", {}, "no kinetics400 weights for convlstm: give"),
    ],
)  # fmt: skip
def test_kinetics_weights_are_refused_where_the_network_is_not_torchvisions(
    name: str, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(models.WeightsError, match=text):
        models.build(name, 5, weights="kinetics400", **options)


@pytest.mark.parametrize(
    ("builder", "name", "options", "texts"),
    [
        ("r2plus1d_18", "r3d", {},
         ["missing (layer1.0.conv1.0.weight, ", "unexpected (stem.3.weight, "]),
        ("r3d_18", "r3d", {"backbone": "r2plus1d_18"},
         ["stem.0.weight is (64, 3, 3, 7, 7), not (45, 3, 1, 7, 7)"]),
        ("r3d_18", "resnet3d", {"width": 32}, ["of another shape"]),
        ("r2plus1d_18", "r2plus1d", {}, ["need midplanes=torchvision"]),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_naming_the_first_keys(
    files: dict[str, Path], builder: str, name: str, options: dict[str, Any], texts: list[str]
) -> None:
    with pytest.raises(models.WeightsError) as caught:
        models.build(name, 5, weights=files[builder], **options)
    assert all(text in str(caught.value) for text in texts)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(models.WeightsError, match="does not exist; pass --weights"):
        small_model("resnet3d", weights=tmp_path / "nowhere.pth")
    with pytest.raises(models.WeightsError, match=r"is a folder without a best\.pt"):
        small_model("resnet3d", weights=tmp_path)


class Bomb:
    """Would leave a file behind if anything unpickled it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def save_and_cut(path: Path) -> None:
    torch.save({"stem.0.weight": torch.ones(50_000)}, path)
    os.truncate(path, 100_000)


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda path, bomb: path.write_bytes(pickle.dumps({"stem.0.weight": bomb})), "cannot be r"),
        (lambda path, bomb: torch.save({"stem.0.weight": bomb}, path), "cannot be read as a state"),
        (lambda path, bomb: torch.save(nn.Linear(2, 2), path), "cannot be read as a state dict"),
        (lambda path, bomb: path.write_bytes(b""), "cannot be read"),
        (lambda path, bomb: path.write_bytes(b"not weights at all"), "cannot be read"),
        (lambda path, bomb: save_and_cut(path), "cannot be read"),
        (lambda path, bomb: torch.save([1, 2], path), "not a state dict of named tensors"),
        (lambda path, bomb: torch.save({}, path), "not a state dict of named tensors"),
        (lambda path, bomb: torch.save({"epoch": 3}, path), "not a state dict of named tensors"),
        (lambda path, bomb: torch.save({"a": {"b": torch.ones(1)}}, path), "not a state dict of n"),
    ],
)
def test_a_file_that_is_no_state_dict_is_refused_in_one_sentence_and_nothing_in_it_runs(
    tmp_path: Path, write: Callable[[Path, Bomb], object], text: str
) -> None:
    trace, path = tmp_path / "ran", tmp_path / "bad.pth"
    write(path, Bomb(trace))
    with pytest.raises(models.WeightsError, match=text) as caught:
        small_model("resnet3d", weights=path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


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
        models.build("r3d", 5)


@pytest.mark.parametrize("name", ["resnet3d", "r2plus1d", "r3d"])
@pytest.mark.parametrize("last", [0, 2, 4])
def test_freezing_stops_gradients_and_norms_up_to_the_group(last: int, name: str) -> None:
    model = small_model(name, freeze=LAYERS[last]).train()
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
    free, model = (small_model("convlstm", freeze=freeze) for freeze in ("none", last))
    x = torch.randn(2, 3, 3, 16, 16)
    for network in (free, model):
        network.train()(x).square().sum().backward()
    for (name, parameter), other in zip(model.named_parameters(), free.parameters(), strict=True):
        assert (parameter.grad is None) == name.startswith(frozen), name
        if parameter.grad is not None:
            assert torch.equal(parameter.grad, other.grad), name

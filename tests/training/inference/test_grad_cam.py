"""Where a network looks: the maps recomputed by other means, and the animation."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_predictor import make_video_run
from PIL import Image

from har import models
from har.training.inference import grad_cam
from har.training.inference.predictor import Predictor

TINY = {"resnet3d": {"width": 4}, "r2plus1d": {"width": 4}, "r3d": {"weights": "none"}}


def _clip(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 3, 8, 32, 40, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", list(TINY))
def test_grad_cam_is_the_classifiers_weights_on_the_last_features(name: str):
    """With a mean over space and time before it, the logit's gradient is the classifier's row."""
    model = models.build(name, 5, seed=0, **TINY[name]).eval()
    clip = _clip()
    with torch.no_grad():
        target = int((model(clip) - model.fc.bias).argmax())  # some of its map is above 0
    kept: list[torch.Tensor] = []
    last = model.layer4
    hook = last.register_forward_hook(lambda *given: kept.append(given[2]))
    with torch.no_grad():
        model(clip)
        hook.remove()
        wanted = torch.einsum("c,cthw->thw", model.fc.weight[target], kept[0][0]).relu()
        wanted = F.interpolate(wanted[None, None], (8, 32, 40), mode="trilinear")[0, 0]
    found = grad_cam.attention_map(model, name, clip, target)
    assert found == pytest.approx((wanted / wanted.max()).numpy(), abs=1e-4)
    assert not last._forward_hooks
    assert all(p.grad is None for p in model.parameters())


def test_grad_cam_works_on_frozen_weights():
    model = models.build("resnet3d", 3, seed=0, width=4).eval().requires_grad_(False)
    found = grad_cam.attention_map(model, "resnet3d", _clip(), 0)
    assert found.shape == (8, 32, 40)
    assert found.min() >= 0
    assert found.max() <= 1


def test_state_magnitude_is_that_of_the_clip_read_up_to_each_step():
    model = models.build("convlstm", 3, seed=0, hidden=(4, 6), stem_channels=4).eval()
    clip = _clip()
    with torch.no_grad():
        steps = [model.features(clip[:, :, : t + 1])[0][0].norm(dim=0) for t in range(8)]
        coarse = torch.stack(steps) - min(float(step.min()) for step in steps)
        wanted = F.interpolate(coarse[None, None], (8, 32, 40), mode="trilinear")[0, 0]
    found = grad_cam.attention_map(model, "convlstm", clip, 0)
    assert found == pytest.approx((wanted / wanted.max()).numpy(), abs=1e-4)
    assert model.return_sequences is False


def test_a_network_without_a_map_is_said():
    own = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    with pytest.raises(grad_cam.PredictionError, match="'mynet:Own': let its class name a layer"):
        grad_cam.attention_map(own, "mynet:Own", _clip(), 0)
    assert grad_cam.map_name(own, "mynet:Own") is None
    own.cam_layer = "0"
    with pytest.raises(grad_cam.PredictionError, match=r"no output \[B,C,t,h,w\]"):
        grad_cam.attention_map(own, "mynet:Own", _clip(), 0)


def test_what_is_shown_is_what_the_model_sees(tmp_path: Path):
    predictor = Predictor(make_video_run(tmp_path / "a"), "cpu")
    grey = np.full((1, 6, 36, 48, 3), 77, np.uint8)
    assert (grad_cam.denormalize(predictor.preprocess(grey), predictor.transform) == 77).all()


def test_heat_changes_the_picture_where_it_is():
    frames = np.full((2, 8, 8, 3), 100, np.uint8)
    heat = np.zeros((2, 8, 8), np.float32)
    heat[1, 2, 3] = 1
    shown = grad_cam.overlay_heat(frames, heat).astype(int)
    cold = shown[0, 0, 0]
    assert (shown[0] == cold).all()
    assert shown[1, 2, 3].sum() > 2 * cold.sum()


def test_the_animation_has_a_picture_for_each_frame_of_the_clip(
    tmp_path: Path, synthetic_videos: Path
):
    predictor = Predictor(make_video_run(tmp_path / "a", "resnet3d"), "cpu")
    video = sorted(synthetic_videos.rglob("*.avi"))[0]
    pictures = grad_cam.animate_clip(predictor, predictor.decode_video(video)[0])
    with Image.open(io.BytesIO(grad_cam.encode_gif(pictures))) as animation:
        assert animation.n_frames == len(pictures) == 6
        assert animation.width == 2 * 224

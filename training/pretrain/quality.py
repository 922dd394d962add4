"""Whether a pretraining learns: nearest neighbours and spread of its features, on train clips."""

from contextlib import closing

import numpy as np
import torch
import torch.nn.functional as F

from ...shards.format import NO_GROUP
from ...shards.loading import BatchSampler, LoaderOptions
from ..input import DeviceLoader
from ..state import TrainState
from ..step import forward

_MAX_CLIPS = 2000  # of the train subset, evenly spaced: a few percent of an epoch's time
_LEAST_SPREAD = 0.02


def measure_quality(state: TrainState) -> dict[str, float | None]:
    """{"knn_acc", "spread"} of the features of train clips, not augmented; warns of a collapse.

    spread: the standard deviation of the features, of length 1, over the clips: 0 where all are the
    same, at most 1. Every rank computes the same. No clip of val or test is read.
    """
    indices = np.sort(state.split.train)
    indices = indices[:: -(-len(indices) // _MAX_CLIPS)]
    features = compute_features(state, indices)  # [N,F]
    labels, groups = (
        torch.from_numpy(state.manifest.index[name][indices].astype(np.int64))
        for name in ("label", "group")
    )
    spread = features.std(0, correction=0).square().sum().sqrt().item()
    if spread < _LEAST_SPREAD:
        state.log(
            f"warning: the features of all clips are nearly the same (spread {spread:.4f} of 1): "
            "the network has collapsed; try a lower --lr or a higher --temperature."
        )
    return {"knn_acc": neighbour_accuracy(features, labels, groups), "spread": spread}


def compute_features(state: TrainState, indices: np.ndarray) -> torch.Tensor:
    """What the classifier would get of these clips, of length 1: float32 [N,F] on the CPU."""
    config = state.config
    sampler = BatchSampler(indices, min(config.batch_size, len(indices)))
    options = LoaderOptions(workers=config.workers, max_corrupt=config.max_corrupt)
    loader = DeviceLoader(state.manifest, sampler, state.transform, state.device, options)
    state.model.eval()
    with closing(loader), torch.inference_mode():
        parts = [forward(state.model, b.clips, state.precision) for b in loader.epoch()]
        features = torch.cat(parts)[: len(indices)]  # the rest is padding
        return F.normalize(features).cpu()


def neighbour_accuracy(
    features: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor
) -> float | None:
    """Share of clips whose nearest neighbour among clips of other groups has their class.

    features: [N,F] of length 1. labels, groups: int64 [N]. Clips of one group look alike whatever
    they show. Without a group a clip is a group of its own. Counted are clips whose class has a
    clip in another group; None where none has.
    """
    groups = torch.where(groups == NO_GROUP, -1 - torch.arange(len(groups)), groups)
    is_other = groups[:, None] != groups[None]  # [N,N]
    same_class = labels[:, None] == labels[None]
    counted = (same_class & is_other).any(1)
    nearest = (features @ features.T).masked_fill(~is_other, -torch.inf).argmax(1)
    return (labels[nearest] == labels)[counted].float().mean().item() if counted.any() else None

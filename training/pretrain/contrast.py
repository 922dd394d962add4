"""What har-pretrain learns: to tell windows of one video from those of others, and from each other.

Each step shows `windows` windows of every clip, each augmented twice. The instance term is SimCLR's
(Chen et al. 2020, arXiv 2002.05709, section 2.1): windows of one clip are positives, those of the
other clips of the batch negatives. The temporal term is the local-local one of TCLR (Dave, Gupta,
Rizve, Shah 2022, arXiv 2101.07974, section 3): the other augmentation of the same window is the
positive, the clip's other windows are the negatives; it needs no large batch. TCLR's third term,
global-local, is left out: it takes a pass over twice as many clips.

Notes:
- Only the train subset is read: the loop gets no loader of another one.
- Each rank, and each part of an accumulated batch, contrasts its own clips only. A clip that is
  alone in one (the last of an epoch) is left out of the reported loss and accuracy.
- One projection head for both terms, as in the authors' code.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..config import ConfigError
from ..input import DeviceBatch
from ..network import classifier_name
from ..state import ClipLosses, Task, TrainState
from ..step import forward
from .config import PretrainConfig
from .quality import measure_quality

AUGMENTATIONS = 2  # of each window
_EMBEDDING_SIZE = 128


def make_task(config: PretrainConfig) -> Task:
    """The task of a pretraining, for `har.training.loop.fit`."""

    def compute_losses(state: TrainState, batch: DeviceBatch) -> ClipLosses:
        return contrastive_losses(state, batch, config)

    return Task(
        compute_losses,
        windows=config.windows,
        views=AUGMENTATIONS * config.windows,
        has_val=False,
        num_classes=1,
        metrics=("temporal_acc",) if config.is_temporal else (),
        adapt_model=lambda model: add_projection_head(model, config.seed),
        measure=measure_quality,
        extra_state=describe_data,
        describe=lambda state: describe(state, config),
    )


class ProjectionHead(nn.Module):
    """In place of the classifier: features [b,F] -> embeddings [b,128]; in evaluation the features.

    Two layers with batch norm between them (TCLR's authors' code, tclr_pretraining/mlp.py).
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(num_features, num_features),
            nn.BatchNorm1d(num_features),
            nn.ReLU(),
            nn.Linear(num_features, _EMBEDDING_SIZE),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features) if self.training else features


def add_projection_head(model: nn.Module, seed: int) -> None:
    """Replace the classifier. Raises ConfigError where it is no linear layer."""
    name = classifier_name(model)
    classifier = model.get_submodule(name)
    if not isinstance(classifier, nn.Linear):
        raise ConfigError(
            f"the classifier {name} of {type(model).__name__} is a {type(classifier).__name__}: "
            "har-pretrain replaces one that is a single nn.Linear."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model.set_submodule(name, ProjectionHead(classifier.in_features))


def contrastive_losses(state: TrainState, batch: DeviceBatch, config: PretrainConfig) -> ClipLosses:
    """The losses of a batch whose rows are the views of its clips, one clip after the other."""
    views = AUGMENTATIONS * config.windows
    embeddings = F.normalize(forward(state.ddp_model, batch.clips, state.precision))  # [n*v,D]
    embeddings = embeddings.unflatten(0, (-1, config.windows, AUGMENTATIONS))  # [n,w,2,D]
    valid, clips = batch.valid[::views], batch.indices[::views]  # [n]
    losses, correct, is_counted = instance_contrast(embeddings, clips, valid, config.temperature)
    further: list[torch.Tensor] = []
    if config.is_temporal:
        temporal, *further = temporal_contrast(embeddings, config.temperature)
        losses = losses + config.temporal_weight * temporal
        if len(clips) == 1:  # of every batch of the run: the temporal term is all it has
            correct, is_counted = further[0], valid
    weights, reported = valid.float(), losses.detach()
    return ClipLosses(losses, weights, reported, correct, is_counted, tuple(further))


def instance_contrast(
    embeddings: torch.Tensor, clips: torch.Tensor, valid: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings [n,w,a,D] of length 1 -> (loss [n], share of right answers [n], whether valid and
    with negatives: bool [n]). Without negatives the loss is 0 and says nothing.

    The mean of InfoNCE over all pairs of a clip's w*a views; negatives are the views of other valid
    clips. clips: int [n], alike where padding repeats a clip of the batch. A pair counts as right
    where its similarity is above that of all negatives.
    """
    n, views = len(embeddings), embeddings.shape[1:3].numel()
    flat = embeddings.flatten(0, 2)  # [r,D]
    logits = flat @ flat.T / temperature  # [r,r]
    is_negative = (clips[:, None] != clips[None]) & valid[None]  # [n,n]
    is_counted = valid & is_negative.any(1)  # [n]
    is_negative = is_negative.repeat_interleave(views, 0).repeat_interleave(views, 1)
    negatives = logits.masked_fill(~is_negative, -torch.inf)  # [r,r]
    blocks = logits.unflatten(0, (n, views)).unflatten(2, (n, views))  # [n,v,n,v]
    positives = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # [n,v,v], each view with itself
    return *_contrast(positives, negatives.unflatten(0, (n, views))), is_counted


def temporal_contrast(
    embeddings: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [n,w,2,D] of length 1 -> (loss [n], share of right answers [n]).

    InfoNCE over the two augmentations of each window; negatives are the clip's other windows.
    """
    windows = embeddings.shape[1]
    flat = embeddings.flatten(1, 2)  # [n,v,D]
    logits = flat @ flat.mT / temperature  # [n,v,v]
    same = torch.eye(windows, dtype=torch.bool, device=flat.device)  # [w,w]
    same = same.repeat_interleave(AUGMENTATIONS, 0).repeat_interleave(AUGMENTATIONS, 1)  # [v,v]
    negatives = logits.masked_fill(same, -torch.inf)
    pairs = logits.unflatten(1, (windows, -1)).unflatten(3, (windows, -1))  # [n,w,2,w,2]
    positives = pairs.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)  # [n,w,2,2]
    return _contrast(positives, negatives.unflatten(1, (windows, -1)))


def _contrast(
    positives: torch.Tensor, negatives: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over the pairs of each clip of -log(e^p / (e^p + sum of e^n)), and of p > all n.

    positives: [n,...,v,v], of which the diagonal is no pair. negatives: [n,...,v,m], -inf where
    there is none.
    """
    views = positives.shape[-1]
    is_pair = ~torch.eye(views, dtype=torch.bool, device=positives.device)  # [v,v]
    losses = F.softplus(negatives.logsumexp(-1, keepdim=True) - positives)  # [n,...,v,v]
    correct = (positives > negatives.amax(-1, keepdim=True)).float()
    return losses[..., is_pair].flatten(1).mean(1), correct[..., is_pair].flatten(1).mean(1)


def describe_data(state: TrainState) -> dict[str, object]:
    """What a checkpoint says of the clips that were seen, for `har.training.network`."""
    index, groups = state.manifest.index[state.split.train], state.manifest.groups
    names = sorted({groups[group] for group in index["group"].tolist() if group >= 0})
    keys = [key.decode() for key in index["key"].tolist()]
    return {"pretrained_on": {"split": state.split.describe(), "keys": keys, "groups": names}}


def describe(state: TrainState, config: PretrainConfig) -> list[str]:
    """What the log says of the contrast: how often a guess is right, and what is missing.

    Raises ConfigError where no clip has another one, or another window, to be told from.
    """
    split, ranks = state.split, state.ctx.world_size
    num_clips, part = len(split.train), config.batch_size // config.grad_accum_steps // ranks
    more = "a larger --batch-size, or fewer --grad-accum-steps or ranks"
    problem = ""
    if num_clips < 2:
        problem = (
            f"split {split.name!r} of {config.shards} has 1 train clip, and har-pretrain tells "
            "clips from each other: choose another --split, or build a set with more clips."
        )
    elif part < 2 and not config.is_temporal:
        problem = (
            f"a forward pass has 1 clip (--batch-size {config.batch_size}, --grad-accum-steps "
            f"{config.grad_accum_steps}, ranks: {ranks}), which has no other clip to be told from, "
            f"and there is no temporal term: give {more}."
        )
    if problem:
        state.close()
        raise ConfigError(problem)
    views = AUGMENTATIONS * config.windows
    temporal = 1 / (1 + views - AUGMENTATIONS)
    guess = temporal if part < 2 else guess_accuracy(num_clips, part, views)
    line = (
        f"{config.windows} windows of {state.transform.frames} frames a clip, each augmented "
        f"twice; a guess has train acc {guess:.3f}"
    )
    lines = [line + f", temporal {temporal:.3f}" * config.is_temporal]
    if part < 2:
        lines.append(
            "warning: a forward pass has 1 clip, which has no other to be told from: without the "
            f"instance term train acc is the temporal one; give {more}."
        )
    labels = np.unique(state.manifest.index["label"][split.train])
    if len(labels) < 2:
        lines.append(
            f"note: all {num_clips} train clips are of class {state.manifest.classes[labels[0]]!r}"
            ": a training from these weights needs two classes, thus another --shards or --split"
        )
    return lines


def guess_accuracy(num_clips: int, part: int, views: int) -> float:
    """The mean share of right guesses in the instance term over an epoch, whose forward passes have
    `part` clips, the last one what is left. A clip that is left alone is not counted."""
    num_full, rest = divmod(num_clips, part)
    counts = {part: num_full * part, rest: rest if rest > 1 else 0}
    right = sum(count / (1 + (clips - 1) * views) for clips, count in counts.items() if count)
    return right / sum(counts.values())

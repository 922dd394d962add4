"""The optimizer: parameter groups by weight decay, and the classifier's apart with `--lr-head`."""

import torch
from torch import nn

from ... import models
from ..config import Config, ConfigError


def make_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """Of the parameters that are trained. Those of one axis (norms, biases) have no weight decay;
    with `lr_head` the classifier's parameters are in groups of their own, behind the others'.

    Raises ConfigError where the model does not say which of its parts classifies.
    """
    assert config.lr is not None  # resolved
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    head = [] if config.lr_head is None else _head_names(config, model, named)
    parts = [([p for name, p in named.items() if name not in head], config.lr)]
    if config.lr_head is not None:
        parts.append(([named[name] for name in head], config.lr_head))
    groups = []
    for parameters, lr in parts:
        weights = [p for p in parameters if p.dim() > 1]
        others = [p for p in parameters if p.dim() <= 1]
        groups += [
            {"params": weights, "weight_decay": config.weight_decay, "lr": lr},
            {"params": others, "weight_decay": 0.0, "lr": lr},
        ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        momentum = config.momentum
        return torch.optim.SGD(groups, lr=config.lr, momentum=momentum, nesterov=momentum > 0)
    optimizer = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return optimizer(groups, lr=config.lr, fused=True)


def _head_names(config: Config, model: nn.Module, named: dict[str, nn.Parameter]) -> list[str]:
    head = models.head_name(model)
    names = [] if head is None else [name for name in named if name.startswith(f"{head}.")]
    if not names:
        raise ConfigError(
            f"--lr-head {config.lr_head:g}: {config.model} has no part "
            f"{head or models.DEFAULT_HEAD!r} that learns: let the class name its classifier in "
            "head_name (docs/models.md), or leave --lr-head out."
        )
    return names

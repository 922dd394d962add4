"""Clip transforms: one affine map a clip, color, mixup and cutmix."""

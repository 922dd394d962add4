"""From stored clips to a network's input: crop, rotation, flip, color, normalize; mixup, cutmix.

This file imports nothing, so that models and configs can import `.clip_transform` without torch and
numba; import from the modules (`clip_transform`, `clip_processor`, `affine`, `color`, `mixup`).
"""

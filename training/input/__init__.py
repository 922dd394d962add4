"""Batches on the device: loader -> device -> augmentation, one batch ahead."""

from .device_loader import DeviceBatch, DeviceLoader

__all__ = ["DeviceBatch", "DeviceLoader"]

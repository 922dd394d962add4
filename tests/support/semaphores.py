"""Whether worker processes of a DataLoader can run: Linux keeps their semaphores in /dev/shm."""

import multiprocessing

import pytest


def _have_semaphores() -> bool:
    try:
        multiprocessing.Lock()
    except OSError:
        return False
    return True


needs_semaphores = pytest.mark.skipif(
    not _have_semaphores(), reason="no semaphores here: /dev/shm is missing or cannot be written"
)

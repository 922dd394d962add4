"""More than one machine: the executor of a Dask cluster, however that was started.

Dask's own deployments bring Slurm, SSH and Kubernetes (docs/scale.md); here they are all an
address. Dask runs a task again when its worker is lost, on another worker. Decoders outlive a task
to be used by the next, so they are ended here when the build is.
"""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import Executor

from ...errors import HarError
from .shard_task import DECODERS

_CONNECT_SECONDS = 15


class ClusterError(HarError):
    """A cluster that cannot be used; the text is one sentence."""


@contextlib.contextmanager
def dask_executor(address: str | None) -> Iterator[Executor | None]:
    """The executor of the cluster whose scheduler is at `address`; None for None.

    Where the body raises, what is still to be done is cancelled. Raises ClusterError.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ClusterError(
            "--scheduler needs Dask on every machine: 'pip install .[cluster]' brings it."
        ) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # our errors are said once
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at --scheduler {address}: start one with 'dask scheduler' "
            "and give the address it prints, as in tcp://host:8786."
        ) from error
    with client:
        executor = client.get_executor(pure=False)  # never an earlier build's result for this one
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False)
            raise
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone, the set is not
                client.run(close_decoders)


def close_decoders() -> None:
    """On a worker: end the decoders that have nothing to do."""
    DECODERS.close()

"""Files at paths and URLs behind one interface, the cache of a host, fetching ahead."""

from .cache import ShardCache
from .folder import FileFetcher, LocalFolder, open_folder, read_bytes
from .place import MissingFileError, ShardInfo, StorageError, join, normalize, url_of, writer_id
from .prefetch import ShardPrefetcher
from .remote_folder import RemoteFolder

__all__ = [
    "FileFetcher", "LocalFolder", "MissingFileError", "RemoteFolder", "ShardCache", "ShardInfo",
    "ShardPrefetcher", "StorageError", "join", "normalize", "open_folder", "read_bytes", "url_of",
    "writer_id",
]  # fmt: skip

"""Files at paths and URLs behind one interface, the cache of a host, fetching ahead."""

from .cache import ShardCache
from .folder import FileFetcher, open_folder, read_bytes
from .local_folder import LocalFolder
from .place import (
    FileInfo,
    MissingFileError,
    StorageError,
    join,
    local_path,
    normalize,
    url_of,
    writer_id,
)
from .prefetch import ShardPrefetcher
from .remote_folder import RemoteFolder

__all__ = [
    "FileFetcher",
    "FileInfo",
    "LocalFolder",
    "MissingFileError",
    "RemoteFolder",
    "ShardCache",
    "ShardPrefetcher",
    "StorageError",
    "join",
    "local_path",
    "normalize",
    "open_folder",
    "read_bytes",
    "url_of",
    "writer_id",
]

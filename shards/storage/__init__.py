"""Files at paths and URLs behind one interface, the cache of a host, fetching ahead."""

from .archive import ARCHIVE_SUFFIXES, Archive, ArchiveError, is_archive, open_archive
from .cache import ShardCache
from .folder import FileFetcher, Folder, LocalFolder, clear_errors, open_folder, read_bytes
from .place import (
    MissingFileError,
    ShardInfo,
    StorageError,
    TransferStopped,
    join,
    local_path,
    normalize,
    open_binary,
    parse_bytes,
    shard_checksum,
    try_lock,
    url_of,
    writer_id,
)
from .prefetch import ShardPrefetcher
from .remote_folder import DISK_ERRORS, RemoteFolder, fetch_file

__all__ = [
    "ARCHIVE_SUFFIXES", "DISK_ERRORS", "Archive", "ArchiveError", "FileFetcher", "Folder",
    "LocalFolder", "MissingFileError", "RemoteFolder", "ShardCache", "ShardInfo",
    "ShardPrefetcher", "StorageError", "TransferStopped", "clear_errors", "fetch_file",
    "is_archive", "join", "local_path", "normalize", "open_archive", "open_binary", "open_folder",
    "parse_bytes", "read_bytes", "shard_checksum", "try_lock", "url_of", "writer_id",
]  # fmt: skip

"""Names of files -> names of videos; what is no video is said.

A folder of numbered images (`00001.jpg`, `img_00001.jpg`) without anything else that could be a
video is one video, by the name of the folder with `/` at its end.
"""

from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from ..decode import IMAGE_SUFFIXES, VIDEO_SUFFIXES, order_images
from .files import Files, LocalFiles
from .records import Remarks, describe_left_out

_READ = ("classInd.txt",)  # no video, and read all the same


def list_folder(folder: Path) -> tuple[list[Path], list[str]]:
    """The videos in a folder and in those below it, the folder itself where it is one of numbered
    images; and a line for each kind of what is left out. Nothing where there is no
    folder. Raises DatasetError."""
    if not folder.is_dir():
        return [], []
    remarks = Remarks()
    names = list_videos(LocalFiles(str(folder.absolute())), remarks, with_root=True)
    return sorted(folder / name for name in names), describe_left_out(remarks.left_out())


def list_videos(
    files: Files, remarks: Remarks, lists: Collection[str] = (), *, with_root: bool = False
) -> list[str]:
    """Sorted names of the videos below the root. lists: paths or URLs of files that are read
    otherwise. with_root: whether the root may be a folder of images, `./`. Raises DatasetError,
    StorageError."""
    videos, others, hidden, folders = [], [], [], set()
    images: dict[str, list[str]] = defaultdict(list)
    read = {*_READ, *(place.removeprefix(f"{files.root}/") for place in lists)}
    for name in files.names():
        if name.startswith(".") or "/." in name:
            hidden.append(name)
            folders.add(f"/{name}".partition("/.")[0].lstrip("/"))
            continue
        folder = name.rpartition("/")[0]
        folders.add(folder)
        if name.lower().endswith(VIDEO_SUFFIXES):
            videos.append(name)
        elif name.lower().endswith(IMAGE_SUFFIXES):
            images[folder].append(name)
        elif not name.endswith("/") and name not in read:
            others.append(name)
    sequences = _find_sequences(images, {name.rpartition("/")[0] for name in videos})
    if not with_root:
        sequences.discard("")
    stills = [name for folder in images.keys() - sequences for name in images[folder]]
    videos = sorted([*videos, *(f"{folder or '.'}/" for folder in sequences)])
    suffixes = Counter(PurePosixPath(name).suffix.lower() or "none" for name in others)
    counts = ", ".join(f"{suffix} {count}" for suffix, count in suffixes.most_common(5))
    remarks.leave_out(f"files without a video's suffix ({counts})", others)
    remarks.leave_out("images that are not the numbered frames of one video", stills)
    remarks.leave_out("hidden files and folders", hidden)
    for name, reason in files.left_out.items():
        remarks.leave_out(reason, [name])
    remarks.leave_out("folders without a video", _empty_folders(folders, videos))
    return videos


def _find_sequences(images: dict[str, list[str]], video_folders: set[str]) -> set[str]:
    """The folders whose images are the frames of a video: nothing else lies there or below."""
    parents = {parent for folder in images.keys() | video_folders for parent in _parents(folder)}
    return {
        folder for folder in images.keys() - video_folders - parents if order_images(images[folder])
    }


def _empty_folders(folders: set[str], videos: list[str]) -> list[str]:
    """The uppermost folders that hold no video, with `/` at their end."""
    full = {name.rpartition("/")[0] for name in videos}
    full |= {parent for folder in full for parent in _parents(folder)} | {""}
    empty = set()
    for folder in folders - full:
        path = [*reversed(_parents(folder)), folder]
        empty.add(next(parent for parent in path if parent not in full) + "/")
    return sorted(empty)


def _parents(folder: str) -> list[str]:
    """ "a/b/c" -> ["a/b", "a"]."""
    parts = folder.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]

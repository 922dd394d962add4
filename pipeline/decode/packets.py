"""Which packets of a stream must be decoded to get some of its frames exactly.

A stream is cut at the packets at which a decoder may start. Of each part only what lies up to its
last chosen picture is decoded, and of that no picture that other pictures do not refer to, unless
it is chosen itself.

`index_packets` gives None for a stream that cannot be trusted in part; it is decoded whole then.

Notes:
- H.264: only IDR pictures count as a start. A container also marks recovery points of open groups
  and of intra refresh as key packets; decoding from there may begin with other pixels.
- A start needs its headers. Those of H.264 and HEVC are known to the decoder if they are in the
  extradata; MPEG-1/2 and motion JPEG carry them in the packet. Where they change on the way, the
  stream is decoded whole.
- Leading pictures (HEVC's RASL, B-pictures of an open group in MPEG) are shown before the key
  picture that they follow in the file, and refer to the part before it: both are decoded in one go.
- Time stamps that fall from one part to the next are those of streams joined by their bytes: what
  the decoder gives out is not in their order.
- VP8 and VP9 have packets that show nothing (alternate reference frames); they are no frames.
- HEVC with temporal layers: a picture that its own layer does not refer to may be referred to by
  a higher one, so none is left out.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from . import mpeg4

_INTRA_ONLY = {"prores", "dnxhd", "huffyuv", "rawvideo", "dvvideo", "png"}
_KEY_STARTS = {  # a packet marked as key is a start, and one packet is one frame
    "vp8", "vp9", "av1", "h263", "flv1", "wmv1", "wmv2", "msmpeg4v2", "msmpeg4v3", "theora", "ffv1",
}  # fmt: skip
_MPEG_PICTURE, _MPEG_SEQUENCE, _MPEG_GROUP = b"\0\0\1\0", b"\0\0\1\xb3", b"\0\0\1\xb8"
_MPEG_I, _MPEG_B = 1, 3
_JPEG_QUANTIZATION, _JPEG_HUFFMAN, _JPEG_SCAN = b"\xff\xdb", b"\xff\xc4", b"\xff\xda"
_H264_IDR, _H264_SLICES, _H264_HEADERS = 5, (1, 5), (7, 8)
_HEVC_IRAP, _HEVC_SLICES, _HEVC_HEADERS = range(16, 22), range(32), (32, 33, 34)
_MAX_DELAYED = 16  # pictures that a decoder of H.264 or HEVC may hold back
_HEVC_LAST_NONREF = 14  # of the types below, the even ones are not referred to in their layer


class Picture(NamedTuple):
    """What the headers of a packet say. is_start: whether a decoder may start at it. is_reference:
    whether other pictures may refer to its picture; if not, it can be left out. layer: in time, 0
    is the lowest."""

    is_start: bool
    is_reference: bool = True
    layer: int = 0


@dataclass(frozen=True)
class PacketIndex:
    """The packets of a stream in decode order, and what is known of them.

    packet: gives one of them. sources: of which packet of the file each is made. times: the
    presentation time of each, in any unit. presentation: positions of the packets that show a
    frame, in presentation order; its length is the number of frames. is_start, is_reference: see
    `Picture`.
    """

    packet: Callable[[int], av.Packet]
    sources: Sequence[int]
    times: Sequence[int]
    presentation: Sequence[int]
    is_start: Sequence[bool]
    is_reference: Sequence[bool]

    @property
    def num_frames(self) -> int:
        """Frames of the video."""
        return len(self.presentation)


def index_packets(
    packets: Sequence[av.Packet], context: VideoCodecContext, format_name: str
) -> PacketIndex | None:
    """All packets of a video stream -> their index; None where the stream is to be decoded whole.

    format_name: of the container, as libavformat has it. An AVI has no presentation time stamps,
    so only streams without B-pictures are in order there.
    """
    codec = str(context.codec.canonical_name)  # whichever library decodes it (libdav1d -> av1)
    if any(
        packet.is_discard or packet.is_corrupt or packet.has_sidedata("new_extradata")
        for packet in packets
    ):
        return None
    extradata = bytes(context.extradata or b"")
    if codec == "mpeg4":
        data = [bytes(packet) for packet in packets]
        ends = np.cumsum([len(part) for part in data], dtype=np.int64)
        starts = np.append(0, ends[:-1])
        return index_mpeg4(b"".join(data), np.column_stack([starts, ends]), extradata)
    has_order = "avi" not in format_name or codec in _INTRA_ONLY or not context.has_b_frames
    times = [packet.pts for packet in packets if packet.pts is not None]
    pictures = _read_pictures(packets, codec, extradata)
    if not pictures or not pictures[0].is_start or not has_order or len(times) < len(packets):
        return None
    is_start = [picture.is_start for picture in pictures]
    shown = [at for at, packet in enumerate(packets) if _shows_frame(packet, codec)]
    presentation = sorted(shown, key=times.__getitem__)
    num_delayed = _MAX_DELAYED if context.has_b_frames else 0
    if not shown or presentation[0] != shown[0]:  # leading pictures of a part that is not there
        return None
    if not _is_in_order(times, shown, is_start, num_delayed):
        return None
    return PacketIndex(
        packet=packets.__getitem__,
        sources=range(len(packets)),
        times=times,
        presentation=presentation,
        is_start=is_start,
        is_reference=[picture.is_reference for picture in pictures],
    )


def _is_in_order(
    times: Sequence[int], shown: Sequence[int], is_start: Sequence[bool], num_delayed: int
) -> bool:
    """Whether the decoder gives the frames out in the order of their times.

    num_delayed: pictures that it holds back, to put those that come later before them.
    """
    before: list[int] = []  # the times so far, sorted
    for at in shown:
        place = bisect(before, times[at])
        num_later = len(before) - place
        is_twice = place > 0 and before[place - 1] == times[at]
        if is_twice or num_later > num_delayed or (num_later and is_start[at]):
            return False
        insort(before, times[at])
    return True


def index_mpeg4(data: bytes, spans: np.ndarray, extradata: bytes) -> PacketIndex | None:
    """As `index_packets`, of the packets of MPEG-4 part 2 in `data`: start and end, int64 [n,2].

    By the types of the pictures, for AVI knows no times, and a packet may hold two pictures.
    """
    pictures = mpeg4.find_pictures(data, spans, extradata) if len(spans) else None
    if pictures is None or not len(pictures.types):
        return None
    times = mpeg4.frame_indices(pictures.types)
    if times is None:
        return None
    starts, ends = pictures.starts.tolist(), pictures.ends.tolist()

    def make_packet(at: int) -> av.Packet:
        # By size and then filled: `Packet(bytes)` has no padding behind it, the decoder reads a
        # little past the end, and frames came out wrong now and then.
        packet = av.Packet(ends[at] - starts[at])
        packet.update(data[starts[at] : ends[at]])
        return packet

    return PacketIndex(
        packet=make_packet,
        sources=pictures.packets.tolist(),
        times=times.tolist(),
        presentation=np.argsort(times).tolist(),
        is_start=pictures.is_start.tolist(),
        is_reference=(pictures.types != mpeg4.B_VOP).tolist(),
    )


def needed_positions(index: PacketIndex, positions: set[int]) -> list[list[int]]:
    """Runs of packets to decode for those at `positions`; a decoder may start at each run's first.

    Pictures that nothing refers to are left out unless they are chosen.
    """
    starts = [at for at, is_start in enumerate(index.is_start) if is_start]
    runs: list[list[int]] = []
    for number, (start, end) in enumerate(pairwise([*starts, len(index.times)])):
        chosen = [at for at in range(start, end) if at in positions]
        if not chosen:
            continue
        has_leading = any(index.times[at] < index.times[start] for at in chosen)
        first = starts[max(0, number - 1)] if has_leading else start
        if runs and first <= runs[-1][1] + 1:
            first = runs.pop()[0]
        runs.append([first, chosen[-1]])
    return [
        [at for at in range(first, last + 1) if index.is_reference[at] or at in positions]
        for first, last in runs
    ]


def decode_frames(
    index: PacketIndex, context: VideoCodecContext, frame_indices: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode what those frames need; -> (frame index, frame) of each.

    Ends early where that cannot be trusted: a run begins with no key frame, whatever its packets
    say; frames come out in another order than that of their times; or a frame is damaged, for what
    FFmpeg conceals that with depends on the frames before. Raises av.FFmpegError for a packet that
    does not decode.
    """
    positions = {index.presentation[number]: number for number in frame_indices}
    by_time: dict[int | None, int] = {index.times[at]: positions[at] for at in positions}
    for run in needed_positions(index, set(positions)):
        context.flush_buffers()
        start_time, last_time = index.times[run[0]], None
        for at in [*run, None]:  # None: the decoder gives out its last frames
            packet = None
            if at is not None:
                packet = index.packet(at)
                packet.pts = index.times[at]  # comes back with the frame
            for frame in context.decode(packet):
                time = frame.pts
                is_late = time is None or (last_time is not None and time <= last_time)
                if is_late or frame.is_corrupt or (time == start_time and not frame.key_frame):
                    return
                last_time = time
                if time in by_time:
                    yield by_time[time], frame


def _shows_frame(packet: av.Packet, codec: str) -> bool:
    if codec not in ("vp8", "vp9"):
        return True
    data = memoryview(packet)
    if codec == "vp8":
        return bool(data[0] >> 4 & 1)
    is_superframe, is_profile_3 = data[-1] & 0xE0 == 0xC0, data[0] & 0x30 == 0x30
    return is_superframe or is_profile_3 or bool(data[0] & 8 or data[0] & 2)  # 8: one shown again


def _read_pictures(
    packets: Sequence[av.Packet], codec: str, extradata: bytes
) -> list[Picture] | None:
    """What each packet's headers say; None where they are not those of a stream that is known."""
    if codec in _INTRA_ONLY:
        return [Picture(is_start=True)] * len(packets)
    if codec in _KEY_STARTS:
        return [Picture(packet.is_keyframe) for packet in packets]
    if codec == "mjpeg":
        tables = {_jpeg_tables(bytes(packet)) for packet in packets}
        has_tables = len(tables) == 1 and all(has_quantization for has_quantization, _ in tables)
        return [Picture(is_start=True)] * len(packets) if has_tables else None
    read: Callable[[bytes, bytes], Picture | None]
    if codec in ("mpeg1video", "mpeg2video"):
        read = _read_mpeg
        if len({_mpeg_headers(bytes(packet)) for packet in packets} - {b""}) != 1:
            return None  # where the size changes, a plain decode loses a frame
    elif codec in ("h264", "hevc"):
        read = _read_h264 if codec == "h264" else _read_hevc
    else:
        return None
    pictures = []
    for packet in packets:
        picture = read(bytes(packet), extradata)
        if picture is None:
            return None
        pictures.append(picture)
    if any(picture.layer for picture in pictures):
        return [Picture(picture.is_start) for picture in pictures]
    return pictures


def _jpeg_tables(data: bytes) -> tuple[bool, bool]:
    """Whether a JPEG has tables of its own, for quantization and for Huffman codes."""
    header = data[: data.find(_JPEG_SCAN)]
    return _JPEG_QUANTIZATION in header, _JPEG_HUFFMAN in header


def _read_mpeg(data: bytes, extradata: bytes) -> Picture | None:
    """MPEG-1/2: a start has a sequence header."""
    at = data.find(_MPEG_PICTURE)
    if not 0 <= at < len(data) - 5:
        return None
    kind = data[at + 5] >> 3 & 7  # ISO 13818-2, 6.2.3: after 10 bits
    return Picture(kind == _MPEG_I and _MPEG_SEQUENCE in data[:at], kind != _MPEG_B)


def _mpeg_headers(data: bytes) -> bytes:
    """The sequence header of a packet, with its extensions; b"" where it has none."""
    start = data.find(_MPEG_SEQUENCE)
    header = data[start : data.find(_MPEG_PICTURE)].partition(_MPEG_GROUP)[0]
    return header if start >= 0 else b""


def _read_h264(data: bytes, extradata: bytes) -> Picture | None:
    for start, end in _units(data, extradata, 4):
        kind = data[start] & 31
        if kind in _H264_SLICES:
            return Picture(kind == _H264_IDR, bool(data[start] & 0x60))
        if kind in _H264_HEADERS and data[start:end].rstrip(b"\0") not in extradata:
            return None
    return None


def _read_hevc(data: bytes, extradata: bytes) -> Picture | None:
    for start, end in _units(data, extradata, 21):
        kind = data[start] >> 1 & 63
        if kind in _HEVC_SLICES:
            is_reference = kind > _HEVC_LAST_NONREF or bool(kind & 1)
            return Picture(kind in _HEVC_IRAP, is_reference, (data[start + 1] & 7) - 1)
        if kind in _HEVC_HEADERS and data[start:end].rstrip(b"\0") not in extradata:
            return None
    return None


def _units(data: bytes, extradata: bytes, length_at: int) -> Iterator[tuple[int, int]]:
    """Start and end of the NAL units of a packet: behind lengths (mp4, mkv), whose size stands at
    `length_at` of the extradata, or between start codes (ts)."""
    if extradata[:1] == b"\1":
        size, at = (extradata[length_at] & 3) + 1, 0
        while at + size + 1 < len(data):
            end = at + size + int.from_bytes(data[at : at + size], "big")
            yield at + size, end
            at = end
        return
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 4:
        end = data.find(b"\0\0\1", at + 3)
        yield at + 3, end if end >= 0 else len(data)
        at = end

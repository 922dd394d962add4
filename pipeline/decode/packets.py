"""Which packets of a stream must be decoded to get some of its frames exactly.

A stream is cut at the packets at which a decoder may start. Of each part only what lies up to its
last chosen picture is decoded, and of that no picture that other pictures do not refer to, unless
it is chosen itself.

`index_packets` gives None for a stream that cannot be trusted in part; it is decoded whole then.

Notes:
- H.264: only IDR pictures count as a start. A container also marks recovery points of open groups
  and of intra refresh as key packets; decoding from there may begin with other pixels.
- Leading pictures (HEVC's RASL, B-pictures of an open group in MPEG) are shown before the key
  picture that they follow in the file, and refer to the part before it: both are decoded in one go.
- VP8 has packets that show nothing (alternate reference frames); they are no frames.
- HEVC with temporal layers: a picture that its own layer does not refer to may be referred to by
  a higher one, so none is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import av
from av.video.codeccontext import VideoCodecContext

from . import mpeg4

_INTRA_ONLY = {"mjpeg", "prores", "dnxhd", "huffyuv", "rawvideo", "dvvideo", "png"}
_KEY_STARTS = {  # a packet marked as key is a start, and one packet is one frame
    "vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "h263", "flv1", "wmv1", "wmv2",
    "msmpeg4v2", "msmpeg4v3", "theora", "ffv1",
}  # fmt: skip
_NAL_CODECS = {"h264", "hevc"}
_H264_IDR, _H264_SLICES = 5, (1, 5)
_HEVC_IRAP, _HEVC_SLICES = range(16, 22), range(32)
_HEVC_LAST_NONREF = 14  # of the types below, the even ones are not referred to in their layer


@dataclass(frozen=True)
class PacketIndex:
    """The packets of a stream in decode order, and what is known of them.

    presentation: positions of the packets that show a frame, in presentation order; its length is
    the number of frames. starts: for each packet, whether a decoder may start at it.
    is_reference: whether other pictures may refer to its picture; if not, it can be left out.
    """

    packets: Sequence[av.Packet]
    presentation: Sequence[int]
    starts: Sequence[bool]
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
    codec = _codec_name(context)
    if any(packet.is_discard or packet.is_corrupt for packet in packets):
        return None
    if codec == "mpeg4":
        return _index_mpeg4(packets, bytes(context.extradata or b""))
    if codec not in _INTRA_ONLY | _KEY_STARTS | _NAL_CODECS or not packets:
        return None
    if "avi" in format_name and codec not in _INTRA_ONLY and context.has_b_frames:
        return None
    if any(packet.pts is None for packet in packets):
        return None
    shown = [at for at, packet in enumerate(packets) if codec != "vp8" or _shows_vp8(packet)]
    presentation = sorted(shown, key=lambda at: packets[at].pts or 0)
    times = {packets[at].pts for at in shown}
    if len(times) < len(shown) or not presentation or presentation[0] != shown[0]:
        return None  # two frames at one time, or leading pictures of a part that is not there
    if codec in _NAL_CODECS:
        units = [_first_slice(packet, context, codec) for packet in packets]
        if None in units:
            return None
        slices = [unit for unit in units if unit is not None]
        starts = [unit.is_start for unit in slices]
        has_layers = any(unit.layer for unit in slices)
        is_reference = [unit.is_reference or has_layers for unit in slices]
    else:
        starts = [codec in _INTRA_ONLY or packet.is_keyframe for packet in packets]
        is_reference = [True] * len(packets)
    return PacketIndex(packets, presentation, starts, is_reference) if starts[0] else None


def _index_mpeg4(packets: Sequence[av.Packet], extradata: bytes) -> PacketIndex | None:
    """By the types of the pictures: AVI knows no times, and a packet may hold two pictures."""
    pictures = mpeg4.split_pictures(packets, extradata)
    indices = mpeg4.frame_indices([kind for _, kind in pictures or ()])
    if not pictures or indices is None:
        return None
    for (packet, _), index in zip(pictures, indices, strict=True):
        packet.pts = index  # comes back with the frame
    presentation = sorted(range(len(indices)), key=indices.__getitem__)
    starts = [kind == mpeg4.I_VOP for _, kind in pictures]
    is_reference = [kind != mpeg4.B_VOP for _, kind in pictures]
    return PacketIndex([packet for packet, _ in pictures], presentation, starts, is_reference)


def needed_positions(index: PacketIndex, positions: set[int]) -> list[list[int]]:
    """Runs of packets to decode for those at `positions`; a decoder may start at each run's first.

    Pictures that nothing refers to are left out unless they are chosen.
    """
    starts = [at for at, is_start in enumerate(index.starts) if is_start]
    runs: list[list[int]] = []
    for number, (start, end) in enumerate(pairwise([*starts, len(index.packets)])):
        chosen = [at for at in range(start, end) if at in positions]
        if not chosen:
            continue
        has_leading = any(_time(index, at) < _time(index, start) for at in chosen)
        first = starts[max(0, number - 1)] if has_leading else start
        if runs and first <= runs[-1][1] + 1:
            first = runs.pop()[0]
        runs.append([first, chosen[-1]])
    return [
        [at for at in range(first, last + 1) if index.is_reference[at] or at in positions]
        for first, last in runs
    ]


def decode_positions(
    index: PacketIndex, context: VideoCodecContext, positions: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode what the packets at `positions` need; -> (position, frame), -1 for other frames.

    Raises av.FFmpegError for a packet that does not decode.
    """
    by_time: dict[int | None, int] = {index.packets[at].pts: at for at in positions}
    for run in needed_positions(index, positions):
        context.flush_buffers()
        for at in [*run, None]:  # None: the decoder gives out its last frames
            for frame in context.decode(None if at is None else index.packets[at]):
                yield by_time.get(frame.pts, -1), frame


def _time(index: PacketIndex, at: int) -> int:
    time = index.packets[at].pts
    assert time is not None  # `index_packets` refuses those
    return time


def _codec_name(context: VideoCodecContext) -> str:
    """The codec, whichever library decodes it (libdav1d -> av1)."""
    return str(context.codec.canonical_name)


def _shows_vp8(packet: av.Packet) -> bool:
    return bool(bytes(packet)[0] >> 4 & 1)


class _Slice(NamedTuple):
    is_start: bool
    is_reference: bool
    layer: int


def _first_slice(packet: av.Packet, context: VideoCodecContext, codec: str) -> _Slice | None:
    """What the header of a packet's first slice says; None for a packet without one."""
    data = bytes(packet)
    for start in _unit_starts(data, bytes(context.extradata or b""), codec):
        if codec == "h264":
            kind = data[start] & 31
            if kind in _H264_SLICES:
                return _Slice(kind == _H264_IDR, bool(data[start] & 0x60), 0)
            continue
        kind = data[start] >> 1 & 63
        if kind in _HEVC_SLICES:
            is_reference = kind > _HEVC_LAST_NONREF or bool(kind & 1)
            return _Slice(kind in _HEVC_IRAP, is_reference, (data[start + 1] & 7) - 1)
    return None


def _unit_starts(data: bytes, extradata: bytes, codec: str) -> Iterator[int]:
    """Where the NAL units of a packet begin: after lengths (mp4, mkv) or start codes (ts)."""
    if extradata[:1] == b"\1":
        size = (extradata[4 if codec == "h264" else 21] & 3) + 1
        at = 0
        while at + size + 1 < len(data):
            length = int.from_bytes(data[at : at + size], "big")
            yield at + size
            at += size + length
        return
    at = data.find(b"\0\0\1")
    while 0 <= at < len(data) - 4:
        yield at + 3
        at = data.find(b"\0\0\1", at + 3)

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

import av
from av.video.codeccontext import VideoCodecContext

_INTRA_ONLY = {"mjpeg", "prores", "dnxhd", "huffyuv", "rawvideo", "dvvideo", "png"}
_KEY_STARTS = {  # a packet marked as key is a start, and one packet is one frame
    "vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4", "h263", "flv1", "wmv1", "wmv2",
    "msmpeg4v2", "msmpeg4v3", "theora", "ffv1",
}  # fmt: skip
_NAL_CODECS = {"h264", "hevc"}
_SKIPS_NONREF = {"h264", "hevc", "vp8"}
_H264_IDR, _H264_SLICES = 5, (1, 5)
_HEVC_IRAP, _HEVC_SLICES = range(16, 22), range(32)


@dataclass(frozen=True)
class PacketIndex:
    """The packets of a stream in decode order, and what is known of them.

    presentation: positions of the packets that show a frame, in presentation order; its length is
    the number of frames. starts: for each packet, whether a decoder may start at it. can_skip:
    whether pictures that nothing refers to can be left out.
    """

    packets: Sequence[av.Packet]
    presentation: Sequence[int]
    starts: Sequence[bool]
    can_skip: bool

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
    if codec not in _INTRA_ONLY | _KEY_STARTS | _NAL_CODECS or not packets:
        return None
    if "avi" in format_name and codec not in _INTRA_ONLY and context.has_b_frames:
        return None
    if any(packet.pts is None or packet.is_discard or packet.is_corrupt for packet in packets):
        return None
    shown = [at for at, packet in enumerate(packets) if codec != "vp8" or _shows_vp8(packet)]
    presentation = sorted(shown, key=lambda at: packets[at].pts or 0)
    times = {packets[at].pts for at in shown}
    if len(times) < len(shown) or not presentation or presentation[0] != shown[0]:
        return None  # two frames at one time, or leading pictures of a part that is not there
    can_skip = codec in _SKIPS_NONREF
    if codec in _NAL_CODECS:
        units = [list(_slice_types(packet, context, codec)) for packet in packets]
        if not all(units):
            return None
        starts = [_is_start(types, codec) for types in units]
        can_skip = can_skip and all(layer == 0 for types in units for _, layer in types)
    else:
        starts = [codec in _INTRA_ONLY or packet.is_keyframe for packet in packets]
    return PacketIndex(packets, presentation, starts, can_skip) if starts[0] else None


def needed_runs(index: PacketIndex, positions: set[int]) -> list[tuple[int, int]]:
    """Runs (first, last) of packets to decode for those at `positions`, each from a start."""
    starts = [at for at, is_start in enumerate(index.starts) if is_start]
    runs: list[tuple[int, int]] = []
    for number, (start, end) in enumerate(
        zip(starts, [*starts[1:], len(index.packets)], strict=True)
    ):
        chosen = [at for at in range(start, end) if at in positions]
        if not chosen:
            continue
        has_leading = any(_time(index, at) < _time(index, start) for at in chosen)
        first = starts[max(0, number - 1)] if has_leading else start
        if runs and first <= runs[-1][1] + 1:
            first = runs.pop()[0]
        runs.append((first, chosen[-1]))
    return runs


def decode_positions(
    index: PacketIndex, context: VideoCodecContext, positions: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Decode what the packets at `positions` need; -> (position, frame), -1 for other frames.

    Raises av.FFmpegError for a packet that does not decode.
    """
    by_time = {_time(index, at): at for at in positions}
    for first, last in needed_runs(index, positions):
        context.flush_buffers()
        for at in [*range(first, last + 1), None]:  # None: the decoder gives out its last frames
            if index.can_skip and at is not None:
                context.skip_frame = "DEFAULT" if at in positions else "NONREF"
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


def _is_start(types: list[tuple[int, int]], codec: str) -> bool:
    first = types[0][0]
    return first == _H264_IDR if codec == "h264" else first in _HEVC_IRAP


def _slice_types(
    packet: av.Packet, context: VideoCodecContext, codec: str
) -> Iterator[tuple[int, int]]:
    """(type, temporal layer) of each slice in a packet; H.264's layer is 0."""
    data = bytes(packet)
    for start in _unit_starts(data, bytes(context.extradata or b""), codec):
        kind = data[start] & 31 if codec == "h264" else data[start] >> 1 & 63
        if kind in (_H264_SLICES if codec == "h264" else _HEVC_SLICES):
            yield kind, 0 if codec == "h264" else (data[start + 1] & 7) - 1


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

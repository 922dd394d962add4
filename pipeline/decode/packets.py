"""Which packets of a stream must be decoded to get some of its frames exactly.

A stream is cut at the packets at which a decoder may start. Of each part only what lies up to its
last chosen picture is decoded, and of that no picture that other pictures do not refer to, unless
it is chosen itself.

`index_packets` gives None for a stream that cannot be trusted in part; it is decoded whole then.

Notes:
- A start needs its headers. Those of H.264 and HEVC are known to the decoder if they are in the
  extradata; MPEG-1/2 and motion JPEG carry them in the packet. Where they change on the way, the
  stream is decoded whole.
- Leading pictures (HEVC's RASL, B-pictures of an open group in MPEG) are shown before the key
  picture that they follow in the file, and refer to the part before it: both are decoded in one go.
- Time stamps that fall from one part to the next are those of streams joined by their bytes: what
  the decoder gives out is not in their order.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from . import mpeg4
from .headers import INTRA_ONLY, read_pictures, shows_frame

_MAX_DELAYED = 16  # pictures that a decoder of H.264 or HEVC may hold back


@dataclass(frozen=True)
class PacketIndex:
    """The packets of a stream in decode order, and what is known of them.

    packet: gives one of them. sources: of which packet of the file each is made. times: the
    presentation time of each, in any unit. presentation: positions of the packets that show a
    frame, in presentation order; its length is the number of frames. is_start, is_reference: see
    `headers.Picture`.
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
    if not packets or any(packet.is_discard or packet.is_corrupt for packet in packets):
        return None
    side_data = {data.data_type for packet in packets for data in packet.iter_sidedata()}
    if side_data & {"new_extradata", "palette"}:  # a palette holds for the packets behind as well
        return None
    extradata = bytes(context.extradata or b"")
    if codec == "mpeg4":
        data = [bytes(packet) for packet in packets]
        ends = np.cumsum([len(part) for part in data], dtype=np.int64)
        starts = np.append(0, ends[:-1])
        return index_mpeg4(b"".join(data), np.column_stack([starts, ends]), extradata)
    has_order = "avi" not in format_name or codec in INTRA_ONLY or not context.has_b_frames
    times = [packet.pts for packet in packets if packet.pts is not None]
    pictures = read_pictures(packets, codec, extradata)
    if not pictures or not pictures[0].is_start or not has_order or len(times) < len(packets):
        return None
    is_start = [picture.is_start for picture in pictures]
    shown = [at for at, packet in enumerate(packets) if shows_frame(packet, codec)]
    presentation = sorted(shown, key=times.__getitem__)
    num_delayed = _MAX_DELAYED if context.has_b_frames else 0
    if not shown or presentation[0] != shown[0]:  # leading pictures of a part that is not there
        return None
    if not _is_in_order(times, shown, is_start, num_delayed):
        return None
    is_reference = [picture.is_reference for picture in pictures]
    if codec in ("mpeg1video", "mpeg2video"):  # these decoders go by the types, not by the times
        types = np.where(is_reference, mpeg4.I_VOP, mpeg4.B_VOP)
        indices = mpeg4.frame_indices(types)
        if indices is None or np.argsort(indices).tolist() != presentation:
            return None
    return PacketIndex(
        packet=packets.__getitem__,
        sources=range(len(packets)),
        times=times,
        presentation=presentation,
        is_start=is_start,
        is_reference=is_reference,
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
    view: Any = memoryview(data)

    def make_packet(at: int) -> av.Packet:
        # By size and then filled: `Packet(bytes)` has no padding behind it, the decoder reads a
        # little past the end, and frames came out wrong now and then.
        start, end = starts[at], ends[at]
        packet = av.Packet(end - start)
        packet.update(view[start:end])
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
    runs: list[tuple[int, int]] = []
    for at in sorted(positions):
        number = bisect(starts, at) - 1
        is_leading = index.times[at] < index.times[starts[number]]
        first = starts[max(0, number - is_leading)]
        while runs and first <= runs[-1][1] + 1:
            first = min(first, runs.pop()[0])
        runs.append((first, at))
    is_reference = index.is_reference
    return [
        [at for at in range(first, last + 1) if is_reference[at] or at in positions]
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
    times, make_packet, decode = index.times, index.packet, context.decode
    by_time: dict[int | None, int] = {times[at]: positions[at] for at in positions}
    for run in needed_positions(index, set(positions)):
        context.flush_buffers()
        start_time, last_time = times[run[0]], None
        for at in [*run, None]:  # None: the decoder gives out its last frames
            packet = None
            if at is not None:
                packet = make_packet(at)
                packet.pts = times[at]  # comes back with the frame
            for frame in decode(packet):
                time = frame.pts
                is_late = time is None or (last_time is not None and time <= last_time)
                if is_late or frame.is_corrupt or (time == start_time and not frame.key_frame):
                    return
                last_time = time
                if time in by_time:
                    yield by_time[time], frame

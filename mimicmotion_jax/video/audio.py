"""Carry the sound of one file into another while that one is being written: copied where MP4 takes it as it is."""

import itertools
import logging
from collections.abc import Iterator
from fractions import Fraction

import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.packet import Packet

from mimicmotion_jax.video.ffmpeg import time_base_of

logger = logging.getLogger(__name__)

# What every browser plays inside an MP4; anything else is re-encoded to AAC.
_COPIED = frozenset({"aac", "mp3"})
_AAC_BITS_PER_SECOND = 192_000


class AudioTrack:
    """The sound of `source` from `start` on, muxed into `output` up to the end of the pictures written so far.

    Copied packets keep their times to the tick (what precedes `start` is hidden by MP4's edit list), so the sound stays
    in step with the picture; at the end at most one packet (about 20 ms) is missing, none is too many.
    """

    def __init__(self, output: OutputContainer, source: InputContainer, start: float | Fraction):
        """Add a sound stream to `output`, whose header is not written yet; `source` must hold sound."""
        self._output = output
        stream = source.streams.audio[0]
        start_at = Fraction(start).limit_denominator(1_000_000) + _origin(source)
        if stream.codec_context.codec.canonical_name in _COPIED:
            into = output.add_stream_from_template(stream)
            self._packets = _copied(source, stream, into, start_at)
        else:
            rate = stream.rate if stream.rate in (Codec("aac", "w").audio_rates or ()) else 48_000
            into = output.add_stream("aac", rate=rate, bit_rate=_AAC_BITS_PER_SECOND)
            into.layout = "mono" if stream.channels == 1 else "stereo"
            self._packets = _encoded(source, stream, into, start_at)
        self._next: Packet | None = None

    def write_until(self, seconds: Fraction) -> None:
        """Mux every packet that ends by `seconds` (of the output's time)."""
        while True:
            if self._next is None:
                self._next = self._read()
            packet = self._next
            if packet is None or ((packet.pts or 0) + (packet.duration or 0)) * time_base_of(packet) > seconds:
                return
            self._next = None
            self._output.mux(packet)

    def _read(self) -> Packet | None:
        try:
            return next(self._packets, None)
        except av.error.FFmpegError as error:
            # The pictures may have taken hours; losing the rest of the sound is better than losing them.
            logger.warning("The sound ends early, its source cannot be read further: %s.", error.strerror)
            return None


def has_sound(container: InputContainer) -> bool:
    """Return True if the file holds sound that can be decoded."""
    return bool(container.streams.audio) and container.streams.audio[0].codec_context is not None


def _origin(source: InputContainer) -> Fraction:
    """Second at which the first picture is shown, or the sound starts where there is no picture."""
    stream = (*source.streams.video, source.streams.audio[0])[0]
    return (stream.start_time or 0) * time_base_of(stream)


def _copied(source: InputContainer, stream: AudioStream, into: AudioStream, start_at: Fraction) -> Iterator[Packet]:
    offset = round(start_at / time_base_of(stream))
    for packet in source.demux(stream):
        if not packet.size or packet.is_corrupt or packet.pts is None:
            continue
        # One packet before the first that is heard lets the decoder settle.
        if packet.pts + 2 * (packet.duration or 0) <= offset:
            continue
        packet.pts = packet.dts = packet.pts - offset
        packet.stream = into
        yield packet


def _encoded(source: InputContainer, stream: AudioStream, into: AudioStream, start_at: Fraction) -> Iterator[Packet]:
    graph = Graph()
    graph.link_nodes(
        graph.add_abuffer(template=stream),
        graph.add("atrim", f"start={float(start_at)}"),
        graph.add("asetpts", f"PTS-{float(start_at)}/TB"),
        # By the time stamps: silence where the source has a gap or starts later, overlaps dropped.
        graph.add("aresample", "async=1:first_pts=0"),
        graph.add("aformat", f"sample_fmts=fltp:sample_rates={into.rate}:channel_layouts={into.layout.name}"),
        graph.add("abuffersink"),
    ).configure()
    for frame in itertools.chain(source.decode(stream), [None]):
        graph.push(frame)
        for filtered in _pulled(graph):
            yield from into.encode(filtered)
    yield from into.encode(None)


def _pulled(graph: Graph) -> Iterator[AudioFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            # It wants more input, or has given all.
            return
        if isinstance(frame, AudioFrame):
            yield frame

"""Carry the sound of one file into another while that one is being written: copied where MP4 takes it as it is."""

import io
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Disposition

from mimicmotion_jax.runtime.assumptions import assume
from mimicmotion_jax.video.ffmpeg import first_picture, open_container, time_base_of

logger = logging.getLogger(__name__)

# What every browser plays inside an MP4; anything else is re-encoded to AAC.
_COPIED = frozenset({"aac", "mp3"})
_AAC_BITS_PER_SECOND = 192_000

# Packets that are tried out: more than an encoder holds back.
_TRIAL_PACKETS = 50


@dataclass(frozen=True)
class Sound:
    """A file's sound, tried out: made by `find_sound`."""

    path: Path
    stream: int
    """Index among the file's streams."""
    copied: bool
    """MP4 takes its packets as they are; otherwise they are encoded anew."""
    origin: Fraction
    """Second of the file at which its first whole picture is shown, or the sound starts where there is no picture."""


def find_sound(path: Path) -> Sound | None:
    """Find out how a file's sound can be carried over, by muxing its beginning into an MP4 in memory.

    Returns:
        The sound; None where there is none, or none that can be decoded, which is logged.

    Raises:
        InputError: no media file.
    """
    with open_container(path) as container:
        # (Phones write spatial sound, which only they can decode, beside the stereo one.)
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not container.streams.audio:
            return None
        pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        timed = (*pictures, *streams)
        origin = (timed[0].start_time or 0) * time_base_of(timed[0]) if timed else Fraction(0)
        # AVI has no presentation times, only FFmpeg's guesses.
        first = first_picture(path) if pictures and container.format.name != "avi" else None
        if first is not None and first.pts is not None:
            origin = first.pts * time_base_of(pictures[0])
        tried = [
            (stream.index, copied)
            for stream in streams
            for copied in ((True, False) if stream.codec_context.codec.canonical_name in _COPIED else (False,))
        ]
    for index, copied in tried:
        sound = Sound(path, index, copied, origin)
        if _works(sound):
            return sound
    assume(f"the sound of {path} cannot be decoded: the result has none.")
    return None


def _works(sound: Sound) -> bool:
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as output:
            return AudioTrack(output, sound).write_first(_TRIAL_PACKETS)
    except (av.error.FFmpegError, ValueError):
        return False


class AudioTrack:
    """A file's sound from `start` on, muxed into `output` up to the end of the pictures written so far.

    Copied packets keep their times to the tick (what precedes `start` is hidden by MP4's edit list), so the sound stays
    in step with the picture; at the end at most one packet (about 20 ms) is missing, none is too many.
    """

    def __init__(self, output: OutputContainer, sound: Sound, start: float | Fraction = 0):
        """Add a sound stream to `output`, whose header is not written yet; `start`: seconds after the first picture."""
        self._output = output
        self._source = open_container(sound.path)
        stream = cast(AudioStream, self._source.streams[sound.stream])
        start_at = Fraction(start).limit_denominator(1_000_000) + sound.origin
        if sound.copied:
            self._packets = _copied(self._source, stream, output.add_stream_from_template(stream), start_at)
        else:
            frames = _decoded(self._source, stream)
            first = next(frames, None)
            rates = Codec("aac", "w").audio_rates or ()
            rate = first.sample_rate if first is not None and first.sample_rate in rates else 48_000
            into = output.add_stream("aac", rate=rate, bit_rate=_AAC_BITS_PER_SECOND)
            into.layout = "mono" if first is not None and first.layout.nb_channels == 1 else "stereo"
            self._packets = _encoded(itertools.chain(() if first is None else [first], frames), into, start_at)
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

    def write_first(self, count: int) -> bool:
        """Mux `count` packets and close the source; False if there are none, errors are raised."""
        with self._source:
            packets = list(itertools.islice(self._packets, count))
            self._output.mux(packets)
        return bool(packets)

    def close(self) -> None:
        """Let go of the source."""
        self._source.close()

    def _read(self) -> Packet | None:
        try:
            return next(self._packets, None)
        except av.error.FFmpegError as error:
            # The pictures may have taken hours; losing the rest of the sound is better than losing them.
            logger.warning("The sound ends early, its source cannot be read further: %s.", error.strerror)
            return None


def _copied(source: InputContainer, stream: AudioStream, into: AudioStream, start_at: Fraction) -> Iterator[Packet]:
    offset, last = round(start_at / time_base_of(stream)), None
    for packet in source.demux(stream):
        if not packet.size or packet.is_corrupt or packet.pts is None:
            continue
        # One packet before the first that is heard lets the decoder settle.
        if packet.pts + 2 * (packet.duration or 0) <= offset:
            continue
        packet.pts = packet.dts = packet.pts - offset
        # MP4 takes no packet twice at one time, as where two recordings were joined.
        if last is not None and packet.pts <= last:
            continue
        last = packet.pts
        packet.stream = into
        yield packet


def _decoded(source: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Decode the sound; what a cut left of a packet at the beginning is passed over."""
    started = False
    for packet in source.demux(stream):
        try:
            for frame in packet.decode():
                started = True
                yield frame
        except av.error.FFmpegError:
            if started:
                raise


def _encoded(frames: Iterator[AudioFrame], into: AudioStream, start_at: Fraction) -> Iterator[Packet]:
    end = 0
    # Broadcasts change between stereo and surround.
    for _, alike in itertools.groupby(frames, lambda frame: (frame.sample_rate, frame.format.name, frame.layout.name)):
        first = next(alike)
        graph = _resampler(first, into, start_at, end)
        for frame in itertools.chain([first], alike, [None]):
            graph.push(frame)
            for filtered in _pulled(graph):
                end = (filtered.pts or 0) + filtered.samples
                yield from into.encode(filtered)
    yield from into.encode(None)


def _resampler(first: AudioFrame, into: AudioStream, start_at: Fraction, end: int) -> Graph:
    """Make a filter from frames like `first` to what `into` takes, which begins at sample `end`."""
    graph = Graph()
    channels = first.layout.nb_channels
    graph.link_nodes(
        graph.add_abuffer(
            sample_rate=first.sample_rate, format=first.format, layout=first.layout, time_base=first.time_base
        ),
        graph.add("atrim", f"start={float(start_at)}"),
        graph.add("asetpts", f"PTS-{float(start_at)}/TB"),
        # More channels than any loudspeakers have, and those of spheres, have no rule for stereo: the first two.
        *([graph.add("pan", "stereo|c0=c0|c1=c1")] if channels > 8 or "ambisonic" in first.layout.name else []),
        # By the time stamps: silence where the source has a gap or starts later, overlaps dropped.
        graph.add("aresample", f"async=1:first_pts={end}"),
        graph.add("aformat", f"sample_fmts=fltp:sample_rates={into.rate}:channel_layouts={into.layout.name}"),
        graph.add("abuffersink"),
    ).configure()
    return graph


def _pulled(graph: Graph) -> Iterator[AudioFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            # It wants more input, or has given all.
            return
        if isinstance(frame, AudioFrame):
            yield frame

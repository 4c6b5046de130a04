"""Sound carried over: in step with the picture to the millisecond, copied where it can be, never longer than it."""

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_clips import click_track, ramp, write_clip

from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

RATE = Fraction(30000, 1001)
NUM_FRAMES = 90
SECONDS = 6


def carry(path: Path, source: Path, start: float = 0.0) -> Path:
    with open_writer(path, RATE, 64, 64, audio_from=source, audio_start=start) as writer:
        writer.write(ramp(NUM_FRAMES % 70, 64, 64))
        writer.write(ramp(70, 64, 64))
    return path


def sound_of(path: Path) -> tuple[np.ndarray, int]:
    """The samples on the clock of the file, from 0 on, and their rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        samples = np.zeros(20 * stream.rate, np.float32)
        end = 0
        for frame in container.decode(stream):
            block = frame.to_ndarray().astype(np.float32).mean(0)
            begin = round(float(frame.pts * frame.time_base) * stream.rate)
            block = block[max(0, -begin) :]
            end = max(begin, 0) + len(block)
            samples[max(begin, 0) : end] = block
        return samples[:end], stream.rate


def clicks(samples: np.ndarray, rate: int) -> np.ndarray:
    """Seconds at which tones set in."""
    loud = np.flatnonzero(np.abs(samples) > 0.2)
    return loud[np.diff(loud, prepend=-rate) > rate // 5] / rate


@pytest.mark.parametrize(
    ("codec", "container", "kept"),
    [
        ("aac", "mp4", "aac"),
        ("libmp3lame", "mp4", "mp3"),
        ("libopus", "matroska", "aac"),
        ("pcm_s16le", "mov", "aac"),
        ("aac", "mpegts", "aac"),
    ],
)
def test_sound_stays_in_step(tmp_path, codec, container, kept):
    source = write_clip(
        tmp_path / "source",
        ramp(25 * SECONDS, 64, 64),
        container=container,
        sound=click_track(SECONDS, 48_000),
        sound_codec=codec,
    )
    for start in (0.0, 0.73, 2.0):
        path = carry(tmp_path / "a.mp4", source, start)
        with av.open(str(path)) as output:
            assert output.streams.audio[0].codec_context.codec.canonical_name == kept
        samples, rate = sound_of(path)
        duration = NUM_FRAMES / RATE
        expected = np.arange(SECONDS) + 0.5 - start
        expected = expected[(expected > 0) & (expected < float(duration) - 0.05)]
        found = clicks(samples, rate)
        assert len(found) == len(expected) >= 3
        assert np.abs(found - expected).max() < 0.002
        # Never beyond the picture, and at most a packet short of it.
        assert 0 <= float(duration) - len(samples) / rate < 0.05
        assert open_video(path).num_frames == NUM_FRAMES


@pytest.mark.parametrize("start", [0.73, 1.29])
def test_sound_and_frames_share_one_clock(tmp_path, start):
    """A flash and a click at 2.5 s stay together from whichever frame on; at 12 fps that is not `start` itself."""
    frames = ramp(12 * SECONDS, 64, 64) // 4
    frames[30] = 255
    source = write_clip(tmp_path / "source.mp4", frames, rate=12, sound=click_track(SECONDS, 48_000))
    reader = open_video(source)
    first = round(start * reader.rate)
    assert abs(first / 12 - start) > 0.015
    with open_writer(
        tmp_path / "a.mp4", reader.rate, 64, 64, audio_from=source, audio_start=first / reader.rate
    ) as out:
        for frame in reader.frames(start=first):
            out.write(frame)
    flash = np.argmax([frame.mean() for frame in open_video(tmp_path / "a.mp4").frames()]) / 12
    found = clicks(*sound_of(tmp_path / "a.mp4"))
    assert np.abs(found - flash).min() < 0.002


def test_copied_packets_are_the_same_bytes(tmp_path):
    source = write_clip(tmp_path / "source.mp4", ramp(100, 64, 64), sound=click_track(4, 44_100), sample_rate=44_100)
    path = carry(tmp_path / "a.mp4", source)
    packets = []
    for file in (source, path):
        with av.open(str(file)) as container:
            packets.append([bytes(packet) for packet in container.demux(audio=0) if packet.size])
    assert len(packets[1]) > 120
    assert packets[1] == packets[0][: len(packets[1])]


@pytest.mark.parametrize(
    ("codec", "container", "name"), [("libmp3lame", "mp3", "a.mp3"), ("pcm_s16le", "wav", "a.wav")]
)
def test_sound_without_picture(tmp_path, codec, container, name):
    source = write_clip(tmp_path / name, container=container, sound=click_track(4, 48_000), sound_codec=codec)
    samples, rate = sound_of(carry(tmp_path / "a.mp4", source, 1.0))
    np.testing.assert_allclose(clicks(samples, rate), [0.5, 1.5, 2.5], atol=0.002)


def test_sound_interleaves_with_picture(tmp_path):
    """A player must not have to read the whole file to hear the first second."""
    source = write_clip(tmp_path / "source.mp4", ramp(150, 64, 64), sound=click_track(SECONDS, 48_000))
    with av.open(str(carry(tmp_path / "a.mp4", source))) as container:
        positions = {"audio": [], "video": []}
        for packet in container.demux():
            if packet.size:
                positions[packet.stream.type].append(packet.pos)
    assert positions["audio"][0] < positions["video"][len(positions["video"]) // 2] < positions["audio"][-1]


def test_no_sound_is_no_error(tmp_path):
    silent = write_clip(tmp_path / "silent.mp4", ramp(5))
    short = write_clip(tmp_path / "short.mp4", ramp(25), sound=click_track(1, 48_000))
    (tmp_path / "pictures").mkdir()
    for source, start in ((silent, 0.0), (short, 5.0), (tmp_path / "pictures", 0.0)):
        path = carry(tmp_path / "a.mp4", source, start)
        assert not open_video(path).has_audio
        assert open_video(path).num_frames == NUM_FRAMES


def test_short_sound_ends_early(tmp_path):
    source = write_clip(tmp_path / "short.mp4", ramp(25), sound=click_track(1, 48_000))
    samples, rate = sound_of(carry(tmp_path / "a.mp4", source))
    assert 0.95 < len(samples) / rate < 1.1


def test_damaged_sound_does_not_cost_the_picture(tmp_path, caplog):
    source = write_clip(tmp_path / "source.mp4", ramp(150), sound=click_track(SECONDS, 48_000), sound_codec="flac")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        for packet in container.demux(audio=0):
            if packet.size and packet.pts * packet.time_base > 1.5:
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    source.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        path = carry(tmp_path / "a.mp4", source)
    assert open_video(path).num_frames == NUM_FRAMES
    assert "sound ends early" in caplog.text
    samples, rate = sound_of(path)
    assert 1.0 < len(samples) / rate < 2.0


def test_source_that_is_none(tmp_path):
    (tmp_path / "text.mp4").write_text("la la la")
    with pytest.raises(InputError, match="to take the sound from"):
        open_writer(tmp_path / "a.mp4", 15, 64, 64, audio_from=tmp_path / "missing.mp4")
    with pytest.raises(InputError, match="is not a video"):
        open_writer(tmp_path / "a.mp4", 15, 64, 64, audio_from=tmp_path / "text.mp4")

"""Sound of every kind that cameras, recorders and editors write: tried before the work, heard at the same moments."""

from pathlib import Path

import av
import numpy as np
import pytest
from ffmpeg_binary import ffmpeg
from video_clips import ramp, write_clip

from mimicmotion_jax.runtime.assumptions import collect_assumptions
from mimicmotion_jax.video.audio import find_sound
from mimicmotion_jax.video.decode import open_video
from mimicmotion_jax.video.encode import open_writer

SECONDS = 2.2
# A tone for 60 ms at 0.5 and 1.5 seconds, in the first channel and as loud in the others.
TONE = "0.6*sin(2*PI*700*t)*lt(mod(t+0.5\\,1)\\,0.06)"
HEARD_RATE = 16_000


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "pictures.mp4", ramp(55, 64, 64), rate=25)


def with_sound(pictures: Path, path: Path, codec: str, rate: int, layout: str, *options: str) -> Path:
    channels = {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8}.get(layout) or int(layout)
    source = f"aevalsrc={'|'.join([TONE] * channels)}:s={rate}:d={SECONDS}"
    if layout in ("mono", "stereo", "5.1", "7.1"):
        source += f":c={layout}"
    video = "mpeg4" if path.suffix == ".avi" else "copy"  # AVI does not say when B-frames are shown
    ffmpeg(
        *("-i", pictures, "-f", "lavfi", "-i", source, "-map", "0:v", "-map", "1:a", "-c:v", video, "-c:a", codec),
        *("-strict", "-2", *options, path),
    )
    return path


def carried(source: Path, output: Path, start: float = 0.0) -> Path:
    with open_writer(output, 25, 64, 64, audio_from=source, audio_start=start) as writer:
        writer.write(ramp(50, 64, 64))
    return output


def onsets(path: Path) -> np.ndarray:
    """Seconds after the first picture at which the tones set in, as FFmpeg's command plays the file."""
    data = ffmpeg(
        *("-i", path, "-map", "a:0", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(HEARD_RATE)),
        *("-f", "f32le", "-"),
    )
    samples = np.abs(np.frombuffer(data, np.float32))
    loud = np.flatnonzero(samples > 0.3 * samples.max())
    return loud[np.diff(loud, prepend=-HEARD_RATE) > HEARD_RATE // 4] / HEARD_RATE


MP3 = [
    pytest.param("libmp3lame", rate, "stereo", end, marks=() if end in ordinary else pytest.mark.slow)
    for rate, ordinary in ((8000, ("avi",)), (11_025, ("mkv",)))  # each container has one of another kind as well
    for end in ("mkv", "avi", "mov")
]
# Those marked slow are decoded and encoded as their neighbours are.
OTHERS = [
    ("libmp3lame", 22_050, "mono", "mkv"),
    pytest.param("libmp3lame", 12_000, "mono", "avi", marks=pytest.mark.slow),
    pytest.param("aac", 8000, "mono", "mp4", marks=pytest.mark.slow),
    ("aac", 96_000, "5.1", "mkv"),
    ("aac", 48_000, "7.1", "mov"),
    ("aac", 44_100, "stereo", "ts"),
    ("ac3", 48_000, "5.1", "mp4"),
    pytest.param("eac3", 32_000, "stereo", "ts", marks=pytest.mark.slow),
    ("mp2", 16_000, "mono", "ts"),
    ("libopus", 48_000, "mono", "mp4"),
    pytest.param("libvorbis", 44_100, "stereo", "mkv", marks=pytest.mark.slow),
    ("flac", 192_000, "stereo", "mkv"),
    pytest.param("alac", 44_100, "stereo", "mov", marks=pytest.mark.slow),
    ("pcm_s24le", 5512, "mono", "mov"),
    ("pcm_mulaw", 8000, "mono", "avi"),
    ("pcm_s16le", 48_000, "16", "mov"),
    ("adpcm_ima_wav", 22_050, "stereo", "avi"),
    pytest.param("wmav2", 44_100, "stereo", "avi", marks=pytest.mark.slow),
    ("dca", 48_000, "5.1", "mkv"),
    ("truehd", 48_000, "stereo", "mkv"),
    pytest.param("wavpack", 44_100, "mono", "mkv", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("codec", "rate", "layout", "container"), MP3 + OTHERS)
def test_any_sound_is_carried_over(tmp_path, pictures, codec, rate, layout, container):
    source = with_sound(pictures, tmp_path / f"source.{container}", codec, rate, layout)
    with collect_assumptions() as lines:
        result = carried(source, tmp_path / "result.mp4")
        # (AVI begins with its sound: FFmpeg holds the first picture for the silence before it.)
        assert 55 <= open_video(source).num_frames < 60
    assert not [line for line in lines if "the sound of" in line or "begins in the middle" in line]
    with av.open(str(result)) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name in ("aac", "mp3")
    # Played alone, a transport stream begins with its sound, which lies before the first picture.
    expected = [0.5, 1.5] if source.suffix == ".ts" else onsets(source)
    assert len(expected) == 2
    np.testing.assert_allclose(onsets(result), expected, atol=0.03 if source.suffix == ".ts" else 0.012)


def test_sound_that_changes_midway(tmp_path, pictures):
    """Broadcasts go from stereo to surround and back."""
    parts, starts = [], []
    for index, layout in enumerate(("stereo", "5.1", "stereo")):
        later = ("-output_ts_offset", str(2.2 * index))
        part = with_sound(pictures, tmp_path / f"{index}.ts", "ac3", 48_000, layout, *later)
        parts.append(part.read_bytes())
        with av.open(str(part)) as container:
            starts.append(float(container.streams.audio[0].start_time * container.streams.audio[0].time_base))
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    with open_writer(tmp_path / "a.mp4", 25, 64, 64, audio_from=tmp_path / "joined.ts") as writer:
        for _ in range(3):
            writer.write(ramp(52, 64, 64))
    heard = np.array(onsets(tmp_path / "a.mp4"))
    expected = np.concatenate([np.array([0.5, 1.5]) + start - starts[0] for start in starts])
    np.testing.assert_allclose(heard, expected, atol=0.012)


def test_what_cannot_be_decoded_is_said_before_the_work(tmp_path, pictures):
    source = with_sound(pictures, tmp_path / "source.mkv", "flac", 48_000, "stereo")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        for packet in container.demux(audio=0):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    source.write_bytes(data)
    with collect_assumptions() as lines:
        assert find_sound(source) is None
    assert lines == [f"the sound of {source} cannot be decoded: the result has none."]
    assert not open_video(carried(source, tmp_path / "result.mp4")).has_audio

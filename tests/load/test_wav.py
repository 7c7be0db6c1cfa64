"""The loader of recordings: what it reads, what it says of them, and what it refuses."""

from __future__ import annotations

import io
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lepton_compress.errors import InputError
from lepton_compress.load.data import make_dataset
from lepton_compress.load.sound import read_wav, trimmed
from lepton_compress.load.splitting import SPLITS
from lepton_compress.load.wav import WavLoader, load_wav

RATE = 8000
PATTERN = r"(?P<label>\w+)_(?P<speaker>\w+)_\d+\.wav"


def encoded(signal: Any, *, rate: int = RATE, width: int = 2, channels: int = 1) -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(signal).tobytes())
    return held.getvalue()


def sound(seed: int, length: int = 800) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, length).astype("<i2")


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Sixteen recordings of two words by two speakers."""
    folder = tmp_path / "words"
    folder.mkdir()
    for index in range(16):
        name = f"{('no', 'yes')[index % 2]}_{('ann', 'bob')[index // 8]}_{index}.wav"
        (folder / name).write_bytes(encoded(sound(index)))
    return folder


def load(path: Path, **settings: Any) -> Any:
    params = {"path": str(path), "rate": RATE, "samples": 1000, **settings}
    made: Any = load_wav(WavLoader.model_validate(params), Path(), 0)
    return made


def test_recordings_are_filled_up_and_labelled_by_the_pattern(named: Path) -> None:
    made = load(named, pattern=PATTERN, evaluation="25 %", calibration="25 %")
    data = make_dataset(made, "data")
    assert [len(each) for each in (data.train, data.calibration, data.evaluation)] == [8, 4, 4]
    samples = data.evaluation.inputs["sound"]
    assert samples.shape == (4, 1000)
    assert samples.dtype == np.int16
    wanted = {sound(index).tobytes(): index % 2 for index in range(16)}
    for sample, label in zip(samples, made["evaluation"]["targets"], strict=True):
        assert wanted[sample[:800].tobytes()] == label
        assert not sample[800:].any()


def test_held_out_speakers_stand_in_the_evaluation_alone(named: Path) -> None:
    data = make_dataset(load(named, pattern=PATTERN, hold_out={"speaker": ["bob"]}), "data")
    assert set(data.evaluation.slices["speaker"]) == {"bob"}
    assert len(data.evaluation) == 8
    bobs = {sound(index).tobytes() for index in range(8, 16)}
    assert not {each[:800].tobytes() for each in data.train.inputs["sound"]} & bobs


def test_a_zip_of_labelled_folders_gives_the_same_as_the_folder(tmp_path: Path) -> None:
    for index in range(10):
        folder = tmp_path / "sorted" / str(index % 2 * 9 + 1)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.wav").write_bytes(encoded(sound(index)))
    with zipfile.ZipFile(tmp_path / "sorted.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for each in sorted((tmp_path / "sorted").rglob("*.wav")):
            made.write(each, each.relative_to(tmp_path / "sorted"))
    one, other = (make_dataset(load(tmp_path / name), "data") for name in ("sorted", "sorted.zip"))
    assert one.fingerprint == other.fingerprint


def test_another_rate_is_resampled_and_told(named: Path) -> None:
    seconds = np.arange(16000) / 16000
    tone = (8000 * np.sin(2 * np.pi * 500 * seconds)).astype("<i2")
    (named / "yes_ann_99.wav").write_bytes(encoded(tone, rate=16000))
    made = load(named, pattern=PATTERN, samples=8000)
    assert any("1 of 17 recordings were resampled to 8000 Hz" in note for note in made["notes"])
    every = np.concatenate([made[split]["inputs"]["sound"] for split in ("train", "evaluation")])
    every = np.concatenate([every, made["calibration"]["inputs"]["sound"]])
    (long,) = (each for each in every if each[1000:].any())
    spectrum = np.abs(np.fft.rfft(long.astype(float)))
    assert spectrum.argmax() == 500  # still 500 Hz, in one second
    assert np.abs(long).max() == pytest.approx(8000, rel=0.05)


@pytest.mark.parametrize(
    ("width", "dtype", "scale"), [(1, np.uint8, 1 / 256), (2, "<i2", 1), (4, "<i4", 65536)]
)
def test_widths_are_read_in_one_unit(width: int, dtype: Any, scale: float) -> None:
    values = np.array([-32768, -256, 0, 256, 32512])
    held = (values * scale + (128 if width == 1 else 0)).astype(dtype)
    assert read_wav(encoded(held, width=width), "x").signal[:, 0] == pytest.approx(values)


def test_24_bits_are_read_in_the_same_unit() -> None:
    held = np.array([[0, 0, 128], [0, 255, 255], [0, 1, 0]], np.uint8)
    assert read_wav(encoded(held, width=3), "x").signal[:, 0] == pytest.approx([-32768, -1, 1])


def test_silence_at_both_ends_goes_and_within_stays() -> None:
    quiet, loud = np.ones(800), np.full(400, 1000.0)
    signal = np.concatenate([quiet, loud, quiet, loud, quiet])
    assert trimmed(signal, RATE, 40) == pytest.approx(signal[800:2400])
    assert len(trimmed(np.zeros(500), RATE, 40)) == 0


def test_silent_and_repeated_recordings_are_dropped_and_told(named: Path) -> None:
    (named / "yes_ann_98.wav").write_bytes(encoded(np.zeros(500, "<i2")))
    (named / "yes_ann_99.wav").write_bytes(encoded(sound(1)))
    (named / "notes.wav").write_bytes(encoded(sound(77)))
    said = " / ".join(load(named, pattern=PATTERN)["notes"])
    assert "yes_ann_98.wav" in said
    assert "yes_ann_99.wav" in said
    assert "1 recordings do not match" in said


def test_several_channels_are_averaged_if_asked_for(named: Path) -> None:
    both = np.stack([sound(5), sound(5)], axis=1)
    (named / "no_bob_99.wav").write_bytes(encoded(both, channels=2))
    with pytest.raises(InputError, match=r"no_bob_99.wav: has 2 channels of 16 bits.*convert"):
        load(named, pattern=PATTERN)
    said = " / ".join(load(named, pattern=PATTERN, convert=True)["notes"])
    assert "converted" in said


@pytest.mark.parametrize("width", [1, 4])
def test_another_width_is_refused(named: Path, width: int) -> None:
    held = np.arange(800).astype(np.uint8 if width == 1 else "<i4")
    (named / "no_bob_99.wav").write_bytes(encoded(held, width=width))
    with pytest.raises(InputError, match=f"has 1 channel of {8 * width} bits, not one of 16"):
        load(named, pattern=PATTERN)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"\0" * 100, encoded(sound(0))[:30]])
def test_what_is_no_recording_is_named(named: Path, data: bytes) -> None:
    (named / "no_bob_99.wav").write_bytes(data)
    with pytest.raises(InputError, match=r"no_bob_99.wav: is not a WAV file"):
        load(named, pattern=PATTERN)


def test_floating_point_recordings_are_refused_with_a_mend(named: Path) -> None:
    held = bytearray(encoded(np.zeros(10, "<i4"), width=4))
    held[20:22] = (3).to_bytes(2, "little")  # WAVE_FORMAT_IEEE_FLOAT
    with pytest.raises(InputError, match=r"unknown format: 3.*sox"):
        read_wav(bytes(held), "x.wav")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "lies in no folder"),
        ({"pattern": r"(?P<label>\d)\.wav"}, "none of 16 recordings matches"),
        ({"pattern": PATTERN, "hold_out": {"speakr": ["bob"]}}, "groups are label, speaker"),
        ({"pattern": PATTERN, "hold_out": {"speaker": ["eve"]}}, "keeps 0 of 16"),
        ({"pattern": PATTERN, "labels": ["maybe"]}, "only 0 of"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    named: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        load(named, **settings)


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.wav"):
        load(tmp_path)


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    with pytest.raises(InputError, match="SHA-256"):
        load(tmp_path / "a.zip", sha256="0" * 64)


def test_a_torn_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("no/1.wav", encoded(sound(1)))
    later = bytearray((tmp_path / "b.zip").read_bytes())
    later[later.rindex(b"PK\1\2") + 6] = 200  # the version that it asks for
    for held in (b"PK\3\4 torn", later):
        (tmp_path / "a.zip").write_bytes(held)
        with pytest.raises(InputError, match=r"a.zip: is neither a folder nor a \.zip"):
            load(tmp_path / "a.zip")


def test_a_rate_that_no_recording_has_is_refused() -> None:
    with pytest.raises(InputError, match=r"x\.wav: has 16 bits at 99999989 Hz; give"):
        read_wav(encoded(sound(1), rate=99_999_989), "x.wav")


def test_a_name_without_a_label_moves_no_other(named: Path) -> None:
    (named / "_ann_99.wav").write_bytes(encoded(sound(99)))
    made = load(named, pattern=PATTERN.replace(r"\w+)", r"\w+)?", 1))
    assert {label for split in SPLITS for label in made[split]["targets"].tolist()} == {0, 1}
    assert "1 sample with a missing value dropped (first: _ann_99.wav, in the target)" in str(
        made["notes"]
    )


@pytest.mark.parametrize("wrong", [{"labels": ["no", "yes", "no"]}, {"samples": 10**19}])
def test_parameters_that_no_recordings_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WavLoader.model_validate({"path": "x", "rate": RATE, "samples": 1, **wrong})


@pytest.mark.parametrize("pattern", ["(", r"\d+\.wav"])
def test_a_pattern_without_a_label_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        WavLoader(path="x", rate=RATE, samples=1, pattern=pattern)

"""Where an answer goes: whole files, one run at a time, and nothing of the user's taken for ours."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from omni2_engine.audio.sink import open_writer
from omni2_engine.cli.app import run
from omni2_engine.errors import AudioError
from omni2_engine.system import locked_file
from omni2_engine.system.locked_file import open_locked

from ..waiting import SOON

SOUND = np.sin(np.arange(2400, dtype=np.float32))
only_unix = pytest.mark.skipif(os.name == "nt", reason="of this kind of file")
QUICK = ["--max-new-tokens", "4", "--max-last-write", "8", "--chunks", "fixed", "--no-warm-up", "--threads", "1"]


def answer(path: Path, chunks: int = 1) -> None:
    with open_writer(path, 24_000) as writer:
        for _ in range(chunks):
            writer.write(SOUND)


def frames(path: Path) -> int:
    """Frames of a WAV file, which its header and its size must agree on."""
    size = soundfile.info(path).frames
    assert path.stat().st_size == 44 + 2 * size
    return int(size)


def test_a_second_run_of_one_name_is_refused_and_the_first_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "answer.wav"
    with open_writer(path, 24_000) as first:
        first.write(SOUND)
        with pytest.raises(AudioError, match=r"another run is writing .*answer\.wav") as refused:
            open_writer(path, 24_000)
        assert "-o" in refused.value.remedy
        first.write(SOUND)
    assert frames(path) == 2 * len(SOUND)
    answer(path)  # the name is free again
    assert frames(path) == len(SOUND) and os.listdir(tmp_path) == ["answer.wav"]


def test_two_processes_of_one_name(tiny_engine_dir: Path, question: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "omni2_engine.cli.app", "stream", str(tiny_engine_dir), str(question), *QUICK]
    runs = [
        subprocess.Popen([*command, "--seed", str(seed)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for seed in range(3)
    ]
    said = [process.communicate(timeout=SOON)[1] for process in runs]
    for process, words in zip(runs, said, strict=True):
        assert process.returncode == 0 or (process.returncode == 1 and "another run is writing answer.wav" in words)
    assert 0 in [process.returncode for process in runs]
    assert frames(tmp_path / "answer.wav") > 0 and os.listdir(tmp_path) == ["answer.wav"]


def test_many_writers_of_one_name_never_mix(tmp_path: Path) -> None:
    """Threads that begin and end as they like: every file seen under the name is one of theirs, whole."""
    path, written, refused = tmp_path / "answer.wav", [], []

    def write(number: int) -> None:
        for _ in range(20):
            try:
                answer(path, number)
                written.append(number)
            except AudioError:
                refused.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) + len(refused) == 60 and written
    assert frames(path) in {number * len(SOUND) for number in (1, 2, 3)}
    assert os.listdir(tmp_path) == ["answer.wav"]


def test_a_lock_is_not_of_a_file_that_has_lost_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner renames the file after a second run has opened it, and before that run has the lock."""
    path = tmp_path / "a.partial"
    first = open_locked(path)
    assert first is not None
    first.file.write(b"first")
    lock = locked_file.lock_descriptor

    def late(descriptor: int, blocking: bool) -> bool:
        monkeypatch.undo()
        first.rename(tmp_path / "a")
        return lock(descriptor, blocking=blocking)

    monkeypatch.setattr(locked_file, "lock_descriptor", late)
    second = open_locked(path)
    assert second is not None
    second.file.write(b"second")
    second.remove()
    assert (tmp_path / "a").read_bytes() == b"first" and os.listdir(tmp_path) == ["a"]


def test_where_there_are_no_locks_only_a_new_file_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, blocking: bool) -> bool:
        raise OSError("no locks here")

    monkeypatch.setattr(locked_file, "lock_descriptor", none)
    answer(tmp_path / "answer.wav")
    assert frames(tmp_path / "answer.wav") == len(SOUND)
    with open_writer(tmp_path / "other.wav", 24_000), pytest.raises(AudioError, match="no locks"):
        open_writer(tmp_path / "other.wav", 24_000)


def test_what_a_killed_run_left_is_used_again(tmp_path: Path) -> None:
    path, partial = tmp_path / "answer.wav", tmp_path / "answer.wav.partial"
    killed = f"""
import os, sys
sys.path[:0] = {sys.path!r}
import numpy as np
from omni2_engine.audio.sink import open_writer
writer = open_writer({str(path)!r}, 24_000)
for _ in range(int(sys.argv[1])):
    writer.write(np.ones(9_000, np.float32))
os._exit(9)
"""
    for chunks in ("0", "3"):
        assert subprocess.run([sys.executable, "-c", killed, chunks]).returncode == 9
        assert partial.exists()
        answer(path)
        assert frames(path) == len(SOUND) and os.listdir(tmp_path) == ["answer.wav"]


@pytest.mark.parametrize("content", [b"my thesis", b"RIFF\x24\0\0\0", "finished"])
def test_a_file_of_the_users_is_not_taken_for_an_unfinished_one(tmp_path: Path, content: bytes | str) -> None:
    partial = tmp_path / "answer.wav.partial"
    if isinstance(content, str):
        answer(tmp_path / "whole.wav")
        content = (tmp_path / "whole.wav").read_bytes()
    partial.write_bytes(content)
    with pytest.raises(AudioError, match=r"answer\.wav\.partial is in the way") as refused:
        open_writer(tmp_path / "answer.wav", 24_000)
    assert "move it" in refused.value.remedy and partial.read_bytes() == content


@only_unix
def test_a_link_of_the_users_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_bytes(b"important")
    (tmp_path / "answer.wav.partial").symlink_to(tmp_path / "thesis")
    with pytest.raises(AudioError, match="no regular file"):
        open_writer(tmp_path / "answer.wav", 24_000)
    (tmp_path / "answer.wav.partial").unlink()
    (folder := tmp_path / "folder").mkdir()
    (tmp_path / "answer.wav").symlink_to(folder / "real.wav")  # a link is followed, also to what is not there yet
    answer(tmp_path / "answer.wav")
    assert (tmp_path / "answer.wav").is_symlink() and frames(folder / "real.wav") == len(SOUND)
    assert (tmp_path / "thesis").read_bytes() == b"important"


@only_unix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_protected_places_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "answer.wav").touch(0o444)
    with pytest.raises(AudioError, match="write-protected"):
        open_writer(tmp_path / "answer.wav", 24_000)
    (tmp_path / "closed").mkdir(0o555)
    with pytest.raises(AudioError, match="Permission denied"):
        open_writer(tmp_path / "closed" / "answer.wav", 24_000)


def test_a_protected_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `os.access` has it: root may write everything."""
    (tmp_path / "answer.wav").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(AudioError, match="write-protected"):
        open_writer(tmp_path / "answer.wav", 24_000)
    assert os.listdir(tmp_path) == ["answer.wav"]


def test_what_cannot_be_replaced_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answer.wav"
    answer(path, 3)
    before = path.stat().st_ino

    def busy(source: Path, target: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    answer(path)
    assert frames(path) == len(SOUND) and path.stat().st_ino == before and os.listdir(tmp_path) == ["answer.wav"]


@only_unix
def test_a_mount_point_is_written_in_place(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "answer.wav", tmp_path / "elsewhere"
    path.touch()
    elsewhere.write_bytes(bytes(100_000))
    if subprocess.run(["mount", "--bind", elsewhere, path], capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        answer(path)
        assert frames(path) == frames(elsewhere) == len(SOUND)
        assert sorted(os.listdir(tmp_path)) == ["answer.wav", "elsewhere"]
    finally:
        subprocess.run(["umount", path], check=True)


def test_the_null_device(tiny_engine_dir: Path, question: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mode = os.stat(os.devnull).st_mode
    assert run(["stream", str(tiny_engine_dir), str(question), "-o", os.devnull, *QUICK]) == 0
    assert "s of sound" in capsys.readouterr().out
    assert os.stat(os.devnull).st_mode == mode and stat.S_ISCHR(mode)
    assert not Path(f"{os.devnull}.partial").exists()


@only_unix
def test_a_pipe_gets_raw_samples(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(AudioError, match="no program reads"):
        open_writer(pipe, 24_000)
    received = []
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    with open(reader, "rb") as stream:
        thread = threading.Thread(target=lambda: received.append(stream.read()))
        with open_writer(pipe, 24_000) as writer:
            thread.start()  # now: a pipe without a writer has an end at once
            for _ in range(50):  # more than it holds
                writer.write(SOUND)
        thread.join()
    assert len(received[0]) == 50 * 2 * len(SOUND)


@only_unix
def test_kinds_of_files_that_take_no_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(AudioError, match="not a regular file"):
            open_writer(tmp_path / "socket", 24_000)
    terminal, other = os.openpty()
    with pytest.raises(AudioError, match="fill the terminal"):
        open_writer(os.ttyname(other), 24_000)
    os.close(terminal)
    os.close(other)
    if Path("/dev/full").exists():
        with pytest.raises(AudioError, match="No space left"), open_writer("/dev/full", 24_000) as writer:
            writer.write(SOUND)

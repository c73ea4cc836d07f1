"""Where `omni2-engine talk` hears and speaks: a sound card, or two files in its place."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omni2_engine.audio.sink import PcmWriter
from omni2_engine.audio.source import read_native
from omni2_engine.cli.talk_buffer import PlayoutDelay
from omni2_engine.errors import AudioError, BackendError
from omni2_engine.turn.chunk import Chunk

Floats = NDArray[np.float32]
FRAME = 0.02  # seconds
NEED = "pip install 'omni2-engine[talk]'"


class Player:
    """Plays chunks one after the other; silence where there is none. Its methods may be called by any thread. Its clock
    is the sound that was pulled.

    Args:
        rate: of the sound, Hz.
        delay: how long an answer waits beyond its `start_in`, and where it ran dry.

    Attributes:
        level: loudness of what it played last, 0 to 1.
    """

    def __init__(self, rate: int, delay: PlayoutDelay) -> None:
        self.rate = rate
        self.level = 0.0
        self._delay = delay
        self._pieces: deque[Floats] = deque()
        self._turn = 0
        self._pulled = 0  # samples
        self._start = 0  # value of `_pulled` at which to play what is there
        self._samples = 0  # played of the present answer
        self._lock = threading.Lock()

    def add(self, turn: int, chunk: Chunk) -> None:
        """Play a chunk behind those before; the first of a turn after its `start_in` and the delay."""
        with self._lock:
            now = self._pulled / self.rate
            if chunk.index == 0:
                wait = 0.0 if chunk.final else chunk.start_in + self._delay.seconds
                self._turn, self._start, self._samples = turn, self._pulled + round(wait * self.rate), 0
                self._delay.begin(now + chunk.start_in)
            self._delay.arrived(now, chunk.duration)
            self._pieces.append(chunk.pcm)

    def stop(self) -> None:
        """Fall silent."""
        with self._lock:
            self._pieces.clear()

    @property
    def playing(self) -> bool:
        """Whether there is something to play."""
        with self._lock:
            return bool(self._pieces)

    @property
    def played(self) -> tuple[float, int]:
        """Seconds played of the present answer, and its turn."""
        with self._lock:
            return self._samples / self.rate, self._turn

    def pull(self, samples: int) -> Floats:
        """The next samples to be heard, (samples,) float32."""
        sound = np.zeros(samples, np.float32)
        with self._lock:
            at = max(0, self._start - self._pulled)
            while at < samples and self._pieces:
                piece = self._pieces.popleft()
                part = piece[: samples - at]
                sound[at : at + len(part)] = part
                if len(part) < len(piece):
                    self._pieces.appendleft(piece[len(part) :])
                at += len(part)
                self._samples += len(part)
                if not self._pieces:  # it ran dry, or the answer is over
                    self._start = self._pulled + at + round(self._delay.seconds * self.rate)
            self._pulled += samples
        self.level = loudness(sound)
        return sound


class SoundDevice(Protocol):
    """Hears and speaks at the same time, between `start` and `close`."""

    def start(self, hear: Callable[[Floats, int], None], finished: Callable[[], None]) -> None:
        """Begin.

        Args:
            hear: called with every frame, (n,) float32, and its rate.
            finished: called once where there is an end to what is heard.
        """
        ...

    def close(self) -> None:
        """Stop, and keep what was recorded."""
        ...


class SoundCard:
    """The microphone and the loudspeaker of this machine, through PortAudio.

    Args:
        player: what is to be heard.

    Raises:
        BackendError: PortAudio is not installed.
        AudioError: there is no microphone or no loudspeaker, or it cannot be used.
    """

    def __init__(self, player: Player) -> None:
        try:
            import sounddevice
        except OSError as error:  # the package is there, and the library it calls is not
            raise BackendError(f"{error}", "install it: `apt install libportaudio2`, or what your system has") from None
        self._sounddevice: Any = sounddevice
        self._player = player
        self._streams: list[Any] = []

    def start(self, hear: Callable[[Floats, int], None], finished: Callable[[], None]) -> None:
        """See `SoundDevice`."""

        def heard(frame: Floats, *_: object) -> None:
            hear(frame[:, 0].copy(), rate)

        def play(frame: Floats, *_: object) -> None:
            frame[:, 0] = self._player.pull(len(frame))

        try:
            microphone = self._sounddevice.InputStream(channels=1, dtype="float32", latency="low", callback=heard)
            rate = int(microphone.samplerate)
            loudspeaker = self._sounddevice.OutputStream(
                samplerate=self._player.rate, channels=1, dtype="float32", latency="low", callback=play
            )
            self._streams = [microphone, loudspeaker]
            for stream in self._streams:
                stream.start()
        except (self._sounddevice.PortAudioError, ValueError) as error:
            self.close()
            use = "connect a microphone and a loudspeaker, or use --in FILE --out FILE"
            raise AudioError(f"the sound card cannot be used: {error}", use) from None

    def close(self) -> None:
        """See `SoundDevice`."""
        for stream in self._streams:
            stream.close()


class RecordedTalk:
    """A recording in place of the microphone, played in real time, and a file in place of the loudspeaker. Both have
    one clock: what stands in the second file was heard at that moment of the first.

    Args:
        player: what is to be heard.
        recording: the file that is spoken.
        writer: takes what is heard, in frames.
        sleep: waits for seconds.
        clock: tells seconds.

    Raises:
        AudioError: the recording cannot be read.
    """

    def __init__(
        self,
        player: Player,
        recording: Path,
        writer: PcmWriter,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._player = player
        self._sound, self._rate = read_native(recording)
        self._writer = writer
        self._sleep, self._clock = sleep, clock
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def start(self, hear: Callable[[Floats, int], None], finished: Callable[[], None]) -> None:
        """See `SoundDevice`."""
        self._thread = threading.Thread(target=self._run, args=(hear, finished), name="omni2-recording", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """See `SoundDevice`. What is still to be played is played to its end.

        Raises:
            AudioError: the file could not be written.
        """
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self, hear: Callable[[Floats, int], None], finished: Callable[[], None]) -> None:
        length, began, frames = round(FRAME * self._rate), self._clock(), 0
        told = False
        while not (self._over.is_set() and not self._player.playing):
            frames += 1
            self._sleep(max(began + frames * FRAME - self._clock(), 0.0))
            frame = self._sound[(frames - 1) * length : frames * length]
            if len(frame):
                hear(frame, self._rate)
            elif not told:
                told = True
                finished()
            try:
                self._writer.write(self._player.pull(round(FRAME * self._player.rate)))
            except Exception as error:
                self._error = error
                finished()
                return


def loudness(sound: Floats) -> float:
    """Of a frame, from 0 at −60 dB to 1 at full scale."""
    power = float(np.mean(np.square(sound))) if len(sound) else 0.0
    return float(np.clip(1 + np.log10(max(power, 1e-12)) / 6, 0, 1))

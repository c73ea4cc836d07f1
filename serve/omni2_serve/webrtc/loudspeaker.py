"""The track that a call hears: answers as fast as they are spoken, and silence between them."""

from __future__ import annotations

import asyncio
import fractions
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

RATE = 24_000  # Hz
WIDTH = 2  # bytes a sample
FRAME = RATE // 50  # samples
FRAME_SECONDS = 0.02
TAIL = 10  # frames of silence behind an answer, by which the client has played its last: it holds some back
LATE = 0.2  # seconds of a stalled process that are not made up for


@dataclass
class PlayedAnswer:
    """An answer on its way to the ear.

    Args:
        response_id, item_id: whose it is.
        waiting: s16le that is not played yet.
        played: bytes that are.
        whole: no more will come.
    """

    response_id: str
    item_id: str
    waiting: bytearray = field(default_factory=bytearray)
    played: int = 0
    whole: bool = False

    @property
    def seconds(self) -> float:
        """How much was played."""
        return self.played / (RATE * WIDTH)


class Loudspeaker(MediaStreamTrack):
    """See the module. All methods are called in one event loop.

    Args:
        started, stopped: are told the response whose sound begins, or is over.

    Attributes:
        quiet: set while no answer is played or waits, and the last one was heard to its end.
    """

    kind = "audio"

    def __init__(self, started: Callable[[str], None], stopped: Callable[[str], None]) -> None:
        super().__init__()
        self._started, self._stopped = started, stopped
        self.quiet = asyncio.Event()
        self.quiet.set()
        self._answers: deque[PlayedAnswer] = deque()
        self._silent = 0  # frames since an answer
        self._frames = 0  # made so far
        self._began = 0.0  # when the first was due, by the loop's clock

    def add(self, response_id: str, item_id: str, data: bytes) -> None:
        """More of an answer: s16le at 24 kHz."""
        if not self._answers or self._answers[-1].response_id != response_id:
            self._answers.append(PlayedAnswer(response_id, item_id))
            self.quiet.clear()
        self._answers[-1].waiting += data

    def finish(self, response_id: str) -> None:
        """No more of this answer will come."""
        for answer in self._answers:
            answer.whole = answer.whole or answer.response_id == response_id

    def clear(self) -> PlayedAnswer | None:
        """Forget all that waits.

        Returns:
            The answer that was played; None without one.
        """
        answer = self._answers[0] if self._answers else None
        self._answers.clear()
        return answer

    async def recv(self) -> AudioFrame:
        """The next 20 ms, when they are due."""
        if self.readyState != "live":
            raise MediaStreamError
        await self._due()
        data = self._next()
        frame = AudioFrame(format="s16", layout="stereo", samples=FRAME)  # mono would arrive 3 dB quieter
        frame.planes[0].update(np.frombuffer(data, np.int16).repeat(2).tobytes())
        frame.sample_rate, frame.time_base = RATE, fractions.Fraction(1, RATE)
        frame.pts = self._frames * FRAME
        self._frames += 1
        return frame

    async def _due(self) -> None:
        now = asyncio.get_running_loop().time()
        due = self._began + self._frames * FRAME_SECONDS
        if now - due > LATE:  # also the first time
            self._began += now - due
        elif due > now:
            await asyncio.sleep(due - now)

    def _next(self) -> bytes:
        """20 ms of sound, or of what is there of it, and silence."""
        data = bytearray()
        self._silent = 0 if self._answers else self._silent + 1
        if self._silent >= TAIL:
            self.quiet.set()
        while self._answers and len(data) < FRAME * WIDTH:
            answer = self._answers[0]
            taken = answer.waiting[: FRAME * WIDTH - len(data)]
            if taken and not answer.played:
                self._started(answer.response_id)
            del answer.waiting[: len(taken)]
            answer.played += len(taken)
            data += taken
            if answer.waiting or not answer.whole:
                break
            self._answers.popleft()
            if answer.played:
                self._stopped(answer.response_id)
        return bytes(data.ljust(FRAME * WIDTH, b"\0"))

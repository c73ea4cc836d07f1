"""A live conversation: frames of sound in, events out."""

from __future__ import annotations

from enum import Enum
from types import TracebackType
from typing import Any, Self, Unpack

from numpy.typing import NDArray

from omni2_engine.live.events import Event
from omni2_engine.live.settings import Detection
from omni2_engine.sessions.turn_record import TurnRecord
from omni2_engine.turn.options import TurnOptions


class Unchanged(Enum):
    """Stands for a setting that is not given."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED
Frame = NDArray[Any] | bytes | bytearray | memoryview


class LiveConversation:
    """A person and the model, both of whom may speak at any time; made by `Engine.live`, usable as a context manager.

    Every method may be called from any thread or coroutine, and none waits for the engine: what they ask for is done in
    their order, and events tell what came of it. One consumer iterates the events, with `for` or `async for`.
    """

    def feed(self, frame: Frame, sample_rate: int = 16_000) -> None:
        """Hear the next piece of sound.

        Args:
            frame: samples (n,) or (n, channels) of any length: float32 or float64 in ±1, int16, int32, uint8; or bytes,
                s16le mono.
            sample_rate: Hz. It may change between frames.

        Raises:
            AudioError: the frame is no sound, or has an impossible rate.
            SettingError: the conversation is closed, or `end` was called.
        """
        raise NotImplementedError

    def commit(self) -> None:
        """The sound so far is the user's item: from where the speech began, without detection from the last `commit` or
        `clear`. `respond` answers it. Without any sound `Failed` follows.
        """
        raise NotImplementedError

    def clear(self) -> None:
        """Forget the sound that is not committed, and a speculative turn on it."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """A typed item of the user. `respond` answers it."""
        raise NotImplementedError

    def respond(self, **options: Unpack[TurnOptions]) -> None:
        """Answer the items that are not answered yet, once the answer before is finished.

        Speech of several items is heard as one. Without any item `Failed` follows.

        Args:
            **options: fields of `Options` for this turn alone, but voice, system and run_ahead.

        Raises:
            SettingError: an option does not exist or makes no sense.
        """
        raise NotImplementedError

    def interrupt(self, heard: float | None = None) -> None:
        """Stop the answer before its next step; nothing happens where none is made or played.

        Args:
            heard: seconds of its sound that were heard; None for what the player says, or the clock.
        """
        raise NotImplementedError

    def played(self, seconds: float) -> None:
        """The player says how much of the present answer's sound it has played. Between two calls the clock counts on;
        without any it counts from the moment the first chunk came and its `start_in` was over.
        """
        raise NotImplementedError

    def truncate(self, heard: float) -> None:
        """Forget what of the last answer lies beyond `heard` seconds of its sound, once it is finished or interrupted.
        What an interruption has cut already does not come back.
        """
        raise NotImplementedError

    def update(self, *, detection: Detection | Unchanged | None = UNCHANGED, **options: Unpack[TurnOptions]) -> None:
        """Change the detection, the options of later turns, or both.

        Args:
            detection: None for push-to-talk. Not given, it stays.
            **options: fields of `Options`, but voice, system and run_ahead.

        Raises:
            SettingError: an option does not exist or makes no sense.
        """
        raise NotImplementedError

    def end(self) -> None:
        """No more input: speech that goes on ends here. The iterator ends with the last answer."""
        raise NotImplementedError

    @property
    def history(self) -> tuple[TurnRecord, ...]:
        """See `Session.history`."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop, and give the memory back. The iterator ends."""
        raise NotImplementedError

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Wait for the next event.

        Raises:
            StopIteration: after `end`, when the last answer is finished; after `close`.
        """
        raise NotImplementedError

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event without a thread."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

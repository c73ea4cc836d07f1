"""A live conversation: frames of sound in, events out."""

from __future__ import annotations

import threading
import weakref
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Self, Unpack

from omni2_engine.audio.frames import Frame, checked_rate, mono_frame
from omni2_engine.errors import SettingError
from omni2_engine.live.detection.base import SentenceEnd
from omni2_engine.live.event_queue import EventQueue
from omni2_engine.live.events import Event
from omni2_engine.live.input import Item, LiveInput
from omni2_engine.live.listening import ListeningThread
from omni2_engine.live.playback import Clock
from omni2_engine.live.settings import Detection
from omni2_engine.live.turns import TurnTaking
from omni2_engine.sessions.session import Session
from omni2_engine.sessions.turn_record import TurnRecord
from omni2_engine.settings import real
from omni2_engine.system.log_names import carried
from omni2_engine.turn.options import FIXED, Options, TurnOptions


class Unchanged(Enum):
    """Stands for a setting that is not given."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED
SECONDS = "a number of seconds"


class LiveConversation:
    """A person and the model, both of whom may speak at any time; made by `Engine.live`, usable as a context manager.

    Every method may be called from any thread or coroutine, and none waits for the engine: what they ask for is done in
    their order, and events tell what came of it. One consumer iterates the events, with `for` or `async for`.
    A conversation that is dropped without being closed gives its memory back, too.

    Args:
        session: answers; it is closed with the conversation.
        options: of the session.
        window: seconds of sound that the model hears.
        detection: None for push-to-talk.
        listening: hears for it.
        sentence_end: judges pauses where the detection has an eagerness.
        clock: seconds from any moment on; counts what was heard of an answer.
    """

    def __init__(
        self,
        session: Session,
        options: Options,
        window: float,
        detection: Detection | None,
        listening: ListeningThread,
        sentence_end: SentenceEnd | None,
        clock: Clock,
    ) -> None:
        self._session = session
        self._options = options
        self._events = EventQueue()
        self._turns = turns = TurnTaking(session, self._events, detection, window, options.long, clock)
        self._listening = listening
        judge = None if sentence_end is None else partial(carried(listening.judge), sentence_end)
        self._input = listening.attach(lambda voice: LiveInput(detection, turns, turns.post, window, voice, judge))
        self._open = True
        self._ended = False
        self._lock = threading.Lock()
        self._given = 0  # answers of `answered` that wait until what was fed before them is heard
        self._give_back = weakref.finalize(
            self, _give_back, self._listening, self._input, self._events, session, self._turns
        )
        self._give_back.atexit = False

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
        samples, rate = mono_frame(frame), checked_rate(sample_rate)
        self._check_open()
        self._hear((samples, rate))

    @property
    def unheard(self) -> float:
        """Seconds of sound that were fed and not heard yet. It grows where the processor cannot keep up with all
        conversations; then no turn is found in time, and fewer conversations are the only help."""
        return self._input.unheard

    def commit(self) -> None:
        """The sound so far is the user's item: from where the speech began, without detection from the last `commit` or
        `clear`. `respond` answers it. Without any sound `Failed` follows.
        """
        self._check_open()
        self._hear(self._input.flush, self._input.commit)

    def clear(self) -> None:
        """Forget the sound that is not committed, and a speculative turn on it."""
        self._check_open()
        self._hear(self._input.flush, self._input.clear)

    def say(self, text: str) -> None:
        """A typed item of the user. `respond` answers it."""
        if not isinstance(text, str):
            raise SettingError(f"what is said is a {type(text).__name__}", "give a str")
        self._check_open()
        self._hear(partial(self._turns.post, self._turns.say, text))

    def respond(self, **options: Unpack[TurnOptions]) -> None:
        """Answer the items that are not answered yet, once the answer before is finished.

        Speech of several items is heard as one. Without any item `Failed` follows.

        Args:
            **options: fields of `Options` for this turn alone, but voice and run_ahead.

        Raises:
            SettingError: an option does not exist or makes no sense.
        """
        self._check_options(options)
        self._check_open()
        self._hear(partial(self._turns.post, self._turns.respond, options))

    def answered(self, text: str) -> None:
        """The items that are not answered yet were answered elsewhere, with this text: the conversation goes on from
        there, as from one that `Session.add_turns` was given, once the answer before is finished. Then `TurnAdded`
        follows, or `Failed`. Speech is heard meanwhile, and told of when the turn is prefilled.
        """
        if not isinstance(text, str):
            raise SettingError(f"the answer is a {type(text).__name__}", "give a str")
        self._check_open()
        with self._lock:
            self._given += 1
        self._hear(partial(self._pass_on, text))

    def _pass_on(self, text: str) -> None:
        """What was fed before a given answer is heard: it is taken next."""
        self._turns.post(self._turns.respond, {}, text)
        with self._lock:
            self._given -= 1

    def interrupt(self, heard: float | None = None) -> None:
        """Stop the answer before its next step; nothing happens where none is made or played.

        Args:
            heard: seconds of its sound that were heard; None for what the player says, or the clock.
        """
        heard = None if heard is None else real("heard", heard, SECONDS)
        self._turns.post(self._turns.interrupt, heard)

    def played(self, seconds: float, turn: int | None = None) -> None:
        """The player says how much of an answer's sound it has played. Between two calls the clock counts on; without
        any it counts from the moment the first chunk was taken and its `start_in` was over.

        Args:
            seconds: of the answer's sound.
            turn: whose answer it is; None for the present one. Of another than that it is not needed any more.
        """
        self._turns.post(self._turns.played, real("seconds", seconds, SECONDS), turn)

    def truncate(self, heard: float) -> None:
        """Forget what of the last answer lies beyond `heard` seconds of its sound, once it is finished or interrupted;
        of an answer that was given, once it is taken. What an interruption has cut already does not come back.
        """
        truncate = partial(self._turns.post, self._turns.truncate, real("heard", heard, SECONDS))
        with self._lock:
            behind = self._given > 0
        if behind:  # the last answer is one that was given, and is not taken yet
            self._hear(truncate)
        else:
            truncate()

    def update(self, *, detection: Detection | Unchanged | None = UNCHANGED, **options: Unpack[TurnOptions]) -> None:
        """Change the detection, the options of later turns, or both.

        Args:
            detection: None for push-to-talk. Not given, it stays.
            **options: fields of `Options`, but voice and run_ahead.

        Raises:
            SettingError: an option does not exist or makes no sense.
        """
        self._check_options(options)
        self._check_open()
        if detection is not UNCHANGED:
            self._hear(
                partial(self._input.change, detection),
                partial(self._turns.post, self._turns.update, detection),
            )
        if options:
            self._hear(partial(self._turns.post, self._turns.change, options))

    def end(self) -> None:
        """No more input: speech that goes on ends here. The iterator ends with the last answer."""
        self._check_open()
        self._ended = True
        self._hear(self._input.flush, self._input.end)

    @property
    def history(self) -> tuple[TurnRecord, ...]:
        """See `Session.history`."""
        return self._session.history

    def close(self) -> None:
        """Stop, and give the memory back. The iterator ends."""
        self._open = False
        self._give_back()  # which does it the first time it is called
        self._turns.join()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Wait for the next event.

        Raises:
            StopIteration: after `end`, when the last answer is finished; after `close`.
        """
        if (event := self._events.get()) is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event without a thread."""
        if (event := await self._events.aget()) is None:
            raise StopAsyncIteration
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hear(self, *items: Item) -> None:
        self._input.add(*items)
        self._listening.wake()

    def _check_open(self) -> None:
        if not self._open or self._ended:
            how = "has ended" if self._open else "is closed"
            raise SettingError(f"the conversation {how}", "begin another with engine.live()")

    def _check_options(self, options: TurnOptions) -> None:
        fixed = [name for name in FIXED if name in options]
        if fixed:
            raise SettingError(f"{fixed[0]} cannot change within a conversation", "give it to engine.live()")
        self._options.merged(options)


def _give_back(
    listening: ListeningThread, heard: LiveInput, events: EventQueue, session: Session, turns: TurnTaking
) -> None:
    """Stop all that a conversation does."""
    listening.detach(heard)
    events.end(discard=True)
    session.close()
    turns.stop()

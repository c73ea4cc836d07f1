"""Whose turn it is: what was heard and asked for → answers of the session, and the events that tell of them."""

from __future__ import annotations

import logging
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from omni2_engine.audio.source import SLACK
from omni2_engine.errors import AudioError, Omni2Error, SettingError
from omni2_engine.live.detection.base import RATE, Floats
from omni2_engine.live.event_queue import EventQueue
from omni2_engine.live.events import (
    AnswerBegun,
    Committed,
    Failed,
    Finished,
    Interrupted,
    SoundMade,
    SpeechBegan,
    SpeechEnded,
    TextWritten,
    TurnAdded,
    TurnBegun,
    TurnTakenBack,
)
from omni2_engine.live.input import Hearer
from omni2_engine.live.live_turn import LiveTurn, Request, Speculation, Spoken
from omni2_engine.live.playback import Clock, Playback
from omni2_engine.live.settings import Detection
from omni2_engine.sessions.answer import Answer
from omni2_engine.sessions.earlier_turns import EarlierTurn
from omni2_engine.sessions.session import Session
from omni2_engine.system.log_names import carried
from omni2_engine.turn.chunk import Chunk
from omni2_engine.turn.metrics import TurnMetrics
from omni2_engine.turn.options import OnLong
from omni2_engine.turn.run import OnText

Call = tuple[Callable[..., None], tuple[Any, ...]]
log = logging.getLogger("omni2_engine.live")


class TurnTaking(Hearer):
    """See the module. Its methods are called on a thread of its own, by `post`; only `post`, `stop` and `join` may be
    called by others. See `Hearer` for those that the input calls.

    Args:
        session: answers.
        events: told what happens.
        detection: None for push-to-talk.
        window: seconds of sound that the model hears.
        long: what happens to more, see `Options`.
        clock: for `Playback`.
    """

    def __init__(
        self,
        session: Session,
        events: EventQueue,
        detection: Detection | None,
        window: float,
        long: OnLong,
        clock: Clock,
    ) -> None:
        self._session = session
        self._events = events
        self._detection = detection
        self._window = window
        self._options: dict[str, Any] = {"long": long}  # of every turn
        self._clock = clock
        self._turns = 0
        self._items: list[Spoken | str] = []  # for which no answer was asked yet
        self._requests: deque[Request] = deque()
        self._speculation: Speculation | None = None
        self._turn: LiveTurn | None = None  # the last one that is certain
        self._ending = False
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=carried(self._run), name="omni2-turns", daemon=True)
        self._thread.start()

    def post(self, method: Callable[..., None], *arguments: Any) -> None:
        """Have a method called, behind those that were posted before."""
        self._calls.put((method, arguments))

    def stop(self) -> None:
        """Call nothing more."""
        self._calls.put(None)

    def join(self) -> None:
        """Wait for what is being done when it was stopped."""
        self._thread.join()

    def _run(self) -> None:
        while (call := self._next_call()) is not None:
            method, arguments = call
            try:
                method(*arguments)
            except Exception as error:
                self.failed(error)

    def _next_call(self) -> Call | None:
        """Wait for it; where this thread has to run the steps of a speculative turn, run them meanwhile."""
        while self._calls.empty() and self._speculation is not None and self._speculation.prepared.advance():
            pass
        return self._calls.get()

    # -- what the input tells, see `Hearer` -----------------------------------------------------------------------

    def speech_began(self, at: int, begin: int) -> None:
        """Speech began; it interrupts an answer."""
        self._events.put(SpeechBegan(at, begin))
        if self._detection is None or self._detection.interrupt_response:
            self.interrupt(None)

    def speech_paused(self, begin: int, end: int, speech: Floats) -> None:
        """Begin an answer, unless there is other work."""
        if self._detection is not None and self._detection.create_response and not self._busy:
            self._speculate(Spoken(speech, end - begin))

    def speech_resumed(self) -> None:
        """The speculative turn began too early."""
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            speculation.prepared.take_back()
            self._events.put(TurnTakenBack(speculation.turn.number))

    def speech_ended(self, at: int, decided: int) -> None:
        """Tell it."""
        self._events.put(SpeechEnded(at, decided))

    def sound_committed(self, begin: int, end: int, speech: Floats, by_hand: bool) -> None:
        """The speech is an item of the user; answer it."""
        answered = not by_hand and self._detection is not None and self._detection.create_response
        self._events.put(Committed(begin, end, answered, speech))
        if not answered:
            self.speech_resumed()
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            self._items = []
            self._begin(speculation.turn, speculation.prepared.commit)
            self._next()  # where it could not begin
            return
        self._items.append(Spoken(speech, end - begin))
        if answered:
            self.respond({})

    def cleared(self) -> None:
        """Nothing was said."""
        self.speech_resumed()

    def input_ended(self) -> None:
        """End with the last answer."""
        self._ending = True
        self._end_if_done()

    def failed(self, error: Exception) -> None:
        """Tell it."""
        self._failed(None, error)

    # -- what the user asks for, see `LiveConversation` ------------------------------------------------------------

    def say(self, text: str) -> None:
        """An item of the user."""
        self._items.append(text)

    def respond(self, options: Mapping[str, Any], given: str | None = None) -> None:
        """Answer the items, or take the given answer to them, behind the answers that were asked for before."""
        self._requests.append(Request(self._items, options, given))
        self._items = []
        self._next()

    def interrupt(self, heard: float | None) -> None:
        """Stop the answer."""
        turn = self._turn
        if turn is None or turn.interrupted:
            return
        if turn.over.is_set() and not turn.playback.playing and not self._events.has_sound(turn.number):
            return
        turn.interrupted = True
        self._events.drop_sound(turn.number)
        heard = turn.playback.stop(heard)
        self._events.put(Interrupted(turn.number, heard))
        if not turn.followed:
            self._below_speculation(partial(self._session.interrupt, heard))

    def played(self, seconds: float, turn: int | None) -> None:
        """The player says how far it is."""
        present = self._turn
        if present is not None and turn in (None, present.number) and not present.interrupted:
            present.playback.said(seconds)

    def truncate(self, heard: float) -> None:
        """Cut the last answer; one that was given and is not taken yet, when it is."""
        if self._requests and (last := self._requests[-1]).given is not None:
            self._requests[-1] = replace(last, heard=min(heard, heard if last.heard is None else last.heard))
            return
        self._below_speculation(partial(self._session.truncate, 1000 * heard))

    def update(self, detection: Detection | None) -> None:
        """Go on with another detection."""
        self._detection = detection

    def change(self, options: Mapping[str, Any]) -> None:
        """Change the options of later turns."""
        self._options |= options

    # -- answers ---------------------------------------------------------------------------------------------------

    @property
    def _generating(self) -> bool:
        return self._turn is not None and not self._turn.over.is_set()

    @property
    def _busy(self) -> bool:
        return self._generating or bool(self._requests)

    def _new_turn(self) -> LiveTurn:
        begins = -math.inf if self._turn is None else self._turn.playback.end
        return LiveTurn(self._turns, Playback(self._clock, begins))

    def _speculate(self, spoken: Spoken) -> None:
        turn = self._new_turn()
        try:
            question = self._question([*self._items, spoken], self._options)
            prepared = self._session.prepare(**question, on_text=self._on_text(turn), **self._options)
        except Omni2Error:
            return  # what does not pass away meets the turn itself
        self._speculation = Speculation(turn, prepared, spoken)
        self._events.put(TurnBegun(turn.number, speculative=True))

    def _below_speculation(self, change: Callable[[], None]) -> None:
        """Change what a speculative turn goes on from."""
        speculation = self._speculation
        self.speech_resumed()
        change()
        if speculation is not None:
            self._speculate(speculation.spoken)

    def _next(self) -> None:
        """Do what was asked for, the first first, until an answer is being made."""
        while self._requests and not self._generating:
            try:
                self._take_up(self._requests.popleft())
            except Exception as error:
                self.failed(error)
        self._end_if_done()

    def _take_up(self, request: Request) -> None:
        """Begin an answer, or take the given one.

        Raises:
            Omni2Error: the items cannot be used, or the given answer.
        """
        options = {**self._options, **request.options}
        question = self._question(request.items, options)
        if request.given is not None:
            self._add(EarlierTurn(request.given, **question), request.heard)
            return
        self.speech_resumed()
        turn = self._new_turn()
        self._events.put(TurnBegun(turn.number, speculative=False))
        self._begin(turn, partial(self._session.stream, **question, on_text=self._on_text(turn), **options))

    def _add(self, earlier: EarlierTurn, heard: float | None) -> None:
        """Go on from a turn that was had elsewhere, truncated to `heard` seconds; this waits until it is prefilled.

        Raises:
            Omni2Error: it cannot be used.
        """

        def add() -> None:
            self._session.add_turns([earlier], **self._options)
            if self._turn is not None:
                self._turn.followed = True
            self._events.put(TurnAdded())
            if heard is not None:
                self._session.truncate(1000 * heard)

        self._below_speculation(add)

    def _question(self, items: list[Spoken | str], options: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `Session.stream` for the user's items.

        Raises:
            AudioError: the speech is too long.
            SettingError: there is nothing, or speech beside text.
        """
        spoken = [item for item in items if isinstance(item, Spoken)]
        texts = [item for item in items if isinstance(item, str)]
        if not items:
            raise SettingError("there is nothing to answer", "commit speech, or say something")
        if texts and spoken:
            raise SettingError("speech and text cannot be answered as one", "ask for an answer to each")
        if texts:
            return {"text": "\n".join(texts)}
        seconds = sum(item.samples for item in spoken) / RATE
        if seconds - self._window >= SLACK and options["long"] == "error":
            raise AudioError(
                f"the speech lasts {seconds:.1f} s and the model hears {self._window:g} s",
                'keep its beginning with long="truncate"',
            )
        return {"audio": np.concatenate([item.speech for item in spoken]), "sample_rate": RATE}

    def _begin(self, turn: LiveTurn, answer: Callable[[], Answer]) -> None:
        """A turn is certain: tell what was written, and take its chunks."""
        self._turns += 1
        self._turn, turn.certain = turn, True
        self._events.put(AnswerBegun(turn.number))
        self._text(turn, "")
        try:
            chunks = answer()
        except Exception as error:
            self._end_turn(turn, error, None)
            return
        threading.Thread(target=carried(self._take), args=(turn, chunks), name="omni2-answer", daemon=True).start()

    def _take(self, turn: LiveTurn, chunks: Answer) -> None:
        """Take chunks as they are made, on a thread of its own."""
        try:
            for chunk in chunks:
                self.post(self._chunk, turn, chunk)
                self._events.wait_for_room(turn.number)
        except Exception as error:  # its traceback refers to this frame: a name here would be a cycle
            self.post(self._over, turn, error, self._session.metrics)
        else:
            self.post(self._over, turn, None, self._session.metrics)

    def _on_text(self, turn: LiveTurn) -> OnText:
        return lambda piece: self.post(self._text, turn, piece)

    def _text(self, turn: LiveTurn, piece: str) -> None:
        turn.text += piece
        if turn.certain and turn.text and not turn.interrupted:
            self._events.put(TextWritten(turn.number, turn.text))
            turn.text = ""

    def _chunk(self, turn: LiveTurn, chunk: Chunk) -> None:
        if len(chunk.pcm) and not turn.interrupted:
            taken = partial(turn.playback.add, chunk.duration, chunk.start_in)
            self._events.put(SoundMade(turn.number, chunk), taken)

    def _over(self, turn: LiveTurn, error: Exception | None, metrics: TurnMetrics | None) -> None:
        """The answer is made, or broke off; what was asked for behind it is next."""
        self._end_turn(turn, error, metrics)
        self._next()

    def _end_turn(self, turn: LiveTurn, error: Exception | None, metrics: TurnMetrics | None) -> None:
        turn.over.set()
        if error is not None:
            self._failed(turn.number, error)
        elif metrics is not None:
            self._events.put(Finished(turn.number, metrics.finish_reason, metrics))

    def _failed(self, turn: int | None, error: Exception) -> None:
        """Tell it; what is no `Omni2Error` is logged with its trace."""
        if not isinstance(error, Omni2Error):
            log.error("a live conversation could not go on as it should", exc_info=error)
        self._events.put(Failed(turn, error))

    def _end_if_done(self) -> None:
        if self._ending and not self._busy:
            self._events.end()

"""One caller: a conversation over a WebSocket of the Realtime protocol (GA form), in real time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from omni2_bench.load.clock import Clock
from omni2_bench.load.recordings import FRAME, RATE, RecordedQuestion
from omni2_bench.load.records import Call, HeardTurn
from omni2_bench.load.visits import PlannedTurn, Visit

FRAME_SECONDS = FRAME / RATE
SILENCE = bytes(2 * FRAME)
LARGEST = 1 << 24  # bytes of one message
TRY_LATER = 1013  # close code of a server that is full
STATUS = {"completed": "completed", "cancelled": "interrupted"}  # of a response → of a turn
Event = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """The server to call.

    Args:
        url: `ws://…/v1/realtime?model=…`, or `wss://…`.
        key: API key, if it wants one.
        silence: seconds of silence that end a question (server_vad).
        patience: seconds without an answer after which a caller gives up.
    """

    url: str
    key: str | None = None
    silence: float = 0.5
    patience: float = 30.0


class Refused(Exception):
    """The server has no place."""

    def __init__(self, problem: str, retry_after: float | None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class Lost(Exception):
    """The connection ended, or the server reported an error."""


class Caller:
    """Makes one conversation.

    Args:
        server: to call.
        visit: what to do.
        recordings: the questions.
        clock: to live by.
    """

    def __init__(self, server: Server, visit: Visit, recordings: list[RecordedQuestion], clock: Clock) -> None:
        self._server = server
        self._visit = visit
        self._recordings = recordings
        self._clock = clock
        self._speech: deque[tuple[bytes, bool, bool]] = deque()  # frame, first voiced, last voiced
        self._turns: list[HeardTurn] = []
        self._news = asyncio.Condition()
        self._answers: dict[str, HeardTurn] = {}  # by the id of the response
        self._items: dict[int, str] = {}  # by the identity of the turn: item of its answer
        self._interrupted: HeardTurn | None = None  # the answer that the next voiced frame interrupts
        self._unnoticed: HeardTurn | None = None  # the answer that is interrupted, until the server hears that
        self._broken: BaseException | None = None

    async def call(self) -> Call:
        """Wait for the visit's beginning, make the conversation, and tell what was seen. Errors become outcomes."""
        await self._clock.until(self._visit.begins)
        record = Call(self._clock.now())
        record.turns = self._turns
        try:
            async with self._connected() as socket:
                record.outcome = await self._converse(socket)
        except Refused as error:
            record.outcome, record.problem, record.retry_after = "refused", str(error), error.retry_after
        except (Lost, TimeoutError, OSError, WebSocketException) as error:
            record.problem = str(error) or type(error).__name__
            if self._turns and self._turns[-1].status == "unanswered":
                self._turns[-1].status, self._turns[-1].problem = "failed", record.problem
        record.ended = self._clock.now()
        return record

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[ClientConnection]:
        """A connection with its session set up."""
        headers = {} if self._server.key is None else {"Authorization": f"Bearer {self._server.key}"}
        patience = self._server.patience
        try:
            async with connect(
                self._server.url,
                additional_headers=headers,
                max_size=LARGEST,
                open_timeout=patience,
                ping_timeout=patience,
            ) as socket:
                await self._expect(socket, "session.created")
                format_ = {"type": "audio/pcm", "rate": RATE}
                detection = {"type": "server_vad", "silence_duration_ms": round(self._server.silence * 1000)}
                audio = {"input": {"format": format_, "turn_detection": detection}, "output": {"format": format_}}
                session = {"type": "realtime", "output_modalities": ["audio"], "audio": audio}
                await socket.send(json.dumps({"type": "session.update", "session": session}))
                await self._expect(socket, "session.updated")
                yield socket
        except InvalidStatus as error:
            if error.response.status_code != 503:
                raise
            retry_after = error.response.headers.get("Retry-After", "")
            raise Refused("503", float(retry_after) if retry_after.isdigit() else None) from None
        except ConnectionClosed as error:
            raise self._closed(error) from None

    def _closed(self, error: ConnectionClosed) -> Exception:
        if error.rcvd is not None and error.rcvd.code == TRY_LATER:
            return Refused(f"closed with {TRY_LATER}", None)
        return Lost(f"the connection was closed: {error}")

    async def _expect(self, socket: ClientConnection, kind: str) -> None:
        """Read up to an event of that kind."""
        async with asyncio.timeout(self._server.patience):
            while (event := json.loads(await socket.recv()))["type"] != kind:
                if event["type"] == "error":
                    raise Lost(_problem(event))

    async def _converse(self, socket: ClientConnection) -> str:
        """All turns of the visit; returns how it ended."""
        workers = [asyncio.create_task(self._listen(socket)), asyncio.create_task(self._microphone(socket))]
        try:
            return await self._turn_by_turn(socket)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _turn_by_turn(self, socket: ClientConnection) -> str:
        silent_until, speaks = self._clock.now(), False
        for number, planned in enumerate(self._visit.turns):
            if not speaks:
                await self._clock.until(silent_until + planned.think)
                self._speak(planned)
            await self._wait(partial(self._asked, number))
            turn = self._turns[number]
            await self._wait(partial(_answered, turn))
            if self._visit.vanishes_in == number:
                turn.status = "vanished"
                socket.transport.abort()
                return "vanished"
            speaks = await self._interrupt(socket, turn, planned, self._visit.turns[number + 1 :])
            if not speaks:
                await self._wait(partial(_over, turn))
                silent_until = max(self._clock.now(), _played(turn))
        return "done"

    def _asked(self, number: int) -> bool:
        return len(self._turns) > number

    def _speak(self, planned: PlannedTurn) -> None:
        recording = self._recordings[planned.question]
        for number, frame in enumerate(recording.frames):
            self._speech.append((frame, number == recording.first, number == recording.last))

    async def _interrupt(
        self, socket: ClientConnection, turn: HeardTurn, planned: PlannedTurn, following: tuple[PlannedTurn, ...]
    ) -> bool:
        """Speak the next question into an answer, if that is planned and the answer is still heard then."""
        if planned.interrupted_after is None or not turn.ready or not following:
            return False
        await self._clock.until(turn.ready[0] + planned.interrupted_after)
        if _over(turn) and self._clock.now() >= _played(turn):
            return False
        self._interrupted = self._unnoticed = turn
        self._speak(following[0])
        await self._wait(lambda: turn.interrupted is not None and _over(turn))
        assert turn.interrupted is not None
        heard = min(turn.interrupted - turn.ready[0], sum(turn.durations))
        cut = {"item_id": self._items[id(turn)], "content_index": 0, "audio_end_ms": int(1000 * heard)}
        await socket.send(json.dumps({"type": "conversation.item.truncate", **cut}))
        return True

    async def _microphone(self, socket: ClientConnection) -> None:
        """Send a frame every 20 ms, silent where nothing is said."""
        due = self._clock.now()
        while True:
            frame, first, last = self._speech.popleft() if self._speech else (SILENCE, False, False)
            event = {"type": "input_audio_buffer.append", "audio": base64.b64encode(frame).decode()}
            try:
                await socket.send(json.dumps(event))
            except ConnectionClosed as error:
                await self._fail(self._closed(error))
                return
            if first and self._interrupted is not None:
                self._interrupted.interrupted, self._interrupted = self._clock.now(), None
                await self._tell()
            if last:
                await self._tell(HeardTurn(self._clock.now()))
            due += FRAME_SECONDS
            await self._clock.until(due)

    async def _listen(self, socket: ClientConnection) -> None:
        """Note what the server says."""
        try:
            async for message in socket:
                self._note(json.loads(message))
                await self._tell()
        except ConnectionClosed as error:
            await self._fail(self._closed(error))
        else:
            await self._fail(Lost("the connection was closed"))

    def _note(self, event: Event) -> None:
        now, kind = self._clock.now(), event["type"]
        if kind == "error":
            self._broken = Lost(_problem(event))
        elif kind == "input_audio_buffer.speech_started" and self._unnoticed is not None:
            self._unnoticed.noticed, self._unnoticed = now, None
        elif kind == "input_audio_buffer.speech_stopped" and self._turns and self._turns[-1].decided is None:
            self._turns[-1].decided = now
        elif kind == "response.created" and self._turns and self._turns[-1] not in self._answers.values():
            self._answers[event["response"]["id"]] = self._turns[-1]
        elif kind == "response.output_audio.delta" and (turn := self._answers.get(event["response_id"])):
            self._items[id(turn)] = event["item_id"]
            turn.ready.append(now)
            turn.durations.append(len(base64.b64decode(event["delta"])) / (2 * RATE))
        elif kind == "response.done" and (turn := self._answers.get(event["response"]["id"])):
            status = event["response"]["status"]
            turn.ended, turn.status = now, STATUS.get(status, "failed")
            turn.problem = f"response {status}" if turn.status == "failed" else ""

    async def _tell(self, turn: HeardTurn | None = None) -> None:
        async with self._news:
            if turn is not None:
                self._turns.append(turn)
            self._news.notify_all()

    async def _fail(self, error: BaseException) -> None:
        self._broken = self._broken or error
        await self._tell()

    async def _wait(self, happened: Callable[[], bool]) -> None:
        """Wait until that has happened; give up when patience ends."""
        async with asyncio.timeout(self._server.patience), self._news:
            await self._news.wait_for(lambda: happened() or self._broken is not None)
        if self._broken is not None and not happened():
            raise self._broken


def _answered(turn: HeardTurn) -> bool:
    return bool(turn.ready) or _over(turn)


def _over(turn: HeardTurn) -> bool:
    return turn.ended is not None


def _played(turn: HeardTurn) -> float:
    """When a player that started with the first sound, and never ran dry, is through."""
    return turn.ready[0] + sum(turn.durations) if turn.ready else 0.0


def _problem(event: Event) -> str:
    error = event.get("error", {})
    return f"{error.get('code') or error.get('type')}: {error.get('message')}"

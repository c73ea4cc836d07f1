"""What the suites of clients and of the page hold answers with: tests/held_answers.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

from omni2_engine import Engine
from omni2_engine.live.events import Event, Interrupted, SoundMade

from ...held_answers import LOOK, HeldAnswers
from .scenes import recording


def test_an_answer_is_held_until_it_is_interrupted(tiny_engine: Engine, repository: Path) -> None:
    async def main() -> tuple[bool, list[Event]]:
        with tiny_engine.live(detection=None, chunks="fixed", seed=3, max_new_tokens=14, max_last_write=30) as live:
            held = HeldAnswers(live, 0.0, lambda: True)
            live.feed(recording(repository, "examples/sum.wav"))
            live.commit()
            live.respond()
            while not isinstance(await anext(held), SoundMade):
                pass
            following = asyncio.ensure_future(anext(held))
            while not (following.done() or live._events._events):  # until there is something that could be taken
                await asyncio.sleep(LOOK)
            await asyncio.sleep(2 * LOOK)  # a consumer has been told of it by now, and been given its turn
            waits = not following.done()
            live.interrupt(heard=0.1)
            events = [await following]
            while not isinstance(events[-1], Interrupted):
                events.append(await anext(held))
            return waits, events

    waits, events = asyncio.run(main())
    assert waits and not any(isinstance(event, SoundMade) for event in events)

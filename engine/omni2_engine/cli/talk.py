"""`omni2-engine talk`: converse with the model by microphone and loudspeaker, or with two files in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer
from rich.console import Console

from omni2_engine.audio.sink import open_writer
from omni2_engine.backends.select import Device
from omni2_engine.cli.require import require
from omni2_engine.cli.talk_buffer import PlayoutDelay, no_delay
from omni2_engine.cli.talk_screen import TalkScreen
from omni2_engine.cli.talk_sound import Floats, Player, RecordedTalk, SoundCard, SoundDevice, loudness
from omni2_engine.engine import Engine
from omni2_engine.errors import SettingError
from omni2_engine.live.conversation import LiveConversation
from omni2_engine.live.detection.smart_turn import SmartTurn
from omni2_engine.live.events import Interrupted, SoundMade
from omni2_engine.live.settings import Detection, Eagerness
from omni2_engine.model.manifest import EngineDirectory

DETECTION, ANSWER, MACHINE = "Turn detection", "Answer", "Machine"
DEFAULT = Detection()


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""

    @app.command()
    def talk(
        engine: Annotated[Path, typer.Argument(help="engine directory")],
        in_: Annotated[
            Path | None, typer.Option("--in", help="an audio file in place of the microphone, in real time")
        ] = None,
        out: Annotated[
            str | None, typer.Option("--out", help="a WAV in place of the loudspeaker, with the time of --in")
        ] = None,
        headphones: Annotated[
            bool,
            typer.Option("--headphones", help="hear also while the model speaks, so that it can be interrupted"),
        ] = False,
        threshold: Annotated[
            float, typer.Option(help="probability of a voice", rich_help_panel=DETECTION)
        ] = DEFAULT.threshold,
        silence: Annotated[
            float, typer.Option(help="seconds of it that end a turn", rich_help_panel=DETECTION)
        ] = DEFAULT.silence,
        eagerness: Annotated[
            str | None,
            typer.Option(help="low, medium, auto or high: the sentence ends a turn", rich_help_panel=DETECTION),
        ] = None,
        smart_turn: Annotated[
            Path | None, typer.Option(help="smart-turn-v3 ONNX file, for --eagerness", rich_help_panel=DETECTION)
        ] = None,
        least_speech: Annotated[
            float, typer.Option(help="seconds; less is a cough", rich_help_panel=DETECTION)
        ] = DEFAULT.least_speech,
        speculate: Annotated[
            bool, typer.Option(help="begin answers before the end of speech is certain", rich_help_panel=DETECTION)
        ] = True,
        voice: Annotated[str | None, typer.Option(help="a voice of the engine", rich_help_panel=ANSWER)] = None,
        system: Annotated[str | None, typer.Option(help="system prompt", rich_help_panel=ANSWER)] = None,
        seed: Annotated[int, typer.Option(help="one seed, one answer", rich_help_panel=ANSWER)] = 0,
        device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt", rich_help_panel=MACHINE)] = Device.AUTO,
        threads: Annotated[int | None, typer.Option(help="processor threads", rich_help_panel=MACHINE)] = None,
    ) -> None:
        """Talk with the model. Ctrl-C ends it.

        Without headphones it does not hear you while it speaks, as it would hear itself.

        ```
        omni2-engine talk ENGINE --headphones
        omni2-engine talk ENGINE --in question.wav --out answer.wav
        ```
        """
        EngineDirectory(engine)
        detection = Detection(
            threshold=threshold,
            silence=silence,
            eagerness=cast(Eagerness | None, eagerness),  # `Detection` checks it
            least_speech=least_speech,
            soft_end=DEFAULT.soft_end if speculate else None,
        )
        if (in_ is None) != (out is None):
            raise SettingError("--in and --out go together", "give both, or neither to use the sound card")
        if in_ is None:
            require("talk", "sounddevice")
        sentence_end = None if smart_turn is None else SmartTurn(smart_turn)
        console = Console()
        with console.status("Loading the engine") if console.is_terminal else contextlib.nullcontext():
            loaded = Engine.load(engine, threads=threads, device=device)
        with loaded:
            player = Player(loaded.sample_rate, PlayoutDelay() if in_ is None else no_delay())
            with (
                _sound(player, in_, out) as sound,
                loaded.live(
                    detection=detection,
                    sentence_end=sentence_end,
                    voice=voice,
                    system=system,
                    seed=seed,
                    chunks="growing",
                ) as live,
            ):
                _converse(live, player, sound, console, deaf=not (headphones or in_ is not None))


@contextmanager
def _sound(player: Player, recording: Path | None, output: str | None) -> Iterator[SoundDevice]:
    """Where to hear and to speak."""
    if recording is None or output is None:
        card = SoundCard(player)
        try:
            yield card
        finally:
            card.close()
        return
    with open_writer(output, player.rate) as writer:
        recorded = RecordedTalk(player, recording, writer)
        try:
            yield recorded
        finally:
            recorded.close()


def _converse(live: LiveConversation, player: Player, sound: SoundDevice, console: Console, deaf: bool) -> None:
    """Converse until there is no more input.

    Args:
        deaf: hear nothing while the model speaks.
    """
    heard = 0.0

    def hear(frame: Floats, rate: int) -> None:
        nonlocal heard
        frame = np.zeros_like(frame) if deaf and player.playing else frame
        heard = loudness(frame)
        with contextlib.suppress(SettingError):  # it was closed meanwhile
            live.feed(frame, rate)
            live.played(*player.played)

    def finished() -> None:
        with contextlib.suppress(SettingError):
            live.end()

    with TalkScreen(console, lambda: (heard, player.level)) as screen, contextlib.suppress(KeyboardInterrupt):
        sound.start(hear, finished)
        if console.is_terminal:
            console.print("Speak; Ctrl-C ends it.", style="dim")
        for event in live:
            if isinstance(event, SoundMade):
                player.add(event.turn, event.chunk)
            elif isinstance(event, Interrupted):
                player.stop()
            screen.show(event)

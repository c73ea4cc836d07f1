"""The tuning constants of the engine, by the part that uses them: each with its unit and the reason for its value.

They trade time, memory and even playback against each other.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TurnTuning:
    """How far the stages of one turn may run ahead, and how chunks grow.

    Attributes:
        groups_ahead: groups of R text tokens that the language model may be ahead of the speech LM. Two: one waits
            while the other is read, so that the speech LM never waits for text, and a cancelled turn has decoded little
            in vain.
        chunks_ahead: flow calls of the longest kind that the speech LM may be ahead of the flow. Two, as above.
        growth: sizes of a growing chunk schedule, as multiples of the first. A longer chunk costs less per second of
            sound, as the flow computes an unfinished block anew in every call, and comes later.
        prepared_chunks: that a prepared turn makes before it is asked for. Two: the first has little sound, as the
            vocoder keeps its last frames back, so that a player would have to wait for the second.
        late: seconds without sound after which a player is starving. Then there is too much work for short chunks, and
            chunks of twice the first size and more are made.
    """

    groups_ahead: int = 2
    chunks_ahead: int = 2
    growth: tuple[int, ...] = (1, 2, 4)
    prepared_chunks: int = 2
    late: float = 0.25


@dataclass(frozen=True)
class PlayoutTuning:
    """The forecast of when a player may start, see `omni2_engine.turn.playout`.

    Attributes:
        recent: turns whose arrivals are kept. Few, so that the forecast follows a change of load.
        variation: share of the mean time between two chunks that is added for times that vary.
        usual_sound: seconds of sound that an answer is expected to have before longer ones were seen.
    """

    recent: int = 4
    variation: float = 0.5
    usual_sound: float = 5.0


@dataclass(frozen=True)
class SessionTuning:
    """Waiting turns, full contexts and the threads of coroutines.

    Attributes:
        smoothing: weight of the newest turn in the mean time that a turn takes, from which `BusyError` computes
            `retry_after`. The last six turns have nine tenths of the weight.
        kept_when_full: share of a full context that stays. If turns were dropped one at a time, every further turn
            would prefill the rest again.
        helpers: threads that read audio and end turns for coroutines.
    """

    smoothing: float = 0.3
    kept_when_full: float = 0.5
    helpers: int = 4


@dataclass(frozen=True)
class MemoryTuning:
    """Memory of conversations and turns.

    Attributes:
        share: of the memory that is free when an engine is loaded, for the states of all sessions. The rest is left
            to calls and to other processes.
        least_context: seconds of its own sound that a flow sees at least, two attention blocks; admission "shorten"
            does not go below it.
        first_seconds: seconds of sound that new caches of a flow hold at most. A turn with the default left context
            (30 s) then never copies its caches to longer ones.
        prefixes: system prompts whose prefilled positions are kept, the most recently used ones.
    """

    share: float = 0.8
    least_context: float = 4.0
    first_seconds: float = 32.0
    prefixes: int = 4


@dataclass(frozen=True)
class DecodeTuning:
    """Decoding of several conversations, on the host and on a device.

    Attributes:
        most_idle: idle slots between two slots to decode. With more, two calls cost less than one: at 0.5B a call reads
            its weights in the time of 4 (int4) to 6 (int8) further rows.
        token_ring: tokens, with their hidden states, that a device keeps until the host takes them. A request has that
            many tokens at most.
        steps_ahead: steps that are enqueued at a time where a request may be ended early. Two: the device does not wait
            for the host, and one further step runs at most.
        least_visible: positions that the shortest recorded step of a device sees; each further one sees twice as many.
        warm_up_tokens: text tokens of the turn that warms an engine up: enough for every stage to run.
    """

    most_idle: int = 5
    token_ring: int = 64
    steps_ahead: int = 2
    least_visible: int = 256
    warm_up_tokens: int = 4


@dataclass(frozen=True)
class TransferTuning:
    """Copies between host and device.

    Attributes:
        table_piece: bytes of an embedding table that are copied at a time. A mapped file passes through memory of the
            host.
        least_staging: bytes of a staging buffer at first, so that small calls do not make it grow.
    """

    table_piece: int = 1 << 26
    least_staging: int = 1 << 16


@dataclass(frozen=True)
class DetectionTuning:
    """Where speech begins and ends in live conversations, beside what `omni2_engine.live.settings` lets users choose.

    Attributes:
        hysteresis: a window is silent where its probability is this much below the threshold; between the two it is as
            the one before.
        hangover: windows by which the voice detector's probability falls after the voice, on recordings.
        sentence_pause: seconds of silence after which a model is asked whether the sentence is over. What is shorter
            lies between two words.
        tail: seconds behind the speech that the model hears too. Less than a soft end, so that the sound of a turn is
            the same there and at the end.
    """

    hysteresis: float = 0.15
    hangover: int = 2
    sentence_pause: float = 0.2
    tail: float = 0.1


TURN = TurnTuning()
PLAYOUT = PlayoutTuning()
SESSIONS = SessionTuning()
MEMORY = MemoryTuning()
DECODE = DecodeTuning()
TRANSFER = TransferTuning()
DETECTION = DetectionTuning()

"""Golden arrays of the text half: prompts, language models and the read/write loop on spoken questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from omni2_engine.text import ChatTemplate, TextTokenizer
from omni2_engine.text.units import units_of_text
from omni2_export.checkpoint import Checkpoint
from omni2_export.reference.build import Reference
from omni2_export.reference.frontend import log_mel
from omni2_export.reference.prompt import mark_speech, prompt_embeds
from omni2_export.reference.read_write import LAST_WRITE, Pick, Round, Rules, forced, greedy, penalised, read_write
from omni2_export.tokenizer_files import special_tokens

Arrays = dict[str, np.ndarray]
SPOKEN_TURN = {"role": "user", "content": "<speech>"}
EXTRA_UNITS = 7  # forced units of the last write beyond W
TOP = 8  # logits kept of every greedy speech-LM step


class TextGoldens:
    """Runs turns on the reference modules and records them.

    Args:
        checkpoint: gives the chat template.
        reference: its modules.
        text, speech: its tokenizers.
        seed: of the forced units.
    """

    def __init__(
        self, checkpoint: Checkpoint, reference: Reference, text: TextTokenizer, speech: TextTokenizer, seed: int
    ) -> None:
        self.reference = reference
        self.config = reference.config
        self.template = ChatTemplate(checkpoint.chat_template, special_tokens(checkpoint.text_tokenizer))
        self.text = text
        self.speech = speech
        self.random = np.random.default_rng(seed)
        self.unit_ids = [i for i in range(min(speech.size, self.config.speech_lm.vocab)) if self._is_unit(i)]

    @torch.inference_mode()
    def turn(self, audio: np.ndarray, max_text: int, last_write: int) -> Arrays:
        """`llm_<n>.npz`: one turn with forced and greedy speech tokens, and without repetition penalty.

        Args:
            audio: (n,) int16 at 16 kHz.
            max_text: text tokens at most.
            last_write: speech tokens of the greedy runs' last write at most.
        """
        encoder, llm = self.reference.encoder, self.reference.llm
        mel = log_mel(as_float(audio), self.config.encoder)
        encoded = encoder.encode(mel[None])
        features = encoder.projector(encoded)[0]
        prompt, text, raw, ids = self._prompt([SPOKEN_TURN], [features])
        hidden, _ = llm(prompt)
        rules = self._rules(max_text, last_write)
        penalty = self.config.tokens.repetition_penalty
        greedy_rounds = self._run(prompt, rules, penalised(penalty), greedy)
        tokens = self._forced_tokens(len(greedy_rounds))
        loose = replace(rules, last_write=LAST_WRITE)
        forced_rounds = self._run(prompt, loose, penalised(penalty), forced(tokens))
        plain_rounds = self._run(prompt, rules, penalised(1.0), greedy)
        states = torch.cat([r.hidden for r in forced_rounds])
        top = torch.cat([r.speech_logits for r in greedy_rounds]).topk(min(TOP, self.config.speech_lm.vocab))
        text_ids = ids_of(greedy_rounds)
        arrays = {
            "log_mel": mel,
            "encoder_out": encoded[0],
            "projector_out": features,
            "inputs_embeds": prompt[0],
            "prefill_last_logits": llm.lm_head(hidden[0, -1]),
            "prefill_last_hidden": hidden[0, -1],
            "llm_logits": torch.cat([r.text_logits for r in forced_rounds]),
            "tts_hidden": states,
            "input_proj_out": self.reference.fusion.input_proj(states),
            "fused": torch.cat([r.fused for r in forced_rounds]),
            "f_tts_inputs_final": forced_rounds[-1].context,
            "f_tts_logits": torch.cat([r.speech_logits for r in forced_rounds]),
            "g_top8_vals": top.values,
            "g_top8_ids": top.indices,
        }
        return (
            {name: array.numpy() for name, array in arrays.items()}
            | {"audio16k_i16": audio, "prompt_text": np.array(text), "text_ids": np.array(text_ids, np.int64)}
            | {"prompt_ids_raw": np.array(raw, np.int64), "prompt_ids": np.array(ids, np.int64)}
            | self._record("f", forced_rounds)
            | self._record("g", greedy_rounds)
            | self._record("rp1", plain_rounds)
        )

    @torch.inference_mode()
    def multiturn(self, audio: dict[int, np.ndarray], answer: str) -> Arrays:
        """`llm_multiturn_*.npz`: the prompt of several spoken turns with `answer` between them."""
        messages = [SPOKEN_TURN]
        for _ in range(len(audio) - 1):
            messages += [{"role": "assistant", "content": answer}, SPOKEN_TURN]
        prompt, text, raw, ids = self._prompt(messages, [self._features(one) for one in audio.values()])
        hidden, _ = self.reference.llm(prompt)
        return {
            "wavs": np.array(list(audio), np.int64),
            "prompt_text": np.array(text),
            "prompt_ids_raw": np.array(raw, np.int64),
            "prompt_ids": np.array(ids, np.int64),
            "n_embeds": np.array(prompt.shape[1], np.int64),
            "inputs_embeds": prompt[0].numpy(),
            "prefill_last_logits": self.reference.llm.lm_head(hidden[0, -1]).numpy(),
        }

    @torch.inference_mode()
    def eos(self, audio: np.ndarray, max_text: int, last_write: int) -> Arrays:
        """`llm_eos_*.npz`: the text ends by an EOS, one pair left over (`left1`) or on a multiple of R (`mult<R>`).

        A greedy run shows which ids first appear at such places; each in turn is declared the EOS. A case for which
        the run has no such id is left out.
        """
        prompt = self._prompt([SPOKEN_TURN], [self._features(audio)])[0]
        rules = self._rules(max_text, last_write)
        pick = penalised(self.config.tokens.repetition_penalty)
        text_ids = ids_of(self._run(prompt, replace(rules, eos=()), pick, greedy))
        read = self.config.read
        arrays: Arrays = {}
        for case, left_over in {"left1": 1, f"mult{read}": 0}.items():
            ends = [n for n in range(read + 1, len(text_ids) + 1) if n % read == left_over]
            ends = [n for n in ends if text_ids[n - 1] not in text_ids[: n - 1]]
            if not ends:
                continue
            eos = text_ids[ends[0] - 1]
            rounds = self._run(prompt, replace(rules, eos=(eos,)), pick, greedy)
            columns = {
                "eos": eos,
                "text_ids": ids_of(rounds),
                "read_len": [len(r.text_ids) for r in rounds],
                "ctx_len": [r.context.shape[0] for r in rounds],
                "max_new": [LAST_WRITE if r.final else rules.write for r in rounds],
                "write_len": [len(r.speech_ids) for r in rounds],
                "tts_tokens": speech_ids_of(rounds),
            }
            arrays |= {f"{case}_{name}": np.array(column, np.int64) for name, column in columns.items()}
        return arrays

    def _prompt(
        self, messages: list[dict[str, str]], features: list[Tensor]
    ) -> tuple[Tensor, str, list[int], list[int]]:
        """Input embeddings (1, P, hidden), prompt text, its ids, and the ids with speech slots marked."""
        text = self.template.render(messages)
        raw = self.text.encode(text)
        ids = mark_speech(raw, self.config.tokens.speech)
        return prompt_embeds(self.reference.llm, ids, features, self.config.tokens.context_limit), text, raw, ids

    def _features(self, audio: np.ndarray) -> Tensor:
        return self.reference.encoder(log_mel(as_float(audio), self.config.encoder)[None])[0]

    def _rules(self, max_text: int, last_write: int) -> Rules:
        tokens = self.config.tokens
        return Rules(
            self.config.read, self.config.write, tokens.eos, tokens.sep, tokens.speech_eos, max_text, last_write
        )

    def _run(self, prompt: Tensor, rules: Rules, pick_text: Pick, pick_speech: Pick) -> list[Round]:
        ours = self.reference
        return list(read_write(ours.llm, ours.fusion, ours.speech_lm, prompt, rules, pick_text, pick_speech))

    def _forced_tokens(self, rounds: int) -> Iterator[int]:
        """Random units: W for every write, in the second one fewer and an EOS, in the last one more and an EOS."""
        write, eos = self.config.write, self.config.tokens.speech_eos
        for k in range(rounds):
            final, early = k == rounds - 1, k == 1
            count = write + EXTRA_UNITS if final else (write - 1) // 2 if early else write
            yield from self.random.choice(self.unit_ids, count).tolist()
            if final or early:
                yield eos

    def _is_unit(self, token_id: int) -> bool:
        found = units_of_text(self.speech.decode([token_id]))
        return len(found) == 1 and found[0] < self.config.flow_encoder.units

    def _record(self, prefix: str, rounds: list[Round]) -> Arrays:
        spoken = "".join(self.speech.decode(r.speech_ids) for r in rounds)
        columns = {
            "text_ids": ids_of(rounds),
            "group_text_len": [len(r.text_ids) for r in rounds],
            "group_unit_len": [len(r.speech_ids) for r in rounds],
            "tts_tokens": speech_ids_of(rounds),
        }
        arrays = {f"{prefix}_{name}": np.array(column, np.int64) for name, column in columns.items()}
        return arrays | {f"{prefix}_units_string": np.array(spoken)}


def ids_of(rounds: list[Round]) -> list[int]:
    """Text ids of all rounds."""
    return [i for r in rounds for i in r.text_ids]


def speech_ids_of(rounds: list[Round]) -> list[int]:
    """Speech-LM ids of all rounds."""
    return [i for r in rounds for i in r.speech_ids]


def as_float(audio: np.ndarray) -> Tensor:
    """int16 samples as float32 in [−1, 1)."""
    return torch.from_numpy(audio.astype(np.float32) / 32768)

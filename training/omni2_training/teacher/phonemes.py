"""English text to the phonemes of the teacher voice, by way of espeak-ng's IPA."""

from __future__ import annotations

import re
import subprocess

CLAUSES = re.compile(r"([,.!?:]+\s*)")
LETTER_A = re.compile(r"\bA(?=$|\s*[,.?!])")  # the letter's name, not the article
TIE = "͡"
# espeak-ng's American IPA, diphthongs tied → the teacher's alphabet, in which each is one symbol. Longest first.
SYMBOLS = (
    ("ə͡l", "ᵊl"), ("a͡ɪ", "I"), ("a͡ʊ", "W"), ("e͡ɪ", "A"), ("o͡ʊ", "O"), ("ɔ͡ɪ", "Y"), ("d͡ʒ", "ʤ"), ("t͡ʃ", "ʧ"),
    ("ɜː", "ɜɹ"), ("ɚ", "əɹ"), ("r", "ɹ"), ("ɾ", "T"), ("ʔ", "t"), ("ɐ", "ə"), ("ɬ", "l"), ("x", "k"), ("ː", ""),
    ("e", "A"), ("o", "ɔ"), ("ʲ", ""), ("̩", ""), ("̃", ""), ("-", ""), (TIE, ""),
)  # fmt: skip


def phonemes(text: str) -> str:
    """Phonemes with stress marks; `, . ! ? :` stay where they are.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
    """
    out = []
    for part in CLAUSES.split(LETTER_A.sub("[['eI]]", text)):
        if CLAUSES.fullmatch(part):
            out.append(part.rstrip() + " ")
        elif part.strip():
            out.append(_clause(part))
    return "".join(out).strip()


def _clause(text: str) -> str:
    command = ["espeak-ng", "-q", "-v", "en-us", "--ipa", f"--tie={TIE}", text]
    spoken = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = " ".join(spoken.split())
    for symbols, replacement in SYMBOLS:
        result = result.replace(symbols, replacement)
    return result.replace("ɹɹ", "ɹ")  # espeak links an r to the vowel after it

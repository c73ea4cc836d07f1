"""The listener of a refined model: what stage `listen` learnt, moved back part of the way to the weights it began with.

Fewer questions are heard in `refine` than the released model had heard, so that what is seldom asked is forgotten. The
weights on the line between both models keep it (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
"""

from __future__ import annotations

import torch

from omni2_training.config import Settings
from omni2_training.loop import load_averaged, start_path
from omni2_training.models.listener import Listener
from omni2_training.train_llm import LISTENING, make_listener
from omni2_training.vocabulary import TextIds
from omni2_training.workspace import Workspace


def refined_listener(settings: Settings, workspace: Workspace) -> Listener:
    """Projector and language model, `settings.llm.learnt` of the way from the first weights to the last.

    Raises:
        FileNotFoundError: stage `listen` has not run, or did not begin with a released model.
    """
    listener = make_listener(settings, TextIds.load(workspace))
    load_averaged(workspace, LISTENING, listener)
    first = torch.load(start_path(workspace, LISTENING), weights_only=True)
    last = listener.state_dict()
    between = {name: torch.lerp(value, last[name], settings.llm.learnt) for name, value in first.items()}
    listener.load_state_dict(last | between)
    return listener

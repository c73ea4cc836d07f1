"""`bench simulate`: schedules against a virtual clock. Everything here computes a model; nothing runs a network.

To be read in this order: what a call costs (`device`, `effort`, `sound`, `model`), who asks for it (`load`, `turns`),
in which schedule it is answered (`original`, with the `paper`'s table and its `fit`; `ours`), what is compared
(`sweep`, `overload`, `plan`), and how it is shown (`page`, `plots`, `trace`, `run`, `command`).
"""

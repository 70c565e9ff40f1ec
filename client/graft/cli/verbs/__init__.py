"""The verbs of the command line, one a module: `add` states the grammar, `run` does what is asked for.

Arguments come parsed, errors leave as exceptions: see `graft.cli.program`. A module is imported when its verb is used:
each needs others, and together they take longer to import than most commands to run.
"""

from __future__ import annotations

import importlib
from typing import Final, Protocol, cast

from graft.cli.arguments import Verbs

SUMMARIES: Final = {
    "adapt": "stream labelled examples in and get a served version",
    "predict": "classify texts, images or clips, or a file of them",
    "evaluate": "measure a version on labelled examples",
    "next": "say what to label next: the inputs whose labels would teach a version most",
    "compare": "say which of two versions is better, and which answers change",
    "models": "list models, and how good what is live of each is",
    "versions": "list a model's versions, newest first",
    "backbones": "list the pre-trained models that the server can adapt",
    "report": "show what a version was trained on and how good it is",
    "review": "go through a version's doubtful labels, mend them and adapt",
    "promote": "make a version the live one; also rolls back",
    "alias": "list a model's aliases, or point one at a version",
    "metadata": "show a model's metadata, or change it",
    "delete": "delete a model with its versions, adaptations and examples, or one version",
    "adaptations": "list a model's adaptations, newest first",
    "cancel": "stop an adaptation: it takes no more examples and trains no more",
    "watch": "follow an adaptation until nothing more can happen to it",
    "examples": "list what is stored of a model's examples",
    "forget": "erase examples for good, with their features",
    "export": "write a self-contained bundle: ONNX graph, labels, tokenizer, runner",
    "completion": "print a script by which a shell completes graft's commands and options",
}
"""What each verb does, in the order of `graft --help`."""


class Verb(Protocol):
    """A module of this package."""

    def add(self, verbs: Verbs) -> None:
        """Adds the verb, with its arguments and with `run`, which does it."""


def module_of(name: str) -> Verb:
    """Returns the module of a verb."""
    return cast("Verb", importlib.import_module(f"{__name__}.{name}"))

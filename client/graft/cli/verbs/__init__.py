"""The verbs of the command line, one a module: `add` states the grammar, `run` does what is asked for.

Arguments come parsed, errors leave as exceptions: see `graft.cli.program`.
"""

from typing import Final

from graft.cli.verbs import (
    adapt,
    adaptations,
    alias,
    backbones,
    cancel,
    compare,
    completion,
    delete,
    evaluate,
    examples,
    export,
    forget,
    metadata,
    models,
    predict,
    promote,
    report,
    review,
    versions,
    watch,
)

VERBS: Final = (
    adapt,
    predict,
    evaluate,
    compare,
    models,
    versions,
    backbones,
    report,
    review,
    promote,
    alias,
    metadata,
    delete,
    adaptations,
    cancel,
    watch,
    examples,
    forget,
    export,
    completion,
)
"""In the order of `graft --help`."""

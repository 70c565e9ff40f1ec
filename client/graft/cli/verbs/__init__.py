"""The verbs of the command line, one a module: `add` states the grammar, `run` does what is asked for.

Arguments come parsed, errors leave as exceptions: see `graft.cli.program`.
"""

from typing import Final

from graft.cli.verbs import (
    adapt,
    backbones,
    compare,
    evaluate,
    examples,
    export,
    forget,
    models,
    predict,
    promote,
    report,
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
    promote,
    examples,
    forget,
    export,
    watch,
)
"""In the order of `graft --help`."""

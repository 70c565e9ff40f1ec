"""Hugging Face's hub: what it has of a backbone, by its id.

    python -m graft_server.backbones.hub ID

fetches what is new, and prints the folder where it lies; if it cannot, the name of the error, and the exit status is 1.
It is the one process that may reach the hub, where an operator named a hub id.
"""

from __future__ import annotations

import sys
from pathlib import Path

_FILES = ["*.json", "*.safetensors", "1_Pooling/config.json"]


def cached(hub_id: str) -> Path | None:
    """Where the files of an id lie that were fetched before; None: they were not."""
    # Imported here: it takes a quarter of a second, and most servers never download.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_FILES, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None


def main() -> int:
    """Fetches the id that the command line names."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        print(snapshot_download(sys.argv[1], allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        print(type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

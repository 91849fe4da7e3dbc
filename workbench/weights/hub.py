"""Hugging Face hub ids: only weight files and their index are fetched, and the local cache comes first when offline."""

import json
import re
from pathlib import Path

from workbench.errors import CheckpointError, CheckpointNotFoundError

HUB = "hf://"
CANDIDATES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)


def hub_file(source: str) -> Path:
    """The local copy of a hub id's weights, fetched if it is not in the cache.

    Nothing is fetched with HF_HUB_OFFLINE=1; what is in the cache opens then too.

    Args:
        source: `hf://org/name` or `hf://org/name@revision`.

    Returns:
        The weight file, or the index of shards that lie beside it.

    Raises:
        CheckpointNotFoundError: there is no such repository or revision, or it holds no weights; or offline, and it
            is not in the cache.
        CheckpointError: huggingface_hub is not installed, or the id is none.
    """
    repository, _, revision = source.removeprefix(HUB).partition("@")
    if repository.count("/") > 1 or not all(repository.split("/")):
        raise CheckpointError(source, None, "expected hf://org/name or hf://org/name@revision")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError as error:
        raise CheckpointError(source, None, "hub ids need: pip install 'weight-workbench[hub]'") from error

    absent: Exception | None = None

    def fetched(name: str, revision: str) -> Path:
        cut_off = isinstance(absent, LocalEntryNotFoundError)  # it was tried for long, and once is enough
        return Path(hf_hub_download(repository, name, revision=revision or None, local_files_only=cut_off))

    for name in CANDIDATES:
        try:
            file = fetched(name, revision)
            if name.endswith(".index.json"):
                # the index's own commit, which is not asked for again where it is in the cache
                commit = file.parent.name if re.fullmatch("[0-9a-f]{40}", file.parent.name) else revision
                for shard in sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())):
                    fetched(shard, commit)
            return file
        except (EntryNotFoundError, LocalEntryNotFoundError) as error:
            absent = error
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise CheckpointNotFoundError(
                source, None, f"the hub does not give it: {str(error).splitlines()[0]}"
            ) from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(source, None, f"its {name} is damaged: {error}") from error
    offline = isinstance(absent, LocalEntryNotFoundError)
    reason = (
        "it is not in the local cache, and the hub cannot be reached" if offline else f"it holds none of {CANDIDATES}"
    )
    raise CheckpointNotFoundError(source, None, reason) from absent

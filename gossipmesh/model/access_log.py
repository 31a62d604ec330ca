"""How an engine's access log is bounded: what the agent's configuration says and the engine's flags carry."""

from pathlib import Path
from typing import Final

import msgspec

BYTES_MAX_DEFAULT: Final = 67_108_864
BYTES_MAX_MIN: Final = 65_536
BYTES_MAX_MAX: Final = 1 << 40
KEEP_DEFAULT: Final = 4
KEEP_MAX: Final = 100
FILE_NAME: Final = "log/access.log"  # in the state folder: a folder of its own may become a disk of its own


class AccessLogSettings(msgspec.Struct, frozen=True):
    """Where lines go and how much of them is kept.

    `bytes_max` is of one file, `files_max` counts the one being written; together they never take more than
    a quarter of the disk. `sample_ratio` is the share of ordinary lines that is written; lines that tell of a
    failure always are.
    """

    path: Path
    bytes_max: int = BYTES_MAX_DEFAULT
    files_max: int = KEEP_DEFAULT
    sample_ratio: float = 1.0

    def arguments(self) -> list[str]:
        """Return the engine's flags that say the same."""
        return [
            "--access-log",
            str(self.path),
            "--access-log-max-bytes",
            str(self.bytes_max),
            "--access-log-keep",
            str(self.files_max),
            "--access-log-sample",
            repr(self.sample_ratio),
        ]

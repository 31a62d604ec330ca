"""The release that meshes are upgraded from, taken out of this clone's history, to run beside this build."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from gossipmesh.model.errors import OperatorError
from gossipmesh.net.interpreter import module_words

ROOT: Final = Path(__file__).resolve().parents[2]
RELEASE: Final = "0.2.0"
COMMIT: Final = "f60d2873bfbcf64475adbd500c429e31af1c0f53"


def holds_release(root: Path = ROOT) -> bool:
    """Tell whether the clone at `root` has the release before in its history."""
    if shutil.which("git") is None:
        return False
    found = subprocess.run(
        ["git", "-C", str(root), "cat-file", "-e", f"{COMMIT}^{{tree}}"], capture_output=True, check=False
    )
    return found.returncode == 0


def older_program(directory: Path, root: Path = ROOT) -> list[str]:
    """Unpack that build into `directory`; return what stands for `gossipmesh` there.

    It runs by this interpreter and its packages: what the two builds depend on is the same.

    Raises:
        OperatorError: the clone at `root` does not hold it. Nothing was unpacked.
    """
    command = ["git", "-C", str(root), "archive", COMMIT, "gossipmesh"]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode != 0:
        raise OperatorError(
            f"version {RELEASE} cannot run beside this build: the clone in {root} does not hold its commit "
            f"{COMMIT[:12]} ({found.stderr.decode(errors='replace').strip()[:300]}); if it is shallow, "
            "`git fetch --unshallow` brings the whole history"
        )
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return ["env", f"PYTHONPATH={directory.resolve()}", *module_words("gossipmesh.cli.main")]

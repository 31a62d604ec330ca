"""Make this checkout ready: a virtual environment in `.venv`, its packages, and system packages.

Runs on the system's bare Python, so it imports nothing but the standard library. It does nothing
twice: a stamp in `.venv` holds the hash of what was installed.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

SYSTEM_PACKAGES = {
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "openssl": "openssl",
}
BENCH_PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light", "wrk": "wrk", "serf": "serf"}
# Programs of others that tests marked `programs` talk to, or look at the mesh with.
PROGRAM_PACKAGES = {
    "curl": "curl",
    "faketime": "faketime",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "pg_ctlcluster": "postgresql",
    "psql": "postgresql-client",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "socat": "socat",
    "wrk": "wrk",
}
PACKAGES = {
    "test": SYSTEM_PACKAGES,
    "programs": SYSTEM_PACKAGES | PROGRAM_PACKAGES,
    "bench": SYSTEM_PACKAGES | BENCH_PACKAGES,
}


def main() -> int:
    """Set up for one purpose: `demo` (run-time packages), `test`, `programs` or `bench` (of others)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("purpose", choices=("demo", "test", "programs", "bench"))
    purpose = parser.parse_args().purpose
    if sys.version_info < (3, 11):
        print(f"setup: needs Python 3.11 or newer, this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    groups = {"demo": [], "test": ["dev"], "programs": ["dev"], "bench": ["dev", "bench"]}[purpose]
    install_python_packages(groups)
    install_system_packages(PACKAGES.get(purpose, {}))
    return 0


def install_python_packages(groups: list[str]) -> None:
    """Create `.venv` when it is missing or stale, and install the project and dependency groups into it."""
    source = (ROOT / "pyproject.toml").read_bytes()
    stamps = [VENV / f"setup{'-' if group else ''}{group}.stamp" for group in ["", *groups]]
    digest = hashlib.sha256(source + sys.version.encode() + str(ROOT).encode()).hexdigest()
    if all(stamp.exists() and stamp.read_text() == digest for stamp in stamps) and PYTHON.exists():
        return
    if not PYTHON.exists():
        print("setup: making a virtual environment in .venv", flush=True)
        create_venv()
    packages = ["-e", str(ROOT)]
    if groups:
        import tomllib  # here, so that an older Python gets the sentence above and no traceback

        known = tomllib.loads(source.decode())["dependency-groups"]
        packages += [package for group in groups for package in known[group]]
    print("setup: installing Python packages into .venv", flush=True)
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run([os.fspath(word) for word in command], check=True)
    for stamp in stamps:
        stamp.write_text(digest)


def create_venv() -> None:
    """Make `.venv`; Debian ships Python without `ensurepip`, which is then installed for root."""
    try:
        venv.create(VENV, with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        if not can_install():
            raise SystemExit("setup: this Python cannot make environments; install python3-venv") from None
        apt_install(["python3-venv"])
        venv.create(VENV, with_pip=True, clear=True)


def install_system_packages(wanted: dict[str, str]) -> None:
    """Install what the namespace tests (or the benchmark's peers) need, named first; root on Debian only."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({package for tool, package in wanted.items() if shutil.which(tool, path=path) is None})
    if not missing:
        return
    if not can_install():
        print(f"setup: without {', '.join(missing)} the tests that need them cannot run", file=sys.stderr)
        return
    apt_install(missing)


def can_install() -> bool:
    """Tell whether this is root on a Debian system."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(packages: list[str]) -> None:
    """Install Debian packages, saying which."""
    print(f"setup: installing system packages: {' '.join(packages)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    quiet = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
    subprocess.run([*quiet, "update"], check=True, env=environment, stdout=subprocess.DEVNULL)
    command = [*quiet, "install", "-y", "--no-install-recommends", *packages]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())

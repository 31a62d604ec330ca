"""The `authority` and `token` commands as an operator meets them: real processes, one-sentence failures."""

import base64
import json
import os
import re
import shutil
import signal
import socketserver
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trio

from gossipmesh.agent.identity.enrolment import enrol
from gossipmesh.control.ledger import Ledger
from gossipmesh.control.trust_folder import read_trust
from gossipmesh.model.identity import node_id_of, node_spiffe_id
from gossipmesh.model.records import NodeCredential, SignedRecord
from gossipmesh.trust.leaf_serial import encode_leaf_serial
from gossipmesh.wire.codec import decode_untrusted, encode
from gossipmesh.wire.versions import MEMBER_FEATURES

TIMEOUT_S = 60


@contextmanager
def admin_at(path: Path, handed: list[bytes], told: Mapping[str, bytes] = {}) -> Iterator[None]:
    """Be an agent's admin socket that takes whatever it is given, and answers `told`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            handed.append(self.rfile.read(int(self.headers["content-length"])))
            self.answer(b'{"news": true}')

        def do_GET(self) -> None:
            self.answer(told[self.path])

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    with socketserver.UnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


COMMAND = [sys.executable, "-m", "gossipmesh.cli.main"]


def gossipmesh(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with an authority in `a`."""
    done = gossipmesh("authority", "init", "--trust-domain", "mesh.test", "--dir", "a", "--dev", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.fixture
def address(made: Path) -> Iterator[str]:
    """The address of `authority serve` on it, which must end cleanly on SIGTERM."""
    words = ["authority", "serve", "--dir", "a", "--bind", "127.0.0.1:0"]
    process = subprocess.Popen([*COMMAND, *words], cwd=made, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    match = re.fullmatch(r"listening on (127\.0\.0\.1:\d+)\n", line)
    assert match, line
    yield match[1]
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, rest


def test_init_token_serve_enrol(made: Path, address: str) -> None:
    words = ["--authority", address, "--node", "n1", "--service", "shop/*", "--out", "token"]
    done = gossipmesh("token", "create", "--dir", "a", *words, cwd=made)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((made / "token").stat().st_mode) == 0o600
    assert json.loads((made / "token").read_text())["secret"] not in done.stdout + done.stderr
    identity = trio.run(enrol, made / "identity", made / "token")
    assert identity.credential_body.service_patterns == ("shop/*",)


TOKEN = ("token", "create", "--dir", "a", "--node", "n1", "--out", "token")
INIT = ("authority", "init", "--trust-domain", "mesh.test")
FAILURES: list[tuple[tuple[str, ...], int, str]] = [
    ((*INIT, "--dir", "a"), 1, "is not empty"),
    (("authority", "init", "--trust-domain", "Mesh!", "--dir", "b"), 1, "cannot be a trust domain"),
    ((*INIT, "--dir", "b", "--signer", "policy"), 1, "is not NAME:SCOPE"),
    ((*INIT, "--dir", "b", "--policy-threshold", "mesh"), 2, "is not SCOPE=N"),
    ((*INIT, "--dir", "b", "--policy-threshold", "mesh=2"), 1, "cannot be met: 1 signers of 'mesh'"),
    (("authority", "serve", "--dir", "nowhere"), 1, "no authority in nowhere"),
    (("authority", "serve", "--dir", "a", "--bind", "localhost:x"), 2, "is not ADDRESS:PORT"),
    (
        ("authority", "serve", "--dir", "a", "--bind", "203.0.113.1:8443"),
        1,
        "cannot listen on 203.0.113.1:8443",
    ),
    ((*TOKEN, "--authority", "here"), 2, "is not HOST:PORT"),
    ((*TOKEN, "--authority", "127.0.0.1:1", "--ttl", "soon"), 2, "is not a duration"),
    ((*TOKEN, "--authority", "127.0.0.1:1", "--service", "cart"), 1, "is not a service"),
    (
        (*TOKEN[:-1], "no/such/folder/token", "--authority", "127.0.0.1:1"),
        1,
        "cannot write no/such/folder/token",
    ),
]


@pytest.mark.parametrize(("words", "status", "sentence"), FAILURES, ids=[row[2] for row in FAILURES])
def test_a_failure_is_one_sentence(made: Path, words: tuple[str, ...], status: int, sentence: str) -> None:
    before = sorted(os.listdir(made))
    done = gossipmesh(*words, cwd=made)
    assert done.returncode == status
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(os.listdir(made)) == before


def test_a_key_with_open_permissions_stops_serving(made: Path) -> None:
    (made / "a" / "intermediate.key").chmod(0o644)
    done = gossipmesh("authority", "serve", "--dir", "a", "--bind", "127.0.0.1:0", cwd=made)
    assert done.returncode == 1
    assert "run `chmod 600 a/intermediate.key`" in done.stderr


def test_the_log_is_shown_and_verified(made: Path) -> None:
    words = ["token", "create", "--dir", "a", "--authority", "10.0.0.5:8443", "--out", "t", "--node"]
    for node in ("vm1", "vm2"):
        assert gossipmesh(*words, node, cwd=made).returncode == 0
    shown = gossipmesh("authority", "log", "--dir", "a", "--node", "vm2", "--json", cwd=made)
    assert [(deed["number"], deed["what"]) for deed in json.loads(shown.stdout)] == [(2, "token")]
    table = gossipmesh("authority", "log", "--dir", "a", cwd=made).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["LINE", "1", "2"]
    path = made / "a" / "log" / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"vm1", b"vm9"))
    refused = gossipmesh("authority", "log", "--dir", "a", cwd=made)
    assert refused.returncode == 1
    assert "does not hold" in refused.stderr


def test_a_node_is_revoked_on_record_and_handed_to_an_agent(made: Path, address: str) -> None:
    """Without an agent the ledger says it already, and the command says what is left to do."""
    words = ["token", "create", "--dir", "a", "--authority", address, "--node", "vm1", "--out", "t"]
    assert gossipmesh(*words, cwd=made).returncode == 0
    trio.run(enrol, made / "identity", made / "t")
    for word, again in (("revoke", ""), ("forget", " already")):
        words = ["authority", word, "vm1", "--dir", "a", "--socket", "none.sock"]
        done = gossipmesh(*words, cwd=made)
        assert done.returncode == 1
        what = "revoked" if word == "revoke" else "forgotten"
        assert re.match(rf"vm1 is {what}{again}, up to generation \d+: it renews nothing here", done.stdout)
        assert "the mesh does not know yet" in done.stderr
    handed: list[bytes] = []
    rows = [
        {"name": "vm1", "status": "alive", "features": []},
        {"name": "old", "status": "unattended", "features": ["http-route"]},
        {"name": "lost", "status": "dead", "features": ["http-route"]},
        {"name": "new", "status": "alive", "features": list(MEMBER_FEATURES)},
    ]
    with admin_at(made / "agent.sock", handed, {"/v1/members": json.dumps(rows).encode()}):
        done = gossipmesh("authority", "revoke", "vm1", "--dir", "a", "--socket", "agent.sock", cwd=made)
    assert done.returncode == 0, done.stderr
    assert "take its certificate until that ends, within 24 hours: old; upgrade them" in done.stderr
    assert "handed to the agent at agent.sock; members drop it" in done.stdout
    record = base64.b64decode(json.loads(handed[0])["record"])
    signed = decode_untrusted(record, SignedRecord, bytes_max=32_768)
    assert decode_untrusted(signed.body, NodeCredential, bytes_max=32_768).signing_key == b""
    with admin_at(made / "own.sock", handed, {}):  # the node's own agent, which ends when it is told
        done = gossipmesh("authority", "revoke", "vm1", "--dir", "a", "--socket", "own.sock", cwd=made)
    assert (done.returncode, len(handed)) == (0, 2), done.stderr
    assert "no telling whether members are of builds before 0.3" in done.stderr
    unknown = gossipmesh("authority", "revoke", "vm9", "--dir", "a", cwd=made)
    assert "vm9 is not on record here" in unknown.stderr


def test_keys_are_locked_by_a_passphrase_from_a_file_or_a_descriptor(tmp_path: Path) -> None:
    words = ["authority", "init", "--trust-domain", "mesh.test", "--encrypt", "--dir"]
    told = tmp_path / "told"
    told.write_text("correct horse\n")
    told.chmod(0o600)
    assert gossipmesh(*words, "a", "--passphrase-file", "told", cwd=tmp_path).returncode == 0
    assert b"ENCRYPTED" in (tmp_path / "a" / "documents" / "1.key").read_bytes()
    assert b"ENCRYPTED" not in (tmp_path / "a" / "credential.key").read_bytes()
    with told.open("rb") as open_file:
        done = subprocess.run(
            [*COMMAND, *words, "b", "--passphrase-fd", str(open_file.fileno())],
            cwd=tmp_path,
            pass_fds=[open_file.fileno()],
            check=False,
        )
    assert done.returncode == 0
    told.write_text("short\n")
    for more, sentence in (
        (("--passphrase-file", "told"), "a passphrase of 5 bytes"),
        ((), "nobody can be asked"),
        (("--passphrase-file", "told", "--passphrase-fd", "0"), "two passphrases"),
    ):
        done = subprocess.run(
            [*COMMAND, *words, "c", *more],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert sentence in done.stderr
        assert not (tmp_path / "c").exists()


def test_an_authority_is_restored_from_a_backup_and_asks_an_agent_before_it_serves(made: Path) -> None:
    done = gossipmesh("authority", "backup", "kept", "--dir", "a", cwd=made)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((made / "kept").stat().st_mode) == 0o600
    done = gossipmesh("authority", "restore", "kept", "--dir", "b", "--socket", "none.sock", cwd=made)
    assert (done.returncode, "restored b from a backup" in done.stdout) == (1, True)
    assert "until it was the authority signs nothing" in done.stderr
    done = gossipmesh("authority", "serve", "--dir", "b", "--bind", "127.0.0.1:0", cwd=made)
    assert "was restored from a backup" in done.stderr
    trust = read_trust(made / "a").trust_envelopes
    with admin_at(made / "agent.sock", [], {"/v1/trust": encode(trust), "/v1/credentials": encode([])}):
        done = gossipmesh("authority", "ask-mesh", "--dir", "b", "--socket", "agent.sock", cwd=made)
    assert "the mesh was asked: 0 newer versions of Trust" in done.stdout, done.stderr
    shutil.rmtree(made / "b")
    words = ("restore", "kept", "--dir", "b", "--socket", "none.sock", "--force")
    done = gossipmesh("authority", *words, cwd=made)
    assert (done.returncode, "the mesh was not asked" in done.stdout) == (0, True)


def test_a_key_is_turned_and_a_node_revoked_by_the_root_keys_through_an_agent(made: Path) -> None:
    """Each step of a rotation is the same command again; the agent is handed what was signed."""
    member = {"name": "vm1", "order": [7, 1, 1], "features": ["trust-2", "holds-trust-9"]}
    old = {"name": "vm2", "order": [8, 1, 1], "features": []}
    handed: list[bytes] = []

    def run(*words: str, members: object = (member,)) -> subprocess.CompletedProcess[str]:
        told = {"/v1/trust": encode(read_trust(made / "a").trust_envelopes)}
        told["/v1/members"] = json.dumps(list(members)).encode()  # type: ignore[call-overload]
        (made / "agent.sock").unlink(missing_ok=True)
        with admin_at(made / "agent.sock", handed, told):
            return gossipmesh("authority", *words, "--dir", "a", "--socket", "agent.sock", cwd=made)

    for said in ("version 2 names the new", "is used from now on", "version 3 names the old"):
        done = run("rotate", "credential")
        assert said in done.stdout, done.stderr
    assert len(handed) == 2
    done = run("move", "authority.example.com:8443", "10.0.0.5:8443")
    assert "version 4 names authority.example.com:8443, 10.0.0.5:8443" in done.stdout, done.stderr
    assert "is not HOST:PORT" in run("move", "here").stderr
    done = run("revoke", "vm1", "--offline")
    assert "Trust version 5 revokes vm1 up to generation 7" in done.stdout, done.stderr
    trust = read_trust(made / "a").trust
    assert trust is not None
    assert trust.revoked == {"vm1": 7}
    assert trust.authorities == ("authority.example.com:8443", "10.0.0.5:8443")
    done = run("revoke", "vm2", "--offline", members=(member, old))
    assert "members do not read" in done.stderr
    assert "vm2" in done.stderr
    assert "knows no member vm3" in run("revoke", "vm3", "--offline").stderr


def test_one_certificate_is_revoked_by_its_serial_number_and_the_command_says_what_that_does_not_do(
    made: Path,
) -> None:
    number = encode_leaf_serial(node_id_of(node_spiffe_id("mesh.test", "vm1")), 7, 8, 0)
    told = {"/v1/trust": encode(read_trust(made / "a").trust_envelopes), "/v1/members": b"[]"}
    shown = f"{number:040X}"
    colons = ":".join(shown[at : at + 2] for at in range(0, 40, 2))
    handed: list[bytes] = []
    with admin_at(made / "agent.sock", handed, told):
        done = gossipmesh("authority", "revoke", colons, "--dir", "a", "--socket", "agent.sock", cwd=made)
    assert f"Trust version 2 revokes {number:x}" in done.stdout, done.stderr
    assert "refuses this certificate only" in done.stderr
    trust = read_trust(made / "a").trust
    assert trust is not None
    assert list(trust.revoked_leaves) == [f"{number:x}"]
    assert len(handed) == 1
    with admin_at(
        made / "again.sock", [], {**told, "/v1/trust": encode(read_trust(made / "a").trust_envelopes)}
    ):
        done = gossipmesh("authority", "revoke", shown, "--dir", "a", "--socket", "again.sock", cwd=made)
    assert "already" in done.stderr
    (deed,) = (deed for deed in Ledger(made / "a").log.deeds() if deed.what == "certificate revoked")
    assert f"{number:x}" in deed.detail

"""An authority's keys and documents on disk: made once by `authority init`, read by `authority serve`.

    authority.json            trust domain, instance, format
    root.key, root.pem        X.509 root, offline: needed by `init` and `rotate` only
    intermediate.key, .pem    issues SVIDs
    documents/N.key           Ed25519 root keys, offline: needed to sign the next Trust document
    credential.key            Ed25519, signs NodeCredentials
    signers/NAME.key          Ed25519, one per policy signer, for their holders to take away
    trust/NNNNN.envelope      every version of Trust, wire form; trust.json is the newest, standard DSSE
    tokens/, nodes/           see `control.ledger`

Everything is 0600 in 0700. The folder appears whole or not at all. Ends at keys; issuing is elsewhere.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from gossipmesh.control.certificates import SERIAL_BYTES, make_intermediate, make_root, to_pem
from gossipmesh.control.given_intermediate import GivenIntermediate
from gossipmesh.control.trust_folder import load_trust, write_trust
from gossipmesh.model import limits
from gossipmesh.model.documents import Access, Signer, SignerRole, TrustDocument
from gossipmesh.model.errors import MalformedInput, OperatorError
from gossipmesh.model.identity import is_label, is_trust_domain
from gossipmesh.model.instant import WallSeconds
from gossipmesh.net.files import PARENT_MODE, make_folder
from gossipmesh.net.secret_files import (
    DIRECTORY_MODE,
    SECRET_MODE,
    read_secret,
    require_private,
    sync_directory,
    write_file,
    write_secret,
)
from gossipmesh.trust.envelope import TRUST_PAYLOAD_TYPE, seal_envelope
from gossipmesh.trust.keys import KEY_BYTES, SigningKey
from gossipmesh.trust.pem import is_locked, signing_key_from_pem_untrusted, signing_key_to_pem
from gossipmesh.trust.svid import (
    LEAF_ENTROPY_BYTES,
    leaf_key_pem,
    lock_key_pem,
    read_leaf_key_untrusted,
)
from gossipmesh.trust.trust_rules import is_scope
from gossipmesh.wire.codec import decode_json_untrusted
from gossipmesh.wire.versions import STATE_FORMAT

Entropy = Callable[[int], bytes]
"""A source of unpredictable bytes."""

DOCUMENT_ROOT_KEYS: Final = 3
DOCUMENT_ROOT_THRESHOLD: Final = 2
ROOT_THRESHOLD_MAX: Final = limits.SIGNATURES_PER_ENVELOPE_MAX // 2
INSTANCE_BYTES: Final = 8
DEFAULT_SIGNERS: Final = (("policy", "mesh"),)


class AuthorityFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of authority.json."""

    version: int
    trust_domain: str
    instance: str


@dataclass(frozen=True)
class Authority:
    """What serving needs: never the root's private key. The repr of a key holds no secret."""

    directory: Path
    trust_domain: str
    instance: str
    root_pem: str
    intermediate: x509.Certificate
    intermediate_key: ec.EllipticCurvePrivateKey
    credential_key: SigningKey
    trust_envelopes: tuple[bytes, ...]
    trust: TrustDocument


@dataclass(frozen=True)
class Plan:
    """What `authority init` was asked for; `signers` are (name, scope) pairs.

    `passphrase` locks the keys that are needed offline only: the X.509 root's and the document root's.
    `given` is an intermediate made by a CA of the operator's own, which then takes the root's place.
    `root_threshold`: how many document root keys sign Trust, None: two, or one with `dev`;
    `policy_threshold`: how many of a scope's signers sign its sets, one where it says nothing.
    """

    trust_domain: str
    directory: Path
    root_key_out: Path | None = None
    dev: bool = False
    signers: Sequence[tuple[str, str]] = DEFAULT_SIGNERS
    passphrase: bytes | None = None
    given: GivenIntermediate | None = None
    root_threshold: int | None = None
    policy_threshold: Mapping[str, int] = field(default_factory=dict)
    access: Access = Access.ALLOW

    @property
    def root_keys_count(self) -> int:
        """Return how many document root keys are made: one more than are needed, but for a laptop's one."""
        return 1 if self.dev else max(DOCUMENT_ROOT_KEYS, self.root_signatures + 1)

    @property
    def root_signatures(self) -> int:
        """Return how many document root keys have to sign the next Trust."""
        if self.root_threshold is not None:
            return self.root_threshold
        return 1 if self.dev else DOCUMENT_ROOT_THRESHOLD


def create_authority(plan: Plan, now: WallSeconds, entropy: Entropy) -> Authority:
    """Make keys, certificates and the first Trust document, all of them on disk when this returns.

    Raises:
        OperatorError: words that cannot be, a folder in use, or a disk that refuses. State unchanged.
    """
    _check_plan(plan)
    directory = plan.directory
    try:
        make_folder(directory.parent, PARENT_MODE)
        workplace = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise OperatorError(f"cannot create {directory}: {error.strerror}") from None
    root_key_written = False
    try:
        workplace.chmod(DIRECTORY_MODE)
        root_key = _fill(workplace, plan, now, entropy)
        if root_key is not None and plan.root_key_out is None:
            write_secret(workplace / "root.key", root_key)
        elif root_key is not None and plan.root_key_out is not None:
            write_file(plan.root_key_out, root_key, mode=SECRET_MODE)
            root_key_written = True
        workplace.rename(directory)
        sync_directory(directory.parent)
    except BaseException as error:
        shutil.rmtree(workplace, ignore_errors=True)
        if root_key_written and plan.root_key_out is not None:
            plan.root_key_out.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OperatorError(f"cannot create {directory}: {error.strerror}; nothing was made") from None
        raise
    return load_authority(directory)


def load_authority(directory: Path) -> Authority:
    """Read what serving needs, and check that it belongs together.

    Raises:
        OperatorError: missing, open to others, or damaged. State unchanged.
    """
    if not (directory / "authority.json").exists():
        raise OperatorError(
            f"no authority in {directory}; make one with `gossipmesh authority init --trust-domain NAME "
            f"--dir {directory}`"
        )
    require_private(directory)
    try:
        return _load(directory)
    except (MalformedInput, ValueError) as error:
        raise OperatorError(
            f"the authority in {directory} is damaged ({error}); restore it from a backup"
        ) from None


def offline_keys_here(authority: Authority) -> list[str]:
    """Return a warning where keys that are needed offline only lie open beside a serving authority.

    One of `--dev` is spared: a single key changes Trust there, and it says so when it is made.
    """
    if authority.trust.root_threshold == 1:
        return []
    paths = [authority.directory / "root.key", *sorted((authority.directory / "documents").glob("*.key"))]
    there = [str(path) for path in paths if path.exists() and not is_locked(read_secret(path))]
    if not there:
        return []
    return [
        f"warning: {', '.join(there)} lie open beside a serving authority: who takes this machine can change "
        "Trust; move them to places of their own, or make the authority with --encrypt"
    ]


def _check_plan(plan: Plan) -> None:
    if not is_trust_domain(plan.trust_domain):
        raise OperatorError(
            f"{plan.trust_domain!r} cannot be a trust domain; use lower case letters, digits, '.' and '-', "
            "such as mesh.example.com"
        )
    names = [name for name, _ in plan.signers]
    for name, scope in plan.signers:
        if not is_label(name) or not is_scope(scope):
            raise OperatorError(f"{name}:{scope} is not NAME:SCOPE, such as policy:mesh")
    if len(set(names)) != len(names):
        raise OperatorError("two signers have one name; give each signer its own")
    _check_thresholds(plan)
    if plan.directory.exists() and any(plan.directory.iterdir()):
        raise OperatorError(f"{plan.directory} is not empty; an authority is made in a folder of its own")
    if plan.root_key_out is not None and plan.root_key_out.exists():
        raise OperatorError(f"{plan.root_key_out} exists already, and a root key is never overwritten")


def _check_thresholds(plan: Plan) -> None:
    """Refuse a threshold that nobody could meet: the scope, or Trust itself, would be shut for good."""
    if plan.dev and plan.root_signatures != 1:
        raise OperatorError("--dev makes one document root key, so --root-threshold can be 1 only")
    if not 1 <= plan.root_signatures <= ROOT_THRESHOLD_MAX:
        raise OperatorError(
            f"--root-threshold is 1 to {ROOT_THRESHOLD_MAX}, not {plan.root_signatures}: the old and the new "
            "keys of a threshold sign one document"
        )
    for scope, needed in plan.policy_threshold.items():
        there = sum(1 for _, of in plan.signers if of == scope)
        if not 1 <= needed <= there:
            raise OperatorError(
                f"--policy-threshold {scope}={needed} cannot be met: {there} signers of {scope!r} are made; "
                f"name more with --signer NAME:{scope}, or ask for 1 to {there}"
            )


def _fill(workplace: Path, plan: Plan, now: WallSeconds, entropy: Entropy) -> bytes | None:
    """Write everything but the root's private key, and return that; None where the root is another's."""
    instance = entropy(INSTANCE_BYTES).hex()
    root_key = None
    if plan.given is None:
        root_key, issuing = _make_issuing(plan, instance, now, entropy)
    else:
        issuing = plan.given
    write_secret(workplace / "root.pem", issuing.root_pem.encode())
    write_secret(workplace / "intermediate.key", issuing.key_pem)
    write_secret(workplace / "intermediate.pem", issuing.intermediate_pem.encode())

    document_keys = [SigningKey(entropy(KEY_BYTES)) for _ in range(plan.root_keys_count)]
    for number, key in enumerate(document_keys, start=1):
        write_secret(workplace / "documents" / f"{number}.key", signing_key_to_pem(key, plan.passphrase))
    credential_key = SigningKey(entropy(KEY_BYTES))
    write_secret(workplace / "credential.key", signing_key_to_pem(credential_key))
    signers = [Signer("credential", SignerRole.CREDENTIAL, credential_key.public.hex())]
    for signer_name, scope in plan.signers:
        key = SigningKey(entropy(KEY_BYTES))
        write_secret(workplace / "signers" / f"{signer_name}.key", signing_key_to_pem(key))
        signers.append(Signer(signer_name, SignerRole.POLICY, key.public.hex(), (scope,)))
    trust = TrustDocument(
        version=1,
        trust_domain=plan.trust_domain,
        root_certificates=(issuing.root_pem,),
        intermediates=(issuing.intermediate_pem,),
        root_keys=tuple(key.public.hex() for key in document_keys),
        root_threshold=plan.root_signatures,
        signers=tuple(signers),
        policy_threshold=dict(plan.policy_threshold),
        access=plan.access,
    )
    envelope = seal_envelope(TRUST_PAYLOAD_TYPE, msgspec.json.encode(trust), document_keys)
    write_trust(workplace, envelope, trust.version)
    for folder in ("tokens", "nodes"):
        (workplace / folder).mkdir(mode=DIRECTORY_MODE)
    description = AuthorityFile(STATE_FORMAT, plan.trust_domain, instance)
    write_secret(workplace / "authority.json", msgspec.json.encode(description) + b"\n")
    return root_key


def _make_issuing(
    plan: Plan, instance: str, now: WallSeconds, entropy: Entropy
) -> tuple[bytes, GivenIntermediate]:
    """Make a root and an intermediate; return the root's key as it is kept, and what issues."""
    root_key_pem = leaf_key_pem(entropy(LEAF_ENTROPY_BYTES))
    root_key = read_leaf_key_untrusted(root_key_pem)
    root = make_root(root_key, f"gossipmesh root {instance}", now, entropy(SERIAL_BYTES))
    key_pem = leaf_key_pem(entropy(LEAF_ENTROPY_BYTES))
    public_key = read_leaf_key_untrusted(key_pem).public_key()
    name = f"gossipmesh issuing {instance}"
    intermediate = make_intermediate(public_key, name, root, root_key, now, entropy(SERIAL_BYTES))
    issuing = GivenIntermediate(to_pem(root).decode(), to_pem(intermediate).decode(), key_pem)
    return lock_key_pem(root_key_pem, plan.passphrase), issuing


def _load(directory: Path) -> Authority:
    content = read_secret(directory / "authority.json")
    described = decode_json_untrusted(content, AuthorityFile, "authority.json of this build")
    if described.version != STATE_FORMAT:
        raise MalformedInput(f"its format is {described.version}, this build reads {STATE_FORMAT}")
    root_pem = read_secret(directory / "root.pem").decode("ascii")
    intermediate = x509.load_pem_x509_certificate(read_secret(directory / "intermediate.pem"))
    intermediate_key = read_leaf_key_untrusted(read_secret(directory / "intermediate.key"))
    if intermediate.public_key() != intermediate_key.public_key():
        raise MalformedInput("intermediate.key is not the key of intermediate.pem")
    credential_key = signing_key_from_pem_untrusted(read_secret(directory / "credential.key"))
    documents = load_trust(directory, described.trust_domain)
    trust = documents.trust
    if trust is None or credential_key.public not in documents.credential_keys.values():
        raise MalformedInput("the newest Trust document does not name credential.key")
    if root_pem not in trust.root_certificates:
        raise MalformedInput("the newest Trust document does not name root.pem")
    return Authority(
        directory=directory,
        trust_domain=described.trust_domain,
        instance=described.instance,
        root_pem=root_pem,
        intermediate=intermediate,
        intermediate_key=intermediate_key,
        credential_key=credential_key,
        trust_envelopes=tuple(documents.trust_envelopes),
        trust=trust,
    )

"""Sections: one encoding, checked hashes, whole snapshots only."""

import random
import subprocess
import sys

import msgspec
import pytest

from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.member import Address
from gossipmesh.model.snapshot import (
    HAS_KEY_SETS,
    Caller,
    CallersSection,
    CredentialsSection,
    PinsSection,
    Section,
    SnapshotEndpoint,
    TrustSection,
    UpstreamSection,
)
from gossipmesh.traffic import sections
from gossipmesh.traffic.compiler import DEFAULT_LIMITS
from gossipmesh.wire import codec


def upstream(count: int) -> UpstreamSection:
    endpoints = tuple(
        SnapshotEndpoint(
            "cart", f"n{i}", Address("10.0.0.1", 15008), "cart.cart.shop.m", "spiffe://m/x", 0, i + 1
        )
        for i in range(count)
    )
    return UpstreamSection("shop/cart", "shop/cart", "http", endpoints)


def encoded(count: int) -> dict[str, bytes]:
    return {
        "upstream/shop/cart": sections.encode_section(upstream(count)),
        "callers": sections.encode_section(CallersSection("spiffe://m/node/a", (Caller(1, "spiffe://m/x"),))),
    }


@pytest.mark.parametrize("section", [upstream(0), upstream(3), CallersSection("spiffe://m/node/a", ())])
def test_the_fast_encoder_writes_the_codecs_bytes(section: Section) -> None:
    """Another engine decodes by docs/ENGINE.md; two encodings of one value would be two versions."""
    assert sections.encode_section(section) == codec.encode(section)


def test_a_section_reads_back_as_the_struct_its_name_promises() -> None:
    data = sections.encode_section(upstream(2))
    assert sections.decode_section_untrusted("upstream/shop/cart", data) == upstream(2)
    for name in ("callers", "unheard/of", "upstream/", "upstream", "callers/x", ""):
        with pytest.raises(MalformedInput):
            sections.decode_section_untrusted(name, data)


def pin_entry(pin: bytes, node: bytes = b"n" * 8) -> bytes:
    return pin.ljust(16, b"p") + node


def credential_entry(node: bytes, generation: int = 1, serial: int = 1) -> bytes:
    numbers = generation.to_bytes(8, "big") + serial.to_bytes(8, "big")
    return node.ljust(8, b"n") + numbers + bytes([HAS_KEY_SETS])


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("pins/07", PinsSection(b"")),
        ("pins/07", PinsSection(pin_entry(b"\x07a") + pin_entry(b"\x07b"))),
        ("pins/07", PinsSection(pin_entry(b"\x07a", b"a" * 8) + pin_entry(b"\x07a", b"b" * 8))),
        ("credentials/ff", CredentialsSection(credential_entry(b"\xffa") + credential_entry(b"\xffb"))),
        ("trust", TrustSection(("pem",), True)),
        ("trust", TrustSection(("pem",), True, ("1a5e",))),
    ],
)
def test_what_is_said_of_keys_reads_back(name: str, section: Section) -> None:
    assert sections.decode_section_untrusted(name, sections.encode_section(section)) == section


@pytest.mark.parametrize(
    ("name", "section", "why"),
    [
        ("pins/07", PinsSection(pin_entry(b"\x07a")[:-1]), "whole number"),
        ("pins/07", PinsSection(pin_entry(b"\x07b") + pin_entry(b"\x07a")), "order"),
        ("pins/07", PinsSection(pin_entry(b"\x07a") * 2), "order"),
        ("pins/07", PinsSection(pin_entry(b"\x08a")), "another section"),
        ("pins/7", PinsSection(b""), "knows"),
        ("pins/0A", PinsSection(b""), "knows"),
        ("credentials/07", CredentialsSection(credential_entry(b"\x07a") + b"x"), "whole number"),
        (
            "credentials/07",
            CredentialsSection(credential_entry(b"\x07a", 1) + credential_entry(b"\x07a", 2)),
            "order",
        ),
        ("credentials/07", CredentialsSection(credential_entry(b"\x06a")), "another section"),
    ],
)
def test_tables_that_a_search_by_halves_would_misread_are_refused(
    name: str, section: Section, why: str
) -> None:
    with pytest.raises(MalformedInput, match=why):
        sections.decode_section_untrusted(name, sections.encode_section(section))


@pytest.mark.parametrize("field", ["retry_budget_ratio", "ejection_share", "panic_share"])
@pytest.mark.parametrize("share", [float("nan"), float("inf"), -0.1, 1e7])
def test_a_share_that_is_none_is_refused_with_its_snapshot(field: str, share: float) -> None:
    strange = sections.encode_section(msgspec.structs.replace(DEFAULT_LIMITS, **{field: share}))
    with pytest.raises(MalformedInput, match="a share or ratio of"):
        sections.decode_section_untrusted("limits", strange)


def test_an_endpoint_without_pins_has_the_bytes_of_before() -> None:
    """An engine of a release before is sent such ones only."""
    plain = upstream(1).endpoints[0]
    assert b"pins" not in sections.encode_section(upstream(1))
    listed = UpstreamSection("shop/cart", "shop/cart", "http", (msgspec.structs.replace(plain, pins=()),))
    assert sections.decode_section_untrusted("upstream/x", sections.encode_section(listed)) == listed


def test_only_what_is_missing_travels_and_the_result_is_equal() -> None:
    old, new = sections.make_snapshot(encoded(1)), sections.make_snapshot(encoded(2))
    missing = sections.missing_sections(new.root, old.sections)
    assert missing == [new.root["upstream/shop/cart"]]
    sent = {digest: new.sections[digest] for digest in missing}
    assert sections.assemble(new.root, old.sections, sent) == new
    assert old.version != new.version


def test_a_root_in_another_order_has_the_same_version() -> None:
    snapshot = sections.make_snapshot(encoded(1))
    backwards = dict(reversed(snapshot.root.items()))
    assert sections.assemble(backwards, {}, snapshot.sections).version == snapshot.version


def test_an_incomplete_or_damaged_snapshot_is_refused() -> None:
    snapshot = sections.make_snapshot(encoded(1))
    digest, data = next(iter(snapshot.sections.items()))
    others = {key: value for key, value in snapshot.sections.items() if key != digest}
    with pytest.raises(MalformedInput, match="missing"):
        sections.assemble(snapshot.root, {}, others)
    with pytest.raises(MalformedInput, match="does not have the hash"):
        sections.assemble(snapshot.root, {}, {**others, digest: data + b"\0"})
    with pytest.raises(MalformedInput, match="not in the root"):
        sections.assemble(snapshot.root, snapshot.sections, {sections.section_hash(b"x"): b"x"})


def test_a_stored_snapshot_comes_back_and_a_damaged_one_does_not() -> None:
    snapshot = sections.make_snapshot(encoded(3))
    data = sections.encode_snapshot(snapshot)
    assert sections.decode_snapshot_untrusted(data) == snapshot
    for at in range(0, len(data), 7):
        damaged = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
        try:
            assert sections.decode_snapshot_untrusted(damaged).version != snapshot.version
        except MalformedInput:
            continue


def test_the_version_is_the_same_under_any_hash_seed() -> None:
    program = (
        "from gossipmesh.traffic import sections as s\n"
        "from gossipmesh.model.snapshot import CallersSection as C\n"
        "print(s.make_snapshot({n: s.encode_section(C(n, ())) for n in set('abcdefgh')}).version)"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(printed) == 1


def test_a_mutated_section_is_read_or_refused() -> None:
    rng = random.Random(5)
    data = sections.encode_section(upstream(3))
    refused = 0
    for _ in range(5_000):
        mutated = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(mutated))
            mutated[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 3))
        try:
            sections.decode_section_untrusted("upstream/shop/cart", bytes(mutated))
        except MalformedInput:
            refused += 1
    assert 1_000 < refused < 5_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa7unknown" + b"\x91" * 100_000,
        b"\x81\xa7callers\xdd\x0f\xff\xff\xff",
        b"\x82\xaenode_spiffe_id\xa1\xff\xa7callers\x90",
    ],
)
def test_lengths_and_depths_that_lie_cost_nothing(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        sections.decode_section_untrusted("callers", data)

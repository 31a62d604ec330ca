"""Seeds by host name: what is a name, what is said, and what is handed on when."""

import itertools
import logging
import random
from collections.abc import Callable, Iterator

import pytest
import trio

from gossipmesh.agent.seeds import SeedName, Seeds, parse_seed
from gossipmesh.model import limits
from gossipmesh.model.errors import MalformedInput
from gossipmesh.model.member import Address
from gossipmesh.net.resolver import ANY_FAMILY, IPV4, IPV6

NAME = SeedName("mesh.example.com", 7948)
ANYWHERE = Address("0.0.0.0", 7948)


@pytest.fixture(autouse=True)
def propagating(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    log = logging.getLogger("gossipmesh")
    before, log.propagate = log.propagate, True
    caplog.set_level("INFO", "gossipmesh")
    yield
    log.propagate = before


class Resolver:
    """Knows what the test says: addresses, or the reason why there are none."""

    def __init__(self, **hosts: list[str] | str) -> None:
        self.hosts = {host.replace("_", "."): told for host, told in hosts.items()}
        self.asked: list[tuple[float, str, int]] = []

    async def __call__(
        self, host: str, port: int, family: int, limiter: trio.CapacityLimiter, timeout_s: float
    ) -> list[Address]:
        self.asked.append((trio.current_time(), host, family))
        told = self.hosts.get(host, "no such name")
        if isinstance(told, str):
            raise OSError(0, told)
        return [Address(text, port) for text in told]

    def seeds(self, *seeds: Address | SeedName, bind: Address = ANYWHERE) -> Seeds:
        return Seeds(seeds, bind, rng=random.Random(1), lookup=self)


@pytest.mark.parametrize(
    ("text", "seed"),
    [
        ("10.0.0.1:7948", Address("10.0.0.1", 7948)),
        ("[fd00:0::1]:7948", Address("fd00::1", 7948)),
        ("mesh.example.com:7948", NAME),
        ("Mesh.Example.COM:7948", NAME),
        ("mesh.example.com.:7948", SeedName("mesh.example.com.", 7948)),
        ("localhost:7948", SeedName("localhost", 7948)),
        ("node-1_a.internal:1", SeedName("node-1_a.internal", 1)),
        ("3com.com:65535", SeedName("3com.com", 65_535)),
        ("xn--bcher-kva.example:7948", SeedName("xn--bcher-kva.example", 7948)),
    ],
)
def test_a_seed_is_an_address_or_a_name(text: str, seed: Address | SeedName) -> None:
    assert parse_seed(text) == seed
    assert parse_seed(str(seed)) == seed


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":7948", "node-1", "mesh.example.com", "mesh.example.com:", "mesh.example.com:http"),
        *("a:65536", "a:-1", "a:+1", "a: 1", "a:1 ", " a:1", "a:000001", "a:٣"),
        *("10.0.0:7948", "10.0.0.256:7948", "1:7948", "fd00::1:7948", "[fd00::1:7948", "a%eth0:7948"),
        *("[mesh.example.com]:7948", "a..b:7948", ".a:7948", "-a.b:7948", "a-.b:7948", "a b:7948"),
        *("bücher.example:7948", "http://a:7948", "a/b:7948", f"{'a' * 64}.b:7948", f"{'a.' * 127}aa:7948"),
    ],
)
def test_what_is_neither_is_refused_with_examples(text: str) -> None:
    with pytest.raises(MalformedInput, match=r"is not ADDRESS:PORT or NAME:PORT, such as 10\.0\.0\.1:7948"):
        parse_seed(text)


async def test_addresses_are_the_fixed_ones_and_all_that_names_resolve_to() -> None:
    resolver = Resolver(mesh_example_com=["10.0.0.3", "10.0.0.2"], other=["10.0.0.1"])
    seeds = resolver.seeds(Address("10.0.0.2", 7948), NAME, SeedName("other", 7949), NAME)
    assert seeds.addresses == (Address("10.0.0.2", 7948),)
    await seeds.look()
    assert list(map(str, seeds.addresses)) == ["10.0.0.2:7948", "10.0.0.3:7948", "10.0.0.1:7949"]
    assert sorted(host for _, host, _ in resolver.asked) == ["mesh.example.com", "other"], "each once"


@pytest.mark.parametrize(
    ("bind", "family"), [("0.0.0.0", IPV4), ("10.0.0.1", IPV4), ("::", ANY_FAMILY), ("fd00::1", IPV6)]
)
async def test_only_addresses_that_packets_can_go_to_are_asked_for(bind: str, family: int) -> None:
    resolver = Resolver(mesh_example_com=["10.0.0.1"])
    await resolver.seeds(NAME, bind=Address(bind, 7948)).look()
    assert [asked for _, _, asked in resolver.asked] == [family]


async def test_a_name_with_any_number_of_addresses_is_cut() -> None:
    resolver = Resolver(mesh_example_com=[f"10.0.{n}.1" for n in range(200)])
    seeds = resolver.seeds(NAME)
    await seeds.look()
    assert len(seeds.addresses) == limits.ADDRESSES_PER_SEED_MAX
    many = Resolver(**{f"n{n}": [f"10.{n}.{m}.1" for m in range(9)] for n in range(9)})
    seeds = many.seeds(*(SeedName(f"n{n}", 7948) for n in range(9)))
    await seeds.look()
    assert len(seeds.addresses) == limits.SEEDS_MAX


async def test_each_thing_is_said_once_and_again_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    resolver = Resolver()
    seeds = resolver.seeds(NAME)
    for told in ("no such name", "no such name", "no answer within 3 s"):
        resolver.hosts["mesh.example.com"] = told
        await seeds.look()
    assert seeds.unresolved == {"mesh.example.com:7948": "no answer within 3 s"}
    for found in (["10.0.0.1"], ["10.0.0.1"], ["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"]):
        resolver.hosts["mesh.example.com"] = found
        await seeds.look()
    assert seeds.unresolved == {}
    resolver.hosts["mesh.example.com"] = "no such name"
    await seeds.look()
    assert len(seeds.addresses) == 2, "what it resolved to before stays in use"
    resolver.hosts["mesh.example.com"] = ["10.0.0.1", "10.0.0.2"]
    await seeds.look()
    assert [record.getMessage() for record in caplog.records] == [
        "the seed mesh.example.com:7948 does not resolve: no such name; it is tried again",
        "the seed mesh.example.com:7948 does not resolve: no answer within 3 s; it is tried again",
        "the seed mesh.example.com:7948 is at 10.0.0.1:7948",
        "the seed mesh.example.com:7948 is at 10.0.0.1:7948, 10.0.0.2:7948",
        "the seed mesh.example.com:7948 does not resolve: no such name; its last addresses stay in use",
        "the seed mesh.example.com:7948 is at 10.0.0.1:7948, 10.0.0.2:7948",
    ]


async def test_a_name_that_never_resolved_may_be_somebody_else() -> None:
    resolver = Resolver(here=["10.0.0.1"])
    own = {Address("10.0.0.1", 7948)}
    assert not resolver.seeds().name_others(own)
    assert not resolver.seeds(Address("10.0.0.1", 7948)).name_others(own)
    assert resolver.seeds(Address("10.0.0.2", 7948)).name_others(own)
    for name, others in (("here", False), ("nowhere", True)):
        seeds = resolver.seeds(SeedName(name, 7948))
        assert seeds.name_others(own), "not looked up yet"
        await seeds.look()
        assert seeds.name_others(own) is others


async def handed_within(
    seeds: Seeds, seconds: float, is_alone: Callable[[], bool]
) -> list[tuple[float, tuple[str, ...]]]:
    """Run seeds for a while; return what was handed on, and when."""
    began, handed = trio.current_time(), []
    with trio.move_on_after(seconds):
        await seeds.run(
            lambda told: handed.append((trio.current_time() - began, tuple(map(str, told)))), is_alone
        )
    return handed


async def test_a_node_that_is_alone_looks_often_and_hands_on_what_changed(autojump_clock: object) -> None:
    resolver = Resolver()
    seeds = resolver.seeds(Address("10.0.0.9", 7948), NAME)
    assert await handed_within(seeds, 3_600, lambda: True) == []
    times = [at for at, _, _ in resolver.asked]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.9 <= waits[0] <= 1
    assert 27 <= max(waits) <= 30
    resolver.hosts["mesh.example.com"] = ["10.0.0.1"]
    assert await handed_within(seeds, 3_600, lambda: True) == [(0, ("10.0.0.9:7948", "10.0.0.1:7948"))]


async def test_a_node_among_others_looks_every_five_minutes(autojump_clock: object) -> None:
    resolver = Resolver(mesh_example_com=["10.0.0.1"])
    seeds = resolver.seeds(NAME)
    await handed_within(seeds, 3_600, lambda: False)
    assert 12 <= len(resolver.asked) <= 15
    resolver.asked.clear()
    await handed_within(resolver.seeds(Address("10.0.0.9", 7948)), 3_600, lambda: True)
    assert resolver.asked == [], "addresses need no looking up"


async def test_a_node_that_moved_looks_at_once_and_often_for_a_minute(autojump_clock: object) -> None:
    """All of a site may have moved with it, and names are the only way back to each other."""
    resolver = Resolver(mesh_example_com=["10.0.0.1"])
    seeds = resolver.seeds(NAME)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seeds.run, lambda told: None, lambda: False)
        await trio.sleep(400)
        before = len(resolver.asked)
        moved_at = trio.current_time()
        seeds.hurry()
        await trio.sleep(0.01)
        assert len(resolver.asked) == before + 1, "at once"
        await trio.sleep(60)
        assert len(resolver.asked) >= before + 6
        await trio.sleep(3_600)
        late = [at for at, _, _ in resolver.asked if at > moved_at + 120]
        assert 11 <= len(late) <= 15, "then as ever"
        nursery.cancel_scope.cancel()

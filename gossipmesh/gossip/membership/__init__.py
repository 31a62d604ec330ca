"""Who is a member, what each member signed, and which of two records is newer.

Responsible for: the catalogue, the order of records in it and their way to disk; status as a maximum over
records; the sums that two nodes compare; this node's own state, services and epoch, the last of which is on
disk first; what is taken back from disk; credentials that end; the views that the rest of an agent reads.
Ends where somebody has to be told: what follows from a merged record is `intake`'s, who is gone is
`failure`'s.
Rules:
1. A record is verified before it is stored; orders are compared before that, so that echoes cost nothing.
2. Merging is a maximum: any order of arrival and any repetition ends alike.
3. Only the owner raises its own order, and an epoch is on disk before anybody hears of it.
4. A refused record is raised as an error and leaves no trace here.
In: `SignedRecord` values, from outside (`merge_untrusted`), from our own hand (`OwnRecords`), from disk
(`restoring`). Out: a `Change` for each record that was merged, `Persist` and `MemberChanged` effects,
views.
Facade: `catalog.Catalog`; `own.OwnRecords` signs, `views` reads.
Paper: SWIM section 4.2. Deviation: one total order instead of its override table.
"""

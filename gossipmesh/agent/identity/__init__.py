"""Who this node is: keys, certificates and credential, from enrolment through renewals and turns.

Responsible for: asking the authority; what is held on disk; when which key is made, published and forgotten.
Ends at values: members hear of them through the core, the engine through `agent.engine`.
"""

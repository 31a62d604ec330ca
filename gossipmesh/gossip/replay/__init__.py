"""Beside the core: what it was given is kept, so that what it did can be done again.

Responsible for: the flight recorder and its memory bound; the form of a recording; making a file of it that
has no key of ours; the whole state of a core as bytes, for a replay that begins in the middle.
Ends at the file: who may have one is the agent's to say, and playing it is the simulator's.
Rules:
1. Recording never changes what a core does; what fails in it costs the recording alone.
2. No key of this node is ever written.
3. Memory has a bound, and reaching it is counted: a beginning comes first, then the newest inputs.
In: the inputs of one core. Out: a `Tape`, a `Recording`, a checkpoint.
Facade: `recorder.FlightRecorder` and its `inputs`; `rekeying.make_recording`, `checkpoint`.
Paper: none. Deviation: none.
"""

"""The names of all vectors, without playing any."""

from gossipmesh.testing.conformance import decisions, exchanges, files, frames, peers, transcripts


def keys() -> list[str]:
    """Return the key of each vector that a run has an outcome for."""
    names = {
        decisions.KIND: [name for name, _, _ in decisions.vectors()],
        frames.KIND: [vector["name"] for vector in frames.vectors()],
        "framing": [case["name"] + how for case in files.read("framing.json") for how in exchanges.HOW],
        "paths": [exchanges.name_of(case) for case in files.read("paths.json")],
        peers.KIND: [
            vector["name"] for vector in files.read("peers.json")["vectors"] if peers.is_played(vector)
        ],
        transcripts.KIND: [script["name"] for script in transcripts.scripts()],
    }
    return [f"{kind}/{name}" for kind, found in names.items() for name in found]

"""The mesh is told once which kinds of policy an engine cannot execute, and once that it can again."""

from gossipmesh.agent.engine.engine_words import EngineWords
from gossipmesh.model.engine_features import SECTION_FEATURES, UNREGISTERED


def test_it_is_said_when_it_changes() -> None:
    said: list[tuple[str, ...]] = []
    engine = {"features": SECTION_FEATURES | {"http"}}
    words = EngineWords(lambda: engine["features"], said.append)
    words.look()
    assert said == [], "an engine of this build is worth no word"
    for features in (SECTION_FEATURES - {UNREGISTERED}, frozenset({"http"}), SECTION_FEATURES):
        engine["features"] = frozenset(features)
        words.look()
        words.look()
    assert said == [("mesh-policy",), ()]

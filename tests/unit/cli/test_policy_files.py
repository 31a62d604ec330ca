"""Files are found, read and validated whole, against the very rules nodes apply."""

import os
from pathlib import Path
from typing import Any

import pytest

from gossipmesh.cli.policy_files import (
    find_files,
    load_files,
    orphaned_references,
    reference_problems,
    shadowed_rules,
)
from gossipmesh.model.errors import OperatorError
from gossipmesh.model.policy import document_name
from gossipmesh.trust.manifest import encode_documents
from gossipmesh.wire.problems import CODES

REPOSITORY = Path(__file__).parents[3]
MESH = "{{apiVersion: gossipmesh.dev/v1, kind: MeshPolicy, metadata: {{name: mesh}}, spec: {}}}"
EXAMPLES = sorted((REPOSITORY / "configs/policies").iterdir())
SUBSET = """\
apiVersion: gossipmesh.dev/v1
kind: Subset
metadata: {name: v2, namespace: shop}
spec: {service: cart, labels: {version: v2}}
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{name: cart}]
  rules:
    - backendRefs: [{group: gossipmesh.dev, kind: Subset, name: v2}]
    - matches: [{path: {type: PathPrefix, value: /}}]
      backendRefs: [{name: cart}]
"""


def load(tmp_path: Path, text: str) -> tuple[Any, list[tuple[int, str, str]]]:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    loaded = load_files([file])
    return loaded, [(problem.line, problem.path, problem.code) for problem in loaded.problems]


def test_files_directories_and_what_is_in_neither(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "notes.txt", "c.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "empty").mkdir()
    found = find_files([str(tmp_path), str(tmp_path / "a.yaml")])
    assert [file.name for file in found] == ["a.yaml", "b.yml", "c.json"]
    with pytest.raises(OperatorError, match="has no policy file"):
        find_files([str(tmp_path / "empty")])
    with pytest.raises(OperatorError, match="no policy file at"):
        find_files([str(tmp_path / "absent.yaml")])
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(OperatorError, match="not UTF-8"):
        load_files([tmp_path / "binary.yaml"])


@pytest.mark.parametrize(
    "file", sorted((REPOSITORY / "configs/policies").iterdir()), ids=lambda file: file.name
)
def test_every_example_that_ships_is_valid(file: Path) -> None:
    loaded = load_files([file])
    assert [str(problem) for problem in loaded.problems] == []
    assert reference_problems(loaded.documents, encode_documents(d.document for d in loaded.documents)) == []
    assert shadowed_rules(loaded.documents) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: Route", (1, "$.kind", "GM1015")),
        (MESH.format("{unregistered: maybe}"), (1, "$.spec.unregistered", "GM1013")),
        (MESH.format("{unregistered: deny, more: 1}"), (1, "$.spec.more", "GM1010")),
        (MESH.format("{}"), (1, "$.spec", "GM1012")),
        ("spec: {}", (1, "$", "GM1012")),
        ("- a", (1, "$", "GM1011")),
        ("kind: [a]", (1, "$.kind", "GM1015")),
        (SUBSET.replace("gossipmesh.dev/v1", "gossipmesh.dev/v2"), (1, "$.apiVersion", "GM1015")),
        (SUBSET.replace("version: v2", ""), (4, "$.spec.labels", "GM1020")),
        (SUBSET.replace("service: cart", "service: 5"), (4, "$.spec.service", "GM1011")),
        (SUBSET + "---\n" + SUBSET, (8, "$.metadata.name", "GM1030")),
        (SUBSET + "---\na: &x 1", (6, "$.a", "GM1004")),
    ],
)
def test_each_mistake_has_its_place_and_code(
    tmp_path: Path, text: str, problem: tuple[int, str, str]
) -> None:
    assert load(tmp_path, text)[1] == [problem]


def test_what_was_filled_in_for_the_unreadable_is_never_complained_about(tmp_path: Path) -> None:
    text = ROUTE.replace("rules:", "rulez:").replace("parentRefs: [{name: cart}]", "parentRefs: cart")
    assert load(tmp_path, text)[1] == [
        (5, "$.spec", "GM1012"),
        (5, "$.spec.parentRefs", "GM1011"),
        (6, "$.spec.rulez", "GM1010"),
    ]


def test_a_subset_must_be_in_the_files_or_in_force(tmp_path: Path) -> None:
    loaded, problems = load(tmp_path, ROUTE)
    assert problems == []
    names = [document_name(item.document) for item in loaded.documents]
    (missing,) = reference_problems(loaded.documents, names)
    assert (missing.line, missing.path, missing.code) == (7, "$.spec.rules[0].backendRefs[0].name", "GM1031")
    assert "Subset/shop/v2 is neither in these files nor in force" in missing.message
    assert reference_problems(loaded.documents, [*names, "Subset/shop/v2"]) == []
    assert len(reference_problems(loaded.documents, [*names, "Subset/default/v2"])) == 1


def test_what_stays_in_force_must_not_lose_its_subset(tmp_path: Path) -> None:
    loaded, _ = load(tmp_path, SUBSET + "---\n" + ROUTE)
    bodies = encode_documents(item.document for item in loaded.documents)
    assert orphaned_references(bodies, ()) == []
    del bodies["Subset/shop/v2"]
    (sentence,) = orphaned_references(bodies, ())
    assert "HTTPRoute/shop/cart in force still refers to Subset/shop/v2 [GM1032]" in sentence
    assert orphaned_references(bodies, ["HTTPRoute/shop/cart"]) == []


def test_a_rule_behind_an_equal_one_is_a_warning(tmp_path: Path) -> None:
    loaded, _ = load(tmp_path, ROUTE)
    (warning,) = shadowed_rules(loaded.documents)
    assert (warning.line, warning.code) == (8, "GM2002")
    assert "the same match as rule 0 of HTTPRoute/shop/cart" in warning.message


def test_every_code_has_a_paragraph_in_the_documentation() -> None:
    text = (REPOSITORY / "docs/POLICY.md").read_text()
    headings = [line.split()[1] for line in text.splitlines() if line.startswith("### GM")]
    assert headings == list(CODES)


@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_what_anybody_can_change_is_not_signed(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a.yaml").write_text("")
    (tmp_path / "a.yaml").chmod(mode)
    with pytest.raises(OperatorError, match=r"chmod o-w .*nothing was signed"):
        load_files(find_files([str(tmp_path / "a.yaml")]))


def test_a_folder_anybody_can_fill_is_not_signed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.yaml").write_text("")
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(OperatorError, match="chmod o-w"):
        find_files([str(tmp_path / "open")])


def test_a_pipe_among_the_files_is_passed_over_or_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    for name in (tmp_path / "a.yaml", tmp_path):
        with pytest.raises(OperatorError, match="no policy file"):
            find_files([str(name)])
    with pytest.raises(OperatorError, match="is a pipe"):
        load_files([tmp_path / "a.yaml"])

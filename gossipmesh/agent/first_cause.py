"""What a person must know of an agent that ended in several failures at once."""

from gossipmesh.model.errors import OperatorError


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what a person must know of a group of failures: the first error meant for one, if any."""
    found, _ = group.split(OperatorError)
    leaf: BaseException = group if found is None else found
    while isinstance(leaf, BaseExceptionGroup) and (found is not None or len(leaf.exceptions) == 1):
        leaf = leaf.exceptions[0]
    return leaf

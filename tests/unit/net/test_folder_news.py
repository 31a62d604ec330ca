"""The kernel tells of what happens in a folder, or whoever waits is let go to look by itself."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from gossipmesh.net.folder_news import FolderNews

WAIT_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one file."""
    folder = tmp_path / "services.d"
    folder.mkdir()
    (folder / "cart.yaml").write_text("one")
    return folder


@pytest.fixture
def news(folder: Path) -> Iterator[FolderNews]:
    """Return news of that folder, watched."""
    with closing(FolderNews(folder)) as news:
        news.watch()
        assert news.is_told
        yield news


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file comes": lambda folder: (folder / "web.yaml").write_text("new"),
    "a file changes": lambda folder: (folder / "cart.yaml").write_text("two"),
    "a file goes": lambda folder: (folder / "cart.yaml").unlink(),
    "a file may be read by others": lambda folder: (folder / "cart.yaml").chmod(0o604),
    "a file takes another's place": lambda folder: (folder / "cart.yaml").rename(folder / "web.yaml"),
    "the folder may be read by others": lambda folder: folder.chmod(0o705),
    "the folder is put away": lambda folder: folder.rename(folder.with_name("old")),
}


def put_another_in_its_place(folder: Path) -> Path:
    old = folder.rename(folder.with_name("old"))
    folder.mkdir()
    return old


@pytest.mark.parametrize("change", CHANGES)
async def test_each_change_is_told(news: FolderNews, folder: Path, change: str) -> None:
    CHANGES[change](folder)
    assert await news.wait(WAIT_S)


async def test_what_happens_while_nobody_waits_is_told_once(news: FolderNews, folder: Path) -> None:
    for number in range(5):
        (folder / f"{number}.yaml").write_text("new")
    assert await news.wait(WAIT_S)
    assert not await news.wait(0)


async def test_a_folder_in_the_place_of_another_is_told_of_and_the_other_is_not(
    news: FolderNews, folder: Path
) -> None:
    old = put_another_in_its_place(folder)
    news.watch()
    assert await news.wait(WAIT_S)
    (old / "cart.yaml").write_text("two")
    assert not await news.wait(0)
    (folder / "web.yaml").write_text("new")
    assert await news.wait(WAIT_S)


async def test_of_a_folder_that_is_not_there_nothing_is_told_until_it_is(
    tmp_path: Path, autojump_clock: object
) -> None:
    with closing(FolderNews(tmp_path / "later")) as news:
        news.watch()
        assert not news.is_told
        began_s = trio.current_time()
        assert not await news.wait(WAIT_S)
        assert trio.current_time() - began_s == WAIT_S
        (tmp_path / "later").mkdir()
        news.watch()
        assert news.is_told


async def test_after_the_end_nothing_is_watched(folder: Path) -> None:
    news = FolderNews(folder)
    news.watch()
    news.close()
    news.watch()
    assert not news.is_told

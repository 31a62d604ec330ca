"""One wake-up a second for all that is done every second and takes no time."""

import math

import trio


async def sleep_to_tick() -> None:
    """Sleep until the next whole second of the loop's clock; a second at most."""
    await trio.sleep_until(math.floor(trio.current_time()) + 1)

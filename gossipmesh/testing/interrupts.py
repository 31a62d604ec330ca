"""Ending a program that cleans up after itself: by Ctrl-C, and by other signals as by that."""

import signal


def end_like_ctrl_c(*numbers: signal.Signals) -> None:
    """Have each of `numbers` end this process as Ctrl-C does, whoever started it.

    A program put into the background by a script or by nohup is started with SIGINT ignored: raising it would
    end nothing, and what it runs would be left behind when somebody loses patience and kills it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in numbers:
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))

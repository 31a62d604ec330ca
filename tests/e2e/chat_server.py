"""A server made of the `websockets` package: `python chat_server.py HOST:PORT`: an echo."""

import sys

from websockets.sync.server import ServerConnection, serve


def echo(connection: ServerConnection) -> None:
    """Say everything back until the client closes."""
    for message in connection:
        connection.send(message)


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    with serve(echo, host, int(port), max_size=None) as server:
        server.serve_forever()

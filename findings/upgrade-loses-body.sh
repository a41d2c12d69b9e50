#!/usr/bin/env bash
# A guess: a server without HTTP/2 ignores a client's offer to go on in it (Upgrade: h2c), as RFC 9110 allows, and
# answers the request that carries the offer.
# What happens: uvicorn with httptools, its default where that is installed, hands the application an empty body; with
# h11 the body arrives. Nothing is logged but "Unsupported upgrade request". Seen with uvicorn 0.54.0, httptools 0.9.0.
# Who serves models meets it: Java's HttpClient makes the offer with the first request of every connection, so each
# first POST from it is an inference request of nothing.
# What to do: `--http h11`, or HttpClient.Version.HTTP_1_1 in the client; a server may also parse such a head again
# without the offer.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    uvicorn==0.54.0 httptools==0.9.0 || { echo "not run: the packages did not install"; exit 2; }

venv/bin/python -I -W ignore - <<'PYTHON'
import os
import socket
import sys
import threading
from importlib.metadata import version

import uvicorn


async def echo(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b"got %d bytes" % len(body)})


def ask(parser, offer):
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(echo, http=parser, ws="none", lifespan="off", log_level="critical")
    threading.Thread(target=uvicorn.Server(config).run, args=([listening],), daemon=True).start()
    head = "POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n" + offer
    with socket.create_connection(listening.getsockname(), timeout=10) as connection:
        connection.sendall(f"{head}\r\nhello".encode())
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return "got 5 bytes" if b"got 5 bytes" in b"".join(parts) else "got 0 bytes"


print(*(f"{name} {version(name)}" for name in ("uvicorn", "httptools")), sep=", ")
found = {
    (parser, bool(offer)): ask(parser, offer)
    for parser in ("h11", "httptools")
    for offer in ("", "Connection: Upgrade\r\nUpgrade: h2c\r\n")
}
for (parser, offered), text in found.items():
    print(f"{parser}, {'HTTP/2 offered' if offered else 'no offer'}: {text}")
holds = list(found.values()) == ["got 5 bytes"] * 3 + ["got 0 bytes"]
if not holds:
    print("changed: the body arrives, or is lost elsewhere, too")
sys.stdout.flush()
os._exit(0 if holds else 1)
PYTHON

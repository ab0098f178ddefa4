"""Writes nginx's error messages to the journal without queries and referrers, where careless clients put keys.

systemd gives it the socket that nginx logs to, as standard input.
"""

from __future__ import annotations

import re
import socket
import sys

# As nginx writes it: priority, date, tag, message.
FRAME = re.compile(r"<(\d{1,3})>.{15} [^ ]+: (.*)", re.DOTALL)
# The referrer is always last.
REFERRER = re.compile(r', referrer: ".*', re.DOTALL)
# A query ends at a blank, which no URL holds, or with the field that nginx has put in quotes.
QUERY = re.compile(r'\?[^ ]*?(?=", |"$| |$)', re.DOTALL)
LARGEST = 65536


def cleaned(datagram: bytes) -> str:
    """Give a message as a line for the journal: its level in angle brackets, then the text without queries."""
    text = datagram.decode("ascii", "backslashreplace")
    framed = FRAME.fullmatch(text)
    level, message = (int(framed[1]) % 8, framed[2]) if framed else (4, text)
    message = QUERY.sub("?...", REFERRER.sub("", message))
    return f"<{level}>" + "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in message)


def main() -> None:
    """Pass messages on for ever."""
    with socket.socket(fileno=sys.stdin.fileno()) as messages:
        while True:
            print(cleaned(messages.recv(LARGEST)), flush=True)


if __name__ == "__main__":
    main()

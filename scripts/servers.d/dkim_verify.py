"""Verifies the DKIM signatures of messages with dkimpy, which nobody here wrote.

    dkim_verify.py RECORDS MESSAGE...

RECORDS: a line for each key, its name, a space, its TXT record. A line for each signature: message, its number, True or False.
"""

import pathlib
import sys

import dkim

records = dict(line.split(" ", 1) for line in pathlib.Path(sys.argv[1]).read_text().splitlines())


def lookup(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    return records.get(name.rstrip(".").lower(), "").encode()


for path in sys.argv[2:]:
    message = pathlib.Path(path).read_bytes()
    for number in range(sum(line.lower().startswith(b"dkim-signature:") for line in message.split(b"\r\n\r\n")[0].split(b"\r\n"))):
        print(path, number, dkim.DKIM(message).verify(idx=number, dnsfunc=lookup))

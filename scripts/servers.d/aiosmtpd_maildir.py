"""aiosmtpd_maildir.py PORT MAILDIR CERTIFICATE KEY - an aiosmtpd server that keeps each message as it came, for the tests.

The library's own Maildir handler parses messages and writes them anew; this one writes the received octets, headed by Return-Path and
one Delivered-To per recipient, so that the tests read it as they read any Maildir. Line ends become LF, as in every Maildir.
"""

import asyncio
import itertools
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP


class Keep:
    def __init__(self, maildir):
        self.maildir, self.numbers = maildir, itertools.count(1)

    async def handle_DATA(self, server, session, envelope):
        head = ["Return-Path: <%s>" % envelope.mail_from] + ["Delivered-To: %s" % recipient for recipient in envelope.rcpt_tos]
        name = "%d.aiosmtpd" % next(self.numbers)
        draft = self.maildir / "tmp" / name
        draft.write_bytes("".join(line + "\n" for line in head).encode() + envelope.original_content.replace(b"\r\n", b"\n"))
        draft.rename(self.maildir / "new" / name)
        return "250 2.0.0 kept"


async def serve(port, maildir, certificate, key):
    loop = asyncio.get_running_loop()
    keep = Keep(maildir)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    # decode_data off: octets stay octets, and 8BITMIME and SMTPUTF8 may be offered.
    server = await loop.create_server(lambda: SMTP(keep, hostname="aiosmtpd.test", enable_SMTPUTF8=True, tls_context=context, loop=loop), "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(serve(int(sys.argv[1]), pathlib.Path(sys.argv[2]), *sys.argv[3:5]))

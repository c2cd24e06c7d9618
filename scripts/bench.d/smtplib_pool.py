"""What a careful user writes in Python: smtplib in a pool of threads, mail grouped by domain, a session for each hundred messages.

    smtplib_pool.py BATCH ROUTES THREADS

ROUTES holds lines "DOMAIN ADDRESS PORT": there is no look-up, no second attempt and no report, so this is less work than a mailer's.
Ends with status 0 if every message was accepted.
"""

import collections
import concurrent.futures
import pathlib
import smtplib
import sys

sys.dont_write_bytecode = True
from postfix_sender import mail_of  # noqa: E402

CHUNK = 100


def send(route, mail):
    with smtplib.SMTP(route[0], int(route[1]), local_hostname="client.test", timeout=60) as client:
        for recipient, content in mail:
            client.sendmail("news@sender.test", [recipient], content)


def main():
    batch, routes, threads = sys.argv[1:]
    routes = {domain: route for domain, *route in map(str.split, pathlib.Path(routes).read_text().splitlines())}
    by_domain = collections.defaultdict(list)
    for recipient, content in mail_of(pathlib.Path(batch)):
        by_domain[recipient.rpartition("@")[2]].append((recipient, content))
    # The first chunk of every domain, then the second ones: no big domain takes all threads first.
    chunks = [(first, domain, mail[first : first + CHUNK]) for domain, mail in by_domain.items() for first in range(0, len(mail), CHUNK)]
    with concurrent.futures.ThreadPoolExecutor(int(threads)) as pool:
        for result in [pool.submit(send, routes[domain], mail) for _, domain, mail in sorted(chunks, key=lambda chunk: chunk[0])]:
            result.result()


if __name__ == "__main__":
    main()

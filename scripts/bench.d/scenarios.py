"""scripts/bench: how other domains fare beside a bad one, and what receivers that enforce limits get to see.

Completion is read from the report's times (Postfix: from its log), not from the end of a run, which goes on with the bad domain.
"""

import datetime
import re
import statistics

from harness import Sink, make, require, send
from postfix_sender import Postfix

# Time for the good domains; the bad ones are left then.
RUN_SECS = 20


def trouble(arguments):
    """Name -> domains, share of the mail, bad domains, rules of the receiver, patience of ours."""
    tarpit = ["stage=%s server=127.1.0.1 delay=%ds" % (stage, arguments.tarpit) for stage in ("mail", "rcpt", "data", "dot")]
    silent = ["stage=greeting server=127.1.%d.%d silence" % divmod(number, 250) for number in range(1, 101)]
    return {
        "1 of 10 domains is silent": (10, "even", 1, silent[:1], arguments.messages),
        "1 of 10 domains takes %d s for each command" % arguments.tarpit: (10, "even", 1, tarpit, arguments.messages),
        "100 of 1,000 domains are silent": (1000, "even", 100, silent, arguments.messages),
        "1 of 10 domains has 60 % of the mail": (10, "heavy", 1, [], arguments.messages),
    }


def addresses(domains):
    """An address for each domain, so that Postfix and ours meet the same servers."""
    return {"d%04d.test" % number: "127.1.%d.%d" % divmod(number, 250) for number in range(1, domains + 1)}


def zone_of(place, domains):
    zone = place / "zone"
    zone.write_text("".join("%s MX 10 mx.%s\nmx.%s A %s\n" % (domain, domain, domain, address) for domain, address in addresses(domains).items()))
    return zone


def isolation(arguments, place):
    """How long the mail of the good domains takes beside the bad ones, and without them (or, where size is all that is bad, without their mail)."""
    arguments.size, arguments.recipients_per_message = 2048, 1
    print("%d messages of 2,048 octets, each flight of replies after 20 ms; seconds until the other domains' mail is delivered, medians of %d rounds" % (arguments.messages, arguments.rounds))
    print("%-48s %-12s %9s %9s %9s" % ("", "", "without", "with", "more"))
    for name, (domains, share, bad, rules, messages) in trouble(arguments).items():
        arguments.domains = domains
        batch, without = place / "batch.mbox", place / "without.mbox"
        make(batch, arguments, share)
        if rules:
            without = batch
        else:
            strip(batch, without, bad)
        zone = zone_of(place, domains)
        senders = {"mailer send": ours}
        if arguments.postfix is not None:
            senders["Postfix"] = postfix
        times = {sender: ([], []) for sender in senders}
        for _ in range(arguments.rounds):
            for sender, until_done in senders.items():
                for at, (file, active) in enumerate(((without, []), (batch, rules))):
                    flags = ["--latency", "20ms", "--zone", zone] + [word for rule in active for word in ("--rule", rule)]
                    sink = Sink(place, flags)
                    try:
                        times[sender][at].append(until_done(place, file, sink, domains, bad))
                    finally:
                        sink.stop()
        for sender, (clean, troubled) in times.items():
            clean, troubled = statistics.median(clean), statistics.median(troubled)
            print("%-48s %-12s %9.3f %9.3f %+8.1f %%" % (name, sender, clean, troubled, 100 * (troubled / clean - 1)), flush=True)


def strip(batch, without, bad):
    """The batch without the mail of the first `bad` domains."""
    gone = {b"d%04d.test" % number for number in range(1, bad + 1)}
    parts = re.split(rb"(?m)^(?=From news@sender\.test )", batch.read_bytes())
    keeps = (part for part in parts if part and re.search(rb"^To: [^@\n]+@(\S+)$", part, re.M).group(1) not in gone)
    without.write_bytes(b"".join(keeps))


def good(recipient, bad):
    return int(re.search(r"@d(\d+)\.test", recipient).group(1)) > bad


def ours(place, batch, sink, domains, bad):
    run, rows = send(place, batch, sink, ["--timeout", "10s", "--run-for", "%ds" % RUN_SECS])
    others = [row for row in rows if good(row["recipient"], bad)]
    require(run.status in (0, 75) and others and all(row["status"] == "delivered" for row in others), "the good domains' mail is not all delivered", run)
    return max(datetime.datetime.fromisoformat(row["last_attempt"]).timestamp() for row in others) - run.started_at


def postfix(place, batch, sink, domains, bad):
    """Its queue is filled first. 20 sessions with a destination, 100 in all and fewer after failures, as it ships."""
    routes = {domain: "[%s]:%d" % (address, sink.port) for domain, address in addresses(domains).items()}
    instance = Postfix(place / "postfix", "[127.0.0.1]:%d" % sink.port, routes, 20, 100, feedback=1)
    try:
        return instance.fill_and_deliver(batch, lambda recipient: good(recipient, bad))
    finally:
        instance.stop()

"""scripts/bench limits and nights: how close the mail comes to what a receiver permits that says so by replies alone.

INVARIANT: the sender is told nothing of the receiver; what is permitted is known here, or measured by a sender that is told.
"""

import datetime
import statistics
import time

from harness import Sink, make, require, send

# Figures begin after this time: what it takes to find the limits is in the first minute.
FIRST_SECS = 60
LATENCY = "100ms"
STORM_SECS = 20


def kinds(arguments):
    """Name -> the receiver's flags, what a sender is told that knows it all, and what of that sender's mail is permitted."""
    return {
        "5 sessions": (["--refuse-sessions", "5"], "max_sessions = 5\nwindow_start = 5\n", 1.0),
        "20 messages a session": (["--refuse-messages", "20"], "", 1.0),
        "300 messages a minute": (["--rule", 'stage=mail reply="450 4.7.1 too fast, slow down" rate=300/1m'], 'rate = "300/min"\n', 1.0),
        "421 for 20 of 60 s": (["--rule", 'stage=mail reply="421 4.3.2 busy" close every=60s for=%ds' % STORM_SECS], "", 2 / 3),
    }


def limits(arguments, place):
    arguments.domains, arguments.size, arguments.recipients_per_message = 1, 1024, 1
    arguments.messages = 200 * arguments.seconds
    batch = place / "batch.mbox"
    make(batch, arguments, "even")
    zone = place / "zone"
    zone.write_text("d0001.test MX 10 mx.d0001.test\nmx.d0001.test A 127.0.0.2\n")
    print("One domain, each flight of replies after %s, a run of %d s; messages a minute from the second minute on" % (LATENCY, arguments.seconds))
    print("%-28s %10s %10s %8s %12s" % ("the receiver permits", "permitted", "accepted", "share", "turned away"))
    for name, (flags, told, share) in kinds(arguments).items():
        if arguments.only not in name:
            continue
        free = flags if told else []
        permitted = share * rate(arguments, place, batch, zone, free, told)[0]
        accepted, turned_away = rate(arguments, place, batch, zone, flags, "")
        print("%-28s %10.0f %10.0f %7.1f%% %11.2f%%" % (name, permitted, accepted, 100 * accepted / permitted, 100 * turned_away), flush=True)


def rate(arguments, place, batch, zone, flags, told):
    """Messages a minute, and the share of attempts (of messages and of sessions) that the receiver turned away."""
    configuration = place / "mailer.toml"
    configuration.write_text(told)
    sink = Sink(place, ["--latency", LATENCY, "--zone", zone, *flags])
    if any("every=" in flag for flag in flags):
        # The storm that each period begins with: from a server that was never met before it would be taken for a failure of the host.
        time.sleep(STORM_SECS)
    run, rows = send(place, batch, sink, ["--config", configuration, "--run-for", "%ds" % arguments.seconds])
    stats = sink.stop()
    require(run.status in (0, 75), "mailer send failed", run)
    times = sorted(moment(row) - run.started_at for row in rows if row["status"] == "delivered")
    require(len(times) == stats["recipients"], "reported %d, received %d" % (len(times), stats["recipients"]), run)
    counted = sum(FIRST_SECS <= time < arguments.seconds for time in times)
    refused = stats["refusals"] + stats["connections_refused"]
    return counted * 60 / (arguments.seconds - FIRST_SECS), refused / (stats["messages"] + refused)


def moment(row):
    return datetime.datetime.fromisoformat(row["last_attempt"]).timestamp()


def nights(arguments, place):
    """The same batch twice with one state directory: what the first run learned, the second begins with."""
    arguments.size, arguments.recipients_per_message, arguments.domains = 1024, 1, 10
    batch = place / "batch.mbox"
    make(batch, arguments, "even")
    zone = place / "zone"
    zone.write_text("".join("d%04d.test MX 10 mx.d%04d.test\nmx.d%04d.test A 127.0.0.%d\n" % (number, number, number, 100 + number) for number in range(1, 11)))
    results = {"first night": [], "second night": []}
    for round_number in range(arguments.rounds):
        state = place / ("state%d" % round_number)
        for name, figures in results.items():
            sink = Sink(place, ["--latency", LATENCY, "--zone", zone, "--refuse-sessions", "8"])
            run, rows = send(place, batch, sink, ["--again"], state=state)
            stats = sink.stop()
            require(run.status == 0 and stats["recipients"] == arguments.messages, "%s: received %d" % (name, stats["recipients"]), run)
            figures.append((full_rate_after(run, rows), run.seconds, stats["connections_refused"]))
    print("%d messages to ten domains whose servers let 8 sessions in, each flight of replies after %s; medians of %d rounds" % (arguments.messages, LATENCY, arguments.rounds))
    print("%-16s %18s %12s %22s" % ("", "full rate after", "whole run", "sessions turned away"))
    for name, figures in results.items():
        after, whole, refused = (statistics.median(column) for column in zip(*figures))
        print("%-16s %16.2f s %10.2f s %22d" % (name, after, whole, refused))


def full_rate_after(run, rows):
    """Seconds from the start until a tenth of a second first has nine tenths of the best one's deliveries."""
    tenths = {}
    for row in rows:
        tenth = int(10 * (moment(row) - run.started_at))
        tenths[tenth] = tenths.get(tenth, 0) + 1
    best = max(tenths.values())
    return min(tenth for tenth, count in tenths.items() if count >= 0.9 * best) / 10

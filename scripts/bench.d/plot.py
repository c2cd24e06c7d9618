"""scripts/bench workers: how many workers and sessions there are while a batch goes out, as a table and as a picture (SVG).

What is drawn is what `mailer ctl show --json` says of the run, asked all the time; totals are the receiver's.
"""

import json
import subprocess
import threading

from harness import MAILER, Sink, make, require, send

WIDTH, HEIGHT, MARGIN = 860, 340, 50
COLOURS = {"workers": "#8fb8e0", "sessions with sites": "#d9822b", "queues of their own": "#3a8a4d"}
LINE_WIDTHS = (6, 2, 2)  # workers and sessions mostly are as many: one line is to be seen beside the other
POINTS = 300


def workers(arguments, place):
    arguments.size, arguments.recipients_per_message, arguments.domains = 2048, 1, 40
    batch = place / "batch.mbox"
    make(batch, arguments, "zipf")
    sink = Sink(place, ["--latency", "50ms"])
    state = place / "state"
    samples, is_over = [], threading.Event()
    watcher = threading.Thread(target=watch, args=(state, samples, is_over))
    watcher.start()
    try:
        run, rows = send(place, batch, sink, state=state)
    finally:
        is_over.set()
        watcher.join()
    stats = sink.stop()
    delivered = sum(row["status"] == "delivered" for row in rows)
    require(run.status == 0 and delivered == stats["recipients"] == arguments.messages, "delivered %d, received %d" % (delivered, stats["recipients"]), run)
    require(len(samples) >= 5, "the run was over before it could be watched", run)
    connections = stats["connections"] - 1  # one was ours, to see whether it answers
    print("%d messages to 40 domains (Zipf), each flight of replies after 50 ms: %.1f s, %d sessions, %.3f a message, at most %d at once" % (
        arguments.messages, run.seconds, connections, connections / arguments.messages, stats["open_max"]))
    print("%8s %10s %22s %22s %10s" % ("second", *COLOURS, "settled"))
    step = max(1, len(samples) // 20)
    for sample in samples[::step]:
        print("%8.2f %10d %22d %22d %10d" % sample)
    if arguments.plot:
        arguments.plot.write_text(picture(samples, arguments.messages))
        print("drawn in %s" % arguments.plot)


def watch(state, samples, is_over):
    while not is_over.is_set():
        asked = subprocess.run([MAILER, "ctl", "--state", state, "show", "--json", "--sites", "100"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if asked.returncode == 0:
            shown = json.loads(asked.stdout)
            settled = sum(count for status, count in shown["counts"] if status not in ("queued", "deferred"))
            samples.append((shown["elapsed_ms"] / 1000, sum(queue["workers"] for queue in shown["queues"]), sum(site["sessions"] for site in shown["sites"]), len(shown["queues"]) - 1, settled))
        else:
            is_over.wait(0.01)


def picture(samples, messages):
    """Lines over time; the mail that is settled is the grey area."""
    samples = samples[:: len(samples) // POINTS + 1] + samples[-1:]
    end = samples[-1][0] or 1
    top = max(max(sample[1:3]) for sample in samples) * 1.1 or 1

    def at(time, value, most):
        return "%.1f,%.1f" % (MARGIN + time / end * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - value / most * (HEIGHT - 2 * MARGIN))

    area = " ".join([at(0, 0, 1)] + [at(sample[0], sample[4], messages) for sample in samples] + [at(end, 0, 1)])
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">' % (WIDTH, HEIGHT),
             '<rect width="100%" height="100%" fill="white"/>', '<polygon points="%s" fill="#e4e4e4"/>' % area]
    for column, (name, colour) in enumerate(COLOURS.items(), 1):
        points = " ".join(at(sample[0], sample[column], top) for sample in samples)
        parts.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="%d"/>' % (points, colour, LINE_WIDTHS[column - 1]))
        parts.append('<text x="%d" y="20" fill="%s">%s</text>' % (MARGIN + 190 * (column - 1), colour, name))
    parts.append('<text x="%d" y="20" fill="#777">mail settled (all of it at the top)</text>' % (MARGIN + 190 * 3))
    for share in (0, 0.5, 1):
        parts.append('<text x="8" y="%.0f">%.0f</text>' % (HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN) + 4, top * share))
        parts.append('<text x="%.0f" y="%d">%.1f s</text>' % (MARGIN + share * (WIDTH - 2 * MARGIN) - 12, HEIGHT - 20, end * share))
    return "\n".join(parts + ["</svg>", ""])

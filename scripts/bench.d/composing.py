"""Rows to messages: `mailer compose` from each kind of data, and a Python script that does the same with the standard library."""

import csv
import json
import os
import pathlib
import sqlite3
import statistics
import subprocess
import sys

from harness import MAILER, ROOT, Measured, require

TEXT = "From: Example News <news@example.org>\nTo: {{ name }} <{{ email }}>\nSubject: {{ name }}, your news of the week\n\nHello {{ name }},\n\n%s\nYou have {{ points }} points.\n"
PARAGRAPH = "This is what has happened since the last issue, in a line of the usual length.\n"


def composing(arguments, place):
    """Files with so many rows, then every composer in turns."""
    rows = arguments.messages
    people = [("reader%d@d%03d.test" % (number, number % 100), "Reader Number %d" % number, number % 20) for number in range(rows)]
    text = place / "letter.txt"
    text.write_text(TEXT % (PARAGRAPH * 20))
    data = write_data(place, people)
    merge = ROOT / "fixtures/merge"
    key = place / "token.key"
    key.write_text("a secret of the benchmark\n")
    key.chmod(0o600)
    page = [merge / "letter.md", "--token-key", key]
    composers = {"text, " + name: [MAILER, "compose", text, *flags] for name, flags in data.items()}
    composers["Markdown with image, CSV"] = [MAILER, "compose", *page, *data["CSV"]]
    if url := os.environ.get("MAILER_TEST_POSTGRES"):
        fill_postgres(url, people)
        composers["text, PostgreSQL"] = [MAILER, "compose", text, "--postgres", url, "--query", "SELECT * FROM bench_people"]
    composers = {name: command + ["--job", "bench", "--state", place / "state"] for name, command in composers.items()}
    composers["Python's email, CSV"] = [sys.executable, ROOT / "scripts/bench.d/python_merge.py", place / "people.csv", PARAGRAPH * 20]
    composers = {name: command for name, command in composers.items() if arguments.only in name}
    print("%d rows; medians of %d rounds, processors: %d" % (rows, arguments.rounds, os.cpu_count()))
    print("%-28s %10s %14s %12s %14s" % ("", "rows/s", "CPU us/row", "peak RSS MB", "octets/message"))
    figures = {name: [] for name in composers}
    for _ in range(arguments.rounds):
        for name, command in composers.items():
            figures[name].append(one(place / "out.mbox", command, rows))
    for name, rounds in figures.items():
        print("%-28s %10.0f %14.1f %12.1f %14.0f" % (name, *(statistics.median(column) for column in zip(*rounds))), flush=True)


def one(out, command, rows):
    run = Measured([*command, "--out", out])
    require(run.status == 0, "%s failed" % command[0], run)
    counted = int(subprocess.run(["grep", "-c", "^X-Envelope-To: ", out], stdout=subprocess.PIPE, check=True).stdout)
    require(counted == rows, "%d messages of %d rows" % (counted, rows), run)
    octets = out.stat().st_size
    out.unlink()
    return rows / run.seconds, run.cpu_seconds * 1e6 / rows, run.peak_mb, octets / rows


def write_data(place, people):
    names = ("email", "name", "points")
    with open(place / "people.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        table.writerows(people)
    with open(place / "people.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(dict(zip(names, row))) + "\n" for row in people)
    database = sqlite3.connect(place / "people.db")
    database.execute("CREATE TABLE people(email, name, points)")
    database.executemany("INSERT INTO people VALUES(?, ?, ?)", people)
    database.commit()
    database.close()
    return {
        "CSV": ["--data", place / "people.csv"],
        "JSON lines": ["--data", place / "people.jsonl"],
        "SQLite": ["--sqlite", place / "people.db", "--query", "SELECT * FROM people"],
    }


def fill_postgres(url, people):
    """With the client of the server that scripts/servers started."""
    base = pathlib.Path(os.environ["MAILER_TEST_POSTGRES_PROGRAMS"])
    libraries = {"LD_LIBRARY_PATH": os.environ["MAILER_TEST_POSTGRES_LIBRARIES"], "PATH": os.environ["PATH"]}
    rows = "".join("%s\t%s\t%d\n" % row for row in people)
    script = "DROP TABLE IF EXISTS bench_people; CREATE TABLE bench_people(email text, name text, points int);"
    subprocess.run([base / "psql", "-q", url, "-c", script, "-c", "\\copy bench_people FROM STDIN"], input=rows.encode(), env=libraries, check=True)

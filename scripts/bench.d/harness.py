"""What the measurements of scripts/bench share: processes measured, the receiver, batches, one `mailer send`.

INVARIANTS: whatever was started ends with the measurement; nothing is sent beyond loopback; no figure comes from a run that
`require` has not found as it must be.
"""

import atexit
import contextlib
import csv
import json
import multiprocessing
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MAILER = ROOT / "target" / "release" / "mailer"
PIPELINING = ROOT / "target" / "release" / "examples" / "pipelining"
PATIENCE_SECS = 30


class Measured:
    """What one run of a sender took. `peak_mb` is VmHWM as last seen, every 5 ms: ru_maxrss would count the Python that forked it."""

    def __init__(self, command, environment=None):
        began = time.monotonic()
        process = subprocess.Popen([str(word) for word in command], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.started_at = time.time()
        peak_kb = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak_kb = max(peak_kb, high_water_kb(process.pid))
            time.sleep(0.005)
        self.seconds = time.monotonic() - began
        self.status = process.returncode = os.waitstatus_to_exitcode(status)
        self.stderr = process.stderr.read().decode(errors="replace")
        process.stderr.close()
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.peak_mb = peak_kb / 1024
        self.state_bytes = None


def high_water_kb(pid):
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/%d/status" % pid).read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def free_port():
    with socket.socket() as probe, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        probe.bind(("", 0))
        datagrams.bind(("127.0.0.1", probe.getsockname()[1]))
        return probe.getsockname()[1]


class Sink:
    """`mailer sink` as a process of its own; its statistics once it has been stopped."""

    def __init__(self, place, arguments=(), ports=None):
        self.port, self.dns = ports or (free_port(), free_port())
        self.file = place / "sink.json"
        self.file.unlink(missing_ok=True)
        command = [MAILER, "sink", "--listen", "127.0.0.0/8:%d" % self.port, "--dns", "127.0.0.1:%d" % self.dns, "--stats", self.file, *arguments]
        self.log = open(place / "sink.log", "w+", encoding="utf-8")
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        atexit.register(self.process.kill)  # whatever ends the measurement
        end = time.monotonic() + PATIENCE_SECS
        while not self.greets():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                self.log.seek(0)
                sys.exit("bench: mailer sink does not answer\n" + self.log.read())
            time.sleep(0.01)

    def greets(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            greeting = connection.recv(512)
            connection.sendall(b"QUIT\r\n")
            return greeting.startswith(b"220") and connection.recv(512).startswith(b"221")
        return False

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_SECS)
        atexit.unregister(self.process.kill)
        self.log.close()
        return json.loads(self.file.read_text())


@contextlib.contextmanager
def spinners(wanted):
    """One process per processor that runs only when nothing else wants to."""
    crew = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() if wanted else 0)]
    for process in crew:
        process.start()
    try:
        yield
    finally:
        for process in crew:
            process.kill()


def spin():
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        pass


def require(condition, what, run=None):
    if not condition:
        sys.exit("bench: %s%s" % (what, "\nstatus %d: %s" % (run.status, run.stderr[-2000:]) if run else ""))


def send(place, batch, sink, flags=(), state=None, wrapper=()):
    """One `mailer send`, with a state directory of its own if none is given; returns the measurement and the report's rows."""
    report = place / "report.csv"
    report.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as own:
        run = Measured([*wrapper, MAILER, "send", batch, "--dns", "127.0.0.1:%d" % sink.dns, "--port", sink.port, "--allow-loopback",
                        "--hello", "client.test", "--state", state or own, "--report", report, "--quiet", *flags])
        run.state_bytes = sum(file.stat().st_size for file in pathlib.Path(state or own).rglob("*") if file.is_file())
    require(report.exists(), "no report", run)
    with open(report, encoding="utf-8", newline="") as rows:
        return run, list(csv.DictReader(rows))


def file_system(place):
    return subprocess.run(["df", "--output=fstype", place], stdout=subprocess.PIPE, check=True, text=True).stdout.split()[-1]


def make(batch, arguments, share):
    subprocess.run(
        [ROOT / "scripts/fixture", "workload", "--messages", str(arguments.messages), "--domains", str(arguments.domains), "--size", str(arguments.size),
         "--recipients-per-message", str(arguments.recipients_per_message), "--share", share, "--output", batch],
        check=True,
    )

"""Postfix as a sender for scripts/bench: a private instance whose queue is filled first and delivered then.

The queue is filled over SMTP while Postfix has no queue manager, so that nothing leaves; then the queue manager is switched on, finds
the whole batch among incoming mail, and delivers it. What is measured is delivery alone, which is to Postfix's advantage: taking the
mail in (`Postfix.fill`) costs it more than that.

INVARIANTS: whatever was started has ended when `Postfix.stop` returns; nothing is asked of any name server; a message that Postfix
could not deliver at once, or that it bounced, ends the measurement.
"""

import concurrent.futures
import importlib.machinery
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import smtplib
import subprocess
import time
import types

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
INJECTORS = 8
PATIENCE_SECS = 600
# Postfix's deliveries are counted in files.
WAITING = ("maildrop", "incoming", "active")
FAILED = ("deferred", "hold", "corrupt")


def load_servers():
    loader = importlib.machinery.SourceFileLoader("servers", str(SCRIPTS / "servers"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("servers", loader))
    loader.exec_module(module)
    return module


def mail_of(batch):
    """Recipient and content, with CRLF, of each message of a batch that `scripts/fixture workload` made (one recipient each)."""
    for part in re.split(rb"^From news@sender\.test [^\n]*\n", batch.read_bytes(), flags=re.M)[1:]:
        content = re.sub(rb"^>(>*From )", rb"\1", part[:-1], flags=re.M)
        recipient = re.search(rb"^To: (\S+)$", content, re.M).group(1).decode()
        yield recipient, content.replace(b"\n", b"\r\n")


class Postfix:
    """One instance below `place`, which Postfix's own users must be able to enter."""

    def __init__(self, place, relay, routes, concurrency, sessions, feedback=0):
        """Mail goes by `routes` (domain to [address]:port), else to `relay`; at most `concurrency` sessions to each, `sessions` in all. `feedback`: what a failed
        session takes off the concurrency (1 is what Postfix ships)."""
        module = load_servers()
        self.servers = module.Servers(place)
        self.servers.dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.servers.pids.touch()
        self.port = module.free_port()
        self.words = {"PORT": self.port, "QMGR": "#", "RELAY": relay, "CONCURRENCY": concurrency, "SESSIONS": sessions, "FEEDBACK": feedback}
        tables = {
            # It would add a field of its own, and the receiver would count other octets than from the rest.
            "header_checks": "/^Received:/ IGNORE\n",
            "transport": "".join("%s smtp:%s\n" % route for route in routes.items()),
        }
        try:
            unpacked = self.servers.dir / "root"
            if not unpacked.exists():
                shutil.copytree(module.CACHE / "root", unpacked, symlinks=True)
            self.base = self.servers.postfix_instance("postfix", self.port, "postfix-sender-", self.words, tables)
        except BaseException:
            self.stop()
            raise

    def version(self):
        command = [self.servers.dir / "root/usr/sbin/postconf", "-c", self.base / "etc", "-d", "-h", "mail_version"]
        return subprocess.run(command, env={"LD_LIBRARY_PATH": self.servers.libraries()}, stdout=subprocess.PIPE, check=True, text=True).stdout.strip()

    def fill(self, batch):
        mail = list(mail_of(batch))
        with concurrent.futures.ThreadPoolExecutor(INJECTORS) as pool:
            list(pool.map(self.inject, (mail[first::INJECTORS] for first in range(INJECTORS))))
        waiting = self.count(WAITING)
        if waiting != len(mail):
            raise RuntimeError("Postfix took %d messages and %d wait in its queue" % (len(mail), waiting))

    def inject(self, mail):
        with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=60) as client:
            for recipient, content in mail:
                client.sendmail("news@sender.test", [recipient], content)

    def fill_and_deliver(self, batch, counts):
        """Seconds from switching the queue manager on until the last recipient that `counts` is delivered."""
        wanted = sum(counts(recipient) for recipient, _ in mail_of(batch))
        self.fill(batch)
        began = self.switch_on()
        while time.monotonic() < began + PATIENCE_SECS:
            sent = re.findall(r"to=<([^>]+)>.* status=sent", (self.base / "mail.log").read_text(errors="replace"))
            if sum(map(counts, sent)) == wanted:
                return time.monotonic() - began
            time.sleep(0.05)
        raise RuntimeError("Postfix did not deliver the mail in time")

    def switch_on(self):
        os.sync()  # what filling left to be written is not delivery's to wait for
        (self.base / "etc/master.cf").write_text(self.servers.configured("postfix-sender-master.cf", {**self.words, "QMGR": ""}))
        os.kill(self.master(), signal.SIGHUP)
        return time.monotonic()

    def deliver(self):
        """Switches the queue manager on; returns once the queue is empty, with the processor time of all of Postfix until then."""
        before = self.cpu_seconds()
        began = self.switch_on()
        while self.count(WAITING):
            if self.count(FAILED) or time.monotonic() > began + PATIENCE_SECS:
                break
            time.sleep(0.25)
        run = types.SimpleNamespace(status=0, seconds=time.monotonic() - began, cpu_seconds=self.cpu_seconds() - before, peak_mb=None, state_bytes=None)
        unusual = [line for line in (self.base / "mail.log").read_text(errors="replace").splitlines() if not re.search("status=sent|: removed$", line)]
        run.stderr = "\n".join(unusual)[-2000:]
        left = self.count(WAITING + FAILED)
        if left:
            raise RuntimeError("Postfix did not deliver %d messages\n%s" % (left, run.stderr))
        return run

    def stop(self):
        self.servers.stop()

    def count(self, queues):
        return sum(len(files) for queue in queues for _, _, files in os.walk(self.base / "queue" / queue))

    def master(self):
        return int((self.base / "queue/pid/master.pid").read_text())

    def cpu_seconds(self):
        """Of the master and its children, those that have ended included. Each program of Postfix has one thread and no children."""
        master = self.master()
        ended = sum(int(ticks) for ticks in stat(master)[13:15]) / os.sysconf("SC_CLK_TCK")
        nanoseconds = 0
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (int(entry.name) == master or int(stat(entry.name)[1]) == master):
                    nanoseconds += int((entry / "schedstat").read_text().split()[0])
            except OSError:
                pass  # it has ended meanwhile
        return ended + nanoseconds / 1e9


def stat(pid):
    """/proc/PID/stat from the state on: [1] is the parent, [13] and [14] the ticks of children that have ended."""
    return pathlib.Path("/proc/%s/stat" % pid).read_text().rpartition(")")[2].split()

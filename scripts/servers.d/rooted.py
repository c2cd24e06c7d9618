"""Exim, OpenSMTPD and sendmail for scripts/servers, each in a root directory of its own.

Their paths and the names of their users are compiled in. A private root with its own /etc/passwd satisfies them and leaves the machine's
accounts and files alone. It holds the unpacked packages and a copy of the libraries that their programs need from this machine; it
needs chroot(2) and nothing more: no mounts, no name spaces.

INVARIANT: the numbers behind the accounts in there are those of accounts that every Debian has (news, uucp) and of the tests' reader.
"""

import os
import pathlib
import pwd
import re
import shutil
import stat
import subprocess

DEVICES = {"null": (1, 3), "zero": (1, 5), "random": (1, 8), "urandom": (1, 9)}


def build(servers, cache, configuration, name, users, programs):
    """A fresh root below `servers.dir`; returns it. `programs` are those that will run in it; ones the packages lack are copied."""
    root = servers.dir / name
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(cache / name, root, symlinks=True)
    for folder in ("etc", "dev", "run", "tmp", "bin", "usr/sbin", "var/log", "var/run", "var/spool", "var/tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    accounts(root, users, servers.reader)
    for device, numbers in DEVICES.items():
        os.mknod(root / "dev" / device, 0o666 | stat.S_IFCHR, os.makedev(*numbers))
        (root / "dev" / device).chmod(0o666)
    for program in programs:
        if not (root / program).exists():
            source = configuration / program.rpartition("/")[2]
            source = source if source.exists() else pathlib.Path("/", program)
            shutil.copy(source, root / program)
            (root / program).chmod(0o755)
        libraries(root, program)
    for kind, mode in (("pem", 0o644), ("key", 0o600)):
        shutil.copy(servers.dir / ("mx." + kind), root / "etc")
        (root / "etc" / ("mx." + kind)).chmod(mode)
    servers.maildir(name + "/maildir", servers.reader)
    return root


def accounts(root, users, reader):
    """`users` get the numbers of news and uucp, in turn; the tests' reader is called reader."""
    lines = ["root:x:0:0::/:/bin/sh"]
    for user, model in zip(users, ("news", "uucp")):
        entry = pwd.getpwnam(model)
        lines.append("%s:x:%d:%d::/:/bin/sh" % (user, entry.pw_uid, entry.pw_gid))
    entry = pwd.getpwnam(reader)
    lines.append("reader:x:%d:%d::/:/bin/sh" % (entry.pw_uid, entry.pw_gid))
    (root / "etc/passwd").write_text("\n".join(lines) + "\n")
    groups = {line.split(":")[0]: line.split(":")[3] for line in lines}
    (root / "etc/group").write_text("".join("%s:x:%s:\n" % item for item in groups.items()))
    (root / "etc/hosts").write_text("127.0.0.1 localhost client.test\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    # Nobody answers there, and at once: no server of the tests is to ask the world.
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")


def libraries(root, program):
    """Copies what `program` is linked with and the root lacks."""
    inside = ":".join(str(path) for pattern in ("usr/lib/*-linux-gnu", "lib/*-linux-gnu") for path in root.glob(pattern))
    listed = subprocess.run(["ldd", root / program], env={"LD_LIBRARY_PATH": inside}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    for library in re.findall(r"(/\S+) \(0x", listed.stdout.decode()):
        target = pathlib.Path("%s%s" % (root, library))
        if not library.startswith(str(root)) and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


def folder(path, owner, group, mode):
    path.mkdir(parents=True, exist_ok=True)
    shutil.chown(path, owner, group)
    path.chmod(mode)


class Rooted:
    """Mixed into Servers; `configured` fills in the words of a configuration file."""

    def rooted(self, name, port, users, programs, configurations, command, prepare):
        root = build(self, self.cache, self.configuration, name, users, programs)
        account = pwd.getpwnam(self.reader)
        words = {"PORT": port, "UID": account.pw_uid, "GID": account.pw_gid, "HOST": name + ".test"}
        for source, target in configurations:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (root / target).write_text(self.configured(source, words))
            (root / target).chmod(0o644)
        prepare(root)
        self.run(name, ["/usr/sbin/chroot", root, *command], lambda: self.greets(port), libraries=False)
        self.offer(name.upper(), port, root / "maildir")

    def exim(self, port):
        def prepare(root):
            for path in ("var/spool/exim4", "var/log/exim4"):
                folder(root / path, "news", "news", 0o750)
            shutil.chown(root / "etc/mx.key", "news")

        self.rooted("exim", port, ["Debian-exim"], ["usr/sbin/exim4"], [("exim.conf", "etc/exim4/exim4.conf")],
                    ["/usr/sbin/exim4", "-bdf"], prepare)

    def opensmtpd(self, port):
        def prepare(root):
            folder(root / "var/lib/opensmtpd/empty", "root", "root", 0o711)
            shutil.chown(root / "usr/sbin/smtpctl", "root", "uucp")
            (root / "usr/sbin/smtpctl").chmod(0o2755)

        helpers = ["usr/libexec/opensmtpd/" + name for name in ("mail.maildir", "mail.mda", "lockspool")]
        self.rooted("opensmtpd", port, ["opensmtpd", "opensmtpq"], ["usr/sbin/smtpd", "usr/sbin/smtpctl", "bin/sh", *helpers],
                    [("smtpd.conf", "etc/smtpd.conf")], ["/usr/sbin/smtpd", "-d"], prepare)

    def sendmail(self, port):
        def prepare(root):
            folder(root / "var/spool/mqueue", "root", "root", 0o700)

        programs = ["usr/libexec/sendmail/sendmail", "bin/keep", "bin/sh", "bin/cat", "bin/mv", "bin/date", "bin/false"]
        self.rooted("sendmail", port, ["smmta", "smmsp"], programs, [("sendmail.cf", "etc/mail/sendmail.cf")],
                    ["/usr/libexec/sendmail/sendmail", "-bD", "-C/etc/mail/sendmail.cf"], prepare)

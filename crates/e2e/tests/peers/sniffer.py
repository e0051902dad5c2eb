"""Reads what goes over the loopback interface, and tells where it has seen which words.

    sniffer.py WORD... -- ADDRESS:PORT...

Prints `sniffing`, then `seen WORD ADDRESS:PORT` once for each word that has gone to or come from a place, and
`dropped N` when the kernel had more than could be read. Needs the right to open packet sockets (CAP_NET_RAW).
"""

import ctypes
import socket
import struct
import sys

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_ATTACH_FILTER = 26
# Others may use the interface, too.
RECEIVE_BUFFER = 32 << 20


def places(texts):
    split = (text.rsplit(":", 1) for text in texts)
    return {(socket.inet_aton(address), int(port)): f"{address}:{port}" for address, port in split}


def only_net(sniffer, address):
    """A filter in the kernel: TCP over IPv4 from or to the /24 of the address."""
    net = struct.unpack("!I", address)[0] & 0xFFFFFF00
    program = [
        (0x28, 0, 0, 12),  # ldh [12]: EtherType
        (0x15, 0, 8, 0x0800),  # IPv4, else drop
        (0x30, 0, 0, 23),  # ldb [23]: protocol
        (0x15, 0, 6, 6),  # TCP, else drop
        (0x20, 0, 0, 26),  # ld [26]: source
        (0x54, 0, 0, 0xFFFFFF00),
        (0x15, 3, 0, net),  # ours: keep
        (0x20, 0, 0, 30),  # ld [30]: destination
        (0x54, 0, 0, 0xFFFFFF00),
        (0x15, 0, 1, net),  # not ours: drop
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 0),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    fprog = struct.pack("HL", len(program), ctypes.addressof(buffer))
    sniffer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)


def segment(frame):
    """Source, destination and payload of a TCP segment."""
    header = 14 + (frame[14] & 0x0F) * 4
    total = struct.unpack_from("!H", frame, 16)[0]
    # Segments that the kernel has not cut yet may say 0.
    end = 14 + total if total else len(frame)
    source, destination = struct.unpack_from("!HH", frame, header)
    payload = frame[header + (frame[header + 12] >> 4) * 4 : end]
    return (frame[26:30], source), (frame[30:34], destination), payload


def main():
    split = sys.argv.index("--")
    words = [word.encode() for word in sys.argv[1:split]]
    watched = places(sys.argv[split + 1 :])
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    only_net(sniffer, next(iter(watched))[0])
    sniffer.bind(("lo", 0))
    print("sniffing", flush=True)
    longest = max(map(len, words))
    tails, seen = {}, set()
    while True:
        frame, (_, _, kind, *_) = sniffer.recvfrom(1 << 17)
        # Each segment passes twice: on its way out and in.
        if kind == socket.PACKET_OUTGOING:
            continue
        source, destination, payload = segment(frame)
        if not payload:
            continue
        text = tails.get((source, destination), b"") + payload
        # A word may be cut by the end of a segment.
        tails[source, destination] = text[-longest:]
        for place in (source, destination):
            for word in words:
                if place in watched and word in text and (word, place) not in seen:
                    seen.add((word, place))
                    print("seen", word.decode(), watched[place], flush=True)
        dropped = struct.unpack("II", sniffer.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        if dropped:
            print("dropped", dropped, flush=True)


main()

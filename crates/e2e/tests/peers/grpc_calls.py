"""A gRPC service and its client, both grpcio, for tests of what stands between them.

    grpc_calls.py server          prints its port, serves until killed
    grpc_calls.py client ADDRESS  makes every kind of call, prints what came of each as JSON
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "e2e.Echo"
CANCELLED = threading.Semaphore(0)


def unary(request, context):
    context.send_initial_metadata((("x-initial", "1"),))
    context.set_trailing_metadata((("x-trailing", "2"), ("x-bin-bin", b"\x00\xff")))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-trailing", "failed"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü%")


def sleep(request, context):
    gone = threading.Event()
    context.add_callback(gone.set)
    if gone.wait(10):
        CANCELLED.release()
    return b"late"


def saw_cancellation(request, context):
    return b"yes" if CANCELLED.acquire(timeout=5) else b"no"


def count(request, context):
    for i in range(int(request)):
        yield str(i).encode()


def endless(request, context):
    # It has no other end than to be cancelled; a generator that is not asked again would not notice.
    context.add_callback(CANCELLED.release)
    while context.is_active():
        yield b"more"
        time.sleep(0.005)


def total(requests, context):
    return str(sum(int(r) for r in requests)).encode()


def echo_stream(requests, context):
    yield from requests


def server():
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
        "SawCancellation": grpc.unary_unary_rpc_method_handler(saw_cancellation),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Endless": grpc.unary_stream_rpc_method_handler(endless),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "EchoStream": grpc.stream_stream_rpc_method_handler(echo_stream),
    }
    serving = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    serving.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    print(port, flush=True)
    serving.wait_for_termination()


def pairs(metadata):
    ours = [(m[0], m[1] if isinstance(m[1], str) else m[1].hex()) for m in metadata or ()]
    return sorted(pair for pair in ours if pair[0].startswith("x-") and not pair[0].startswith("x-envoy"))


def error(call):
    try:
        call()
    except grpc.RpcError as e:
        return {"code": e.code().name, "trailing": pairs(e.trailing_metadata()), "details": e.details()}
    return {"code": "OK"}


def client(address):
    channel = grpc.insecure_channel(address)
    path = lambda method: f"/{SERVICE}/{method}"
    out = {}
    response, call = channel.unary_unary(path("Unary")).with_call(b"hello", timeout=10)
    out["unary"] = {
        "message": response.decode(),
        "initial": pairs(call.initial_metadata()),
        "trailing": pairs(call.trailing_metadata()),
    }
    large = channel.unary_unary(path("Unary"))(b"x" * (2 << 20), timeout=20)
    out["large unary"] = len(large)
    out["server stream"] = [m.decode() for m in channel.unary_stream(path("Count"))(b"200", timeout=10)][-1]
    numbers = (str(i).encode() for i in range(100))
    out["client stream"] = channel.stream_unary(path("Total"))(numbers, timeout=10).decode()
    out["both stream"] = ping_pong(channel.stream_stream(path("EchoStream")))
    out["status"] = error(lambda: channel.unary_unary(path("Fail"))(b"", timeout=10))
    deadline = error(lambda: channel.unary_unary(path("Sleep"))(b"", timeout=0.3))
    out["deadline"] = deadline["code"]
    out["deadline reaches the server"] = channel.unary_unary(path("SawCancellation"))(b"", timeout=10).decode()
    endless = channel.unary_stream(path("Endless"))(b"", timeout=10)
    next(endless)
    endless.cancel()
    out["cancel"] = error(lambda: [m for m in endless])["code"]
    out["cancel reaches the server"] = channel.unary_unary(path("SawCancellation"))(b"", timeout=10).decode()
    out["no route"] = error(lambda: channel.unary_unary("/nowhere.Service/Call")(b"", timeout=10))
    out["no upstream"] = error(lambda: channel.unary_unary("/dead.Service/Call")(b"", timeout=10))
    out["unknown method"] = error(lambda: channel.unary_unary(path("Nothing"))(b"", timeout=10))["code"]
    print(json.dumps(out, sort_keys=True))


def ping_pong(method):
    """Each message is sent only after the one before came back: nothing in between may hold one back."""
    answered = threading.Semaphore(1)

    def requests():
        for i in range(50):
            answered.acquire()
            yield str(i).encode()

    received = []
    for message in method(requests(), timeout=10):
        received.append(int(message))
        answered.release()
    return received == list(range(50))


if __name__ == "__main__":
    server() if sys.argv[1] == "server" else client(sys.argv[2])

"""A gRPC service, and a client that gets its configuration from a control plane (GRPC_XDS_BOOTSTRAP), both grpcio.

    grpc_xds.py server NAME             prints its port, answers every call with NAME until killed
    grpc_xds.py call TARGET CREDENTIALS makes one call, prints its status and its answer
    grpc_xds.py watch TARGET CREDENTIALS calls again and again on one channel, prints each answer that differs from the
                                        one before, until killed

CREDENTIALS is xds or insecure.
"""

import sys
import time
from concurrent import futures

import grpc

METHOD = "/e2e.Echo/unary"
PAUSE = 0.02


def server(name):
    def answer(request, context):
        return name.encode()

    handlers = {"unary": grpc.unary_unary_rpc_method_handler(answer)}
    serving = grpc.server(futures.ThreadPoolExecutor(4))
    serving.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("e2e.Echo", handlers),))
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    print(port, flush=True)
    serving.wait_for_termination()


def channel(target, credentials):
    if credentials == "xds":
        return grpc.secure_channel(target, grpc.xds_channel_credentials())
    return grpc.insecure_channel(target)


def call(connection):
    try:
        return "OK " + connection.unary_unary(METHOD)(b"", timeout=20, wait_for_ready=False).decode()
    except grpc.RpcError as e:
        return f"{e.code().name} {e.details()}"


def watch(connection):
    last = None
    while True:
        answer = call(connection)
        if answer != last:
            print(answer, flush=True)
        last = answer
        time.sleep(PAUSE)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", name]:
            server(name)
        case ["call", target, credentials]:
            print(call(channel(target, credentials)))
        case ["watch", target, credentials]:
            watch(channel(target, credentials))

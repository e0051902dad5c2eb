"""An xDS server of grpcio and the classes of xds-protos: every discovery service, both variants of the protocol.

Usage: xds_server.py FOLDER. It listens on a port of 127.0.0.1, which it prints as its first line, and on FOLDER/xds.sock.
With FOLDER/server.pem and server.key the port speaks TLS, and with FOLDER/clients.pem it demands certificates of that CA.
FOLDER/<name>.json holds {"version": ..., "resources": [...]} of one type; a file that is replaced is pushed. Every
request is printed as a line of JSON.
"""

import importlib
import json
import pathlib
import queue
import sys
import threading
import time
from concurrent import futures

import grpc
from envoy.service.discovery.v3 import discovery_pb2 as discovery
from google.protobuf import json_format

# What the resources of the tests are made of; importing registers it for JSON.
for module in (
    "envoy.config.cluster.v3.cluster_pb2",
    "envoy.config.core.v3.extension_pb2",
    "envoy.config.endpoint.v3.endpoint_pb2",
    "envoy.config.listener.v3.listener_pb2",
    "envoy.config.route.v3.route_pb2",
    "envoy.extensions.filters.http.buffer.v3.buffer_pb2",
    "envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.transport_sockets.tls.v3.secret_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
):
    importlib.import_module(module)

FOLDER = pathlib.Path(sys.argv[1])
TYPES = {
    "clusters": "envoy.config.cluster.v3.Cluster",
    "endpoints": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "listeners": "envoy.config.listener.v3.Listener",
    "routes": "envoy.config.route.v3.RouteConfiguration",
    "filters": "envoy.config.core.v3.TypedExtensionConfig",
    "secrets": "envoy.extensions.transport_sockets.tls.v3.Secret",
}
WILDCARD = (TYPES["clusters"], TYPES["listeners"])


class World:
    """What is served: by full type name a version and the resources by name. Streams are told of changes."""

    def __init__(self):
        self.lock = threading.Lock()
        self.types = {}
        self.seen = {}
        self.listeners = set()

    def follow(self):
        while True:
            for file, kind in TYPES.items():
                path = FOLDER / f"{file}.json"
                if path.exists() and self.seen.get(file) != (stat := path.stat().st_ino):
                    self.seen[file] = stat
                    self.load(kind, json.loads(path.read_text()))
            time.sleep(0.01)

    def load(self, kind, content):
        resources = {}
        for body in content["resources"]:
            message = discovery.Resource()
            json_format.ParseDict(body, message.resource)
            resources[body.get("cluster_name", body.get("name"))] = message.resource
        with self.lock:
            self.types[kind] = (content["version"], resources)
            waiting = list(self.listeners)
        for wake in waiting:
            wake.put(kind)


WORLD = World()
PRINT = threading.Lock()


def say(**what):
    with PRINT:
        print(json.dumps(what), flush=True)


def short(type_url):
    return type_url.rsplit("/", 1)[-1]


class Conversation:
    """One stream. What comes goes through one queue: requests, types that changed, and None at the end."""

    def __init__(self, service, requests):
        self.service = service
        self.mail = queue.Queue()
        self.nonce = 0
        with WORLD.lock:
            WORLD.listeners.add(self.mail)
        threading.Thread(target=self.read, args=(requests,), daemon=True).start()

    def read(self, requests):
        try:
            for request in requests:
                self.mail.put(request)
        except grpc.RpcError:
            pass
        self.mail.put(None)

    def run(self):
        try:
            while (item := self.mail.get()) is not None:
                response = self.changed(item) if isinstance(item, str) else self.asked(item)
                if response is not None:
                    yield response
        finally:
            with WORLD.lock:
                WORLD.listeners.discard(self.mail)

    def next_nonce(self):
        self.nonce += 1
        return str(self.nonce)

    def heard(self, request, kind, names):
        say(service=self.service, type=kind, nonce=request.response_nonce, names=sorted(names),
            error=request.error_detail.message, node=request.node.id)


class Sotw(Conversation):
    def __init__(self, *args):
        super().__init__(*args)
        self.names = {}

    def asked(self, request):
        kind = short(request.type_url)
        names = set(request.resource_names)
        self.heard(request, kind, names)
        known = self.names.get(kind)
        self.names[kind] = names
        return None if known == names else self.changed(kind)

    def changed(self, kind):
        names = self.names.get(kind)
        with WORLD.lock:
            version, resources = WORLD.types.get(kind, (None, {}))
        if version is None or names is None:
            return None
        everything = kind in WILDCARD and (not names or "*" in names)
        chosen = [body for name, body in resources.items() if everything or name in names]
        if not chosen and not everything:
            return None
        return discovery.DiscoveryResponse(
            version_info=version, resources=chosen, nonce=self.next_nonce(), type_url="type.googleapis.com/" + kind)


class Delta(Conversation):
    def __init__(self, *args):
        super().__init__(*args)
        self.names = {}
        self.sent = {}

    def asked(self, request):
        kind = short(request.type_url)
        first = kind not in self.names
        names = self.names.setdefault(kind, set())
        names |= set(request.resource_names_subscribe)
        names -= set(request.resource_names_unsubscribe)
        if first and not names and kind in WILDCARD:
            names.add("*")
        self.heard(request, kind, names)
        for name in request.resource_names_subscribe:
            self.sent.get(kind, {}).pop(name, None)
        return self.changed(kind)

    def changed(self, kind):
        if kind not in self.names:
            return None
        names = self.names[kind]
        with WORLD.lock:
            version, resources = WORLD.types.get(kind, (None, {}))
        sent = self.sent.setdefault(kind, {})
        wanted = {name: body for name, body in resources.items() if "*" in names or name in names}
        fresh = {name: body for name, body in wanted.items() if sent.get(name) != body.SerializeToString()}
        gone = [name for name in sent if name not in wanted]
        if version is None or not (fresh or gone):
            return None
        sent.update({name: body.SerializeToString() for name, body in fresh.items()})
        for name in gone:
            del sent[name]
        return discovery.DeltaDiscoveryResponse(
            system_version_info=version, nonce=self.next_nonce(), type_url="type.googleapis.com/" + kind,
            removed_resources=gone,
            resources=[discovery.Resource(name=name, version=version, resource=body) for name, body in fresh.items()])


class Services(grpc.GenericRpcHandler):
    """Every method of every service that streams resources."""

    def service(self, call):
        _, service, method = call.method.split("/")
        name = f"{service.rsplit('.', 1)[-1]}/{method}"
        if method.startswith("Delta"):
            return grpc.stream_stream_rpc_method_handler(
                lambda requests, _: Delta(name, requests).run(),
                discovery.DeltaDiscoveryRequest.FromString, discovery.DeltaDiscoveryResponse.SerializeToString)
        return grpc.stream_stream_rpc_method_handler(
            lambda requests, _: Sotw(name, requests).run(),
            discovery.DiscoveryRequest.FromString, discovery.DiscoveryResponse.SerializeToString)


def add_port(server):
    read = lambda name: (FOLDER / name).read_bytes() if (FOLDER / name).exists() else None
    chain, clients = read("server.pem"), read("clients.pem")
    if chain is None:
        return server.add_insecure_port("127.0.0.1:0")
    credentials = grpc.ssl_server_credentials(
        [(read("server.key"), chain)], root_certificates=clients, require_client_auth=clients is not None)
    return server.add_secure_port("127.0.0.1:0", credentials)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    server.add_generic_rpc_handlers((Services(),))
    port = add_port(server)
    server.add_insecure_port(f"unix:{FOLDER}/xds.sock")
    server.start()
    print(port, flush=True)
    WORLD.follow()


main()

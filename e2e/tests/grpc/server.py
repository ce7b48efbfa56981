"""A gRPC server that answers every call with its name: server.py NAME ADDRESS {xds|plain|tls} [FAILURES].

With `xds` it takes its listener from the control plane; with `tls` it has mutual TLS by the agent's files. FAILURES calls of each method fail as
UNAVAILABLE before the first succeeds; not with `xds`, where gRPC 1.85 crashes on a handler that answers with a status only.
"""

import collections
import concurrent.futures
import pathlib
import sys

import grpc

name, address, kind = sys.argv[1:4]
failures = int(sys.argv[4]) if len(sys.argv) > 4 else 0
calls = collections.Counter()


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        def answer(request, context):
            calls[details.method] += 1
            if calls[details.method] <= failures:
                context.abort(grpc.StatusCode.UNAVAILABLE, name + " fails as asked")
            context.send_initial_metadata((("x-replica", name),))
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


def credentials():
    if kind == "xds":
        return grpc.xds_server_credentials(grpc.insecure_server_credentials())
    if kind == "plain":
        return grpc.insecure_server_credentials()
    key, chain, roots = (pathlib.Path("/run/agent", file).read_bytes() for file in ("key.pem", "chain.pem", "bundle.pem"))
    return grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=True)


pool = concurrent.futures.ThreadPoolExecutor(8)
server = grpc.server(pool, handlers=[Handler()], xds=kind == "xds")
server.add_secure_port(address, credentials())
server.start()
print("started", flush=True)
server.wait_for_termination()

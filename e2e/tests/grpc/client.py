"""Calls by xDS: client.py TARGET METHOD CALLS [KEY=VALUE]. Prints one JSON object a line for each call, then what CSDS says.

CALLS is a number, or `until:FILE`: some twenty a second until the file is there.
"""

import json
import os
import sys
import time

import grpc
import grpc.experimental
import grpc_csds

target, method, calls = sys.argv[1:4]
metadata = [tuple(pair.split("=", 1)) for pair in sys.argv[4:]]


def turns():
    if calls.startswith("until:"):
        while not os.path.exists(calls.removeprefix("until:")):
            yield
            time.sleep(0.05)
    else:
        yield from range(int(calls))


credentials = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())
with grpc.secure_channel("xds:///" + target, credentials) as channel:
    call = channel.unary_unary(method)
    for _ in turns():
        try:
            _, outcome = call.with_call(b"hello", metadata=metadata, timeout=60)
            replica = dict(outcome.initial_metadata()).get("x-replica", "")
            print(json.dumps({"code": "OK", "replica": replica, "message": ""}), flush=True)
        except grpc.RpcError as error:
            print(json.dumps({"code": error.code().name, "replica": "", "message": error.details()}), flush=True)
    status = grpc_csds.ClientStatusDiscoveryServiceServicer.FetchClientStatus(None, None)
    resources = [
        {"type": resource.type_url.rsplit(".", 1)[-1], "name": resource.name, "status": resource.client_status}
        for config in status.config
        for resource in config.generic_xds_configs
    ]
    print(json.dumps({"resources": resources}), flush=True)

"""A gRPC server by grpcio that answers each message with itself: the limit of what grpcio can serve.

usage: echo.py PORT
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from tests.bench.serving import bodies


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    _, service, method = bodies.GRPC_PATH.split("/")
    echo = grpc.unary_unary_rpc_method_handler(lambda message, _: message)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: echo}),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


main()

"""A handler in Python, without a package: python3 examples/python/handler.py 8080"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Keeps connections.

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        records = event["Records"]  # One, unless the worker has --batch.
        bad = any("email" not in one["dynamodb"].get("NewImage", {"email": None}) for one in records)
        for one in [] if bad else records:  # A change may come again: with the same key.
            key = one.get("aftercommit", self.headers).get("idempotency-key")
            sys.stdout.write(f"handled {key} {one['dynamodb']['Keys']}\n")
            sys.stdout.flush()
        reason = b"the order has no email" if bad else b""
        self.send_response(422 if bad else 200)  # 422: a dead letter, with the body as its reason.
        self.send_header("Content-Length", str(len(reason)))
        self.end_headers()
        self.wfile.write(reason)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

"""A handler in Python, without a package: python3 examples/python/handler.py 8080"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Keeps connections.

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        change = event["Records"][0]["dynamodb"]
        bad = "email" not in change.get("NewImage", {"email": None})
        if not bad:  # A change may come again: with the same key.
            sys.stdout.write(f"handled {self.headers['Idempotency-Key']} {change['Keys']}\n")
            sys.stdout.flush()
        reason = b"the order has no email" if bad else b""
        self.send_response(422 if bad else 200)  # 422: a dead letter, with the body as its reason.
        self.send_header("Content-Length", str(len(reason)))
        self.end_headers()
        self.wfile.write(reason)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

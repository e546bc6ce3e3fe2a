"""A handler that takes only signed changes: SECRET=whsec_... python3 examples/python/signed.py 8080"""
import base64
import hashlib
import hmac
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = base64.b64decode(os.environ["SECRET"].removeprefix("whsec_"))


def is_signed(headers, body):
    name, seconds, signature = (headers.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    signed = b".".join([name.encode(), seconds.encode(), body])
    expected = "v1," + base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
    is_fresh = seconds.isdigit() and abs(time.time() - int(seconds)) < 300
    return is_fresh and hmac.compare_digest(expected, signature)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = is_signed(self.headers, body)
        if signed:
            sys.stdout.write(f"handled {self.headers['Idempotency-Key']}\n")
            sys.stdout.flush()
        self.send_response(200 if signed else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

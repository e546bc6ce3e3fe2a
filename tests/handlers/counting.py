"""A handler that de-duplicates nothing and counts: LATE=0.2 python3 tests/handlers/counting.py 8080

A POST is answered LATE seconds later, so that a caller may be gone by then. A GET answers with all calls so far, in the
order in which they came: [effect key, order id, event, sequence number, receipt].
"""
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

calls = []
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        record = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["Records"][0]
        change = record["dynamodb"]
        of = [self.headers["Idempotency-Key"], change["Keys"]["id"]["S"], record["eventName"]]
        with lock:
            receipt = f"call-{len(calls)}"
            calls.append([*of, change["SequenceNumber"], receipt])
        time.sleep(float(os.environ["LATE"]))
        self.answer(b"", ("Aftercommit-Receipt", receipt))

    def do_GET(self):
        with lock:
            told = json.dumps(calls).encode()
        self.answer(told, ("Content-Type", "application/json"))

    def answer(self, body, header):
        self.send_response(200)
        self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # The caller is gone.


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

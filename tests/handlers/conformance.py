#!/usr/bin/env python3
"""Checks a handler in any language against what aftercommit expects of it. It posts changes of made-up
orders as `aftercommit run --handler` does, so point it at a handler that may handle them.

    tests/handlers/conformance.py http://127.0.0.1:8080/changes [--item FILE] [--bad FILE] [--secret FILE]

  --item FILE    an item that the handler handles, as DynamoDB's JSON; its string and number keys `id` vary
  --bad FILE     an item that it must refuse for good
  --secret FILE  the handler checks signatures by this secret (whsec_...)
  --receipt      the handler answers with a receipt for the ledger, as one that is called with --once may

Prints a line for each rule. Exit code 1: a rule is broken. Needs Python 3.8, no package.
"""
import argparse
import base64
import copy
import hashlib
import hmac
import http.client
import json
import re
import sys
import threading
import time
import urllib.parse
import uuid

ARN = "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
ITEM = {
    "id": {"S": "conformance"},
    "email": {"S": "ada@example.com"},
    "name": {"S": "Ada Löwe"},
    "total": {"N": "1999"},
    "currency": {"S": "EUR"},
}
LIMIT = 10
REJECTED = (400, 410, 422)
LATER = (409, 425, 429, 502, 503, 504)


class Caller:
    """Posts changes to a handler."""

    def __init__(self, url, item, secret):
        self.url, self.item, self.secret = urllib.parse.urlsplit(url), item, secret
        self.count, self.receipt = 0, None

    def connect(self):
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        return kind(self.url.hostname, self.url.port, timeout=LIMIT)

    def event(self, name="INSERT", item=None, extra=None):
        """Lambda's event with one change of an item of its own."""
        self.count += 1
        new = copy.deepcopy(item or self.item)
        if "S" in new.get("id", {}):
            new["id"] = {"S": "conformance-%s" % uuid.uuid4()}
        new.update(extra or {})
        keys = {key: new[key] for key in ("id", "PK", "SK") if key in new}
        change = {
            "ApproximateCreationDateTime": int(time.time()),
            "Keys": keys or dict([next(iter(new.items()))]),
            "SequenceNumber": str(10**20 + self.count),
            "SizeBytes": len(json.dumps(new)),
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        }
        if name != "REMOVE":
            change["NewImage"] = new
        if name != "INSERT":
            change["OldImage"] = new
        record = {
            "eventID": uuid.uuid4().hex,
            "eventName": name,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "eu-central-1",
            "dynamodb": change,
            "eventSourceARN": ARN,
        }
        return json.dumps({"Records": [record]}).encode()

    def headers(self, body, attempt=1, key=None, age=0, secret=None):
        key = key or "conformance#%s" % uuid.uuid4()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "aftercommit/conformance",
            "Idempotency-Key": key,
            "Aftercommit-Sequence-Number": json.loads(body)["Records"][0]["dynamodb"]["SequenceNumber"],
            "Aftercommit-Attempt": str(attempt),
            "Aftercommit-Epoch": "7",
            "Aftercommit-Deadline": str(int((time.time() + LIMIT) * 1000)),
            "traceparent": "00-%s-%s-01" % (uuid.uuid4().hex, uuid.uuid4().hex[:16]),
        }
        secret = secret or self.secret
        if secret:
            seconds = str(int(time.time()) - age)
            signed = b".".join([key.encode(), seconds.encode(), body])
            tag = hmac.new(secret, signed, hashlib.sha256).digest()
            headers["webhook-id"] = key
            headers["webhook-timestamp"] = seconds
            headers["webhook-signature"] = "v1," + base64.b64encode(tag).decode()
        return headers

    def post(self, body, headers=None, over=None):
        """The status, and what the body says of the record."""
        connection = over or self.connect()
        path = (self.url.path or "/") + ("?" + self.url.query if self.url.query else "")
        connection.request("POST", path, body, headers or self.headers(body))
        answer = connection.getresponse()
        status, text = answer.status, answer.read(1 << 20)
        self.receipt = answer.getheader("Aftercommit-Receipt") or receipt_in(text)
        return status, text


def receipt_in(text):
    """The member `receipt` of a body, if it is JSON and has one."""
    try:
        told = json.loads(text)
    except ValueError:
        return None
    return told.get("receipt") if isinstance(told, dict) else None


def done(status, text):
    """Whether the answer finishes the record."""
    if not 200 <= status < 300:
        return False
    try:
        told = json.loads(text)
    except ValueError:
        return True
    failed = isinstance(told, dict) and any(
        told.get(name) for name in ("batchItemFailures", "errorMessage", "errorType")
    )
    return not failed


def must(condition, status, text):
    if not condition:
        raise AssertionError("answered %s %r" % (status, text[:200]))


def a_change_is_handled(caller, _):
    answer = caller.post(caller.event())
    must(done(*answer), *answer)


def a_change_that_comes_again_is_done_or_busy(caller, _):
    body = caller.event()
    key = "conformance#%s" % uuid.uuid4()
    for attempt in (1, 2):
        answer = caller.post(body, caller.headers(body, attempt, key))
        must(done(*answer) or attempt == 2 and answer[0] in (409, 425), *answer)


def changes_and_removals_are_answered(caller, _):
    for name in ("MODIFY", "REMOVE"):
        status, text = caller.post(caller.event(name))
        must(done(status, text) or status in REJECTED + LATER, status, text)


def every_type_of_attribute_is_read(caller, _):
    types = {
        "b": {"B": "aGk="},
        "yes": {"BOOL": True},
        "none": {"NULL": True},
        "list": {"L": [{"N": "1.50"}, {"M": {"größe": {"S": "\U0001f375"}}}]},
        "strings": {"SS": ["a", "b"]},
        "numbers": {"NS": ["12345678901234567890123456789012345678"]},
    }
    answer = caller.post(caller.event(extra=types))
    must(done(*answer), *answer)


def a_change_of_400_kib_is_handled(caller, _):
    answer = caller.post(caller.event(extra={"note": {"S": "x" * (400 << 10)}}))
    must(done(*answer), *answer)


def a_connection_is_kept_or_closed_as_announced(caller, _):
    connection = caller.connect()
    for _ in range(3):
        if connection.sock is None:  # Closed, and the answer said so.
            connection = caller.connect()
        answer = caller.post(caller.event(), over=connection)
        must(done(*answer), *answer)


def eight_calls_at_a_time_are_answered(caller, _):
    answers, bodies = [], [caller.event() for _ in range(8)]

    def call(body):
        try:
            answers.append(caller.post(body))
        except OSError as error:
            answers.append((0, repr(error).encode()))

    threads = [threading.Thread(target=call, args=[body]) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for status, text in answers:
        must(done(status, text) or status in LATER, status, text)


def a_bad_item_is_refused_for_good(caller, options):
    with open(options.bad, encoding="utf-8") as file:
        item = json.load(file)
    status, text = caller.post(caller.event(item=item))
    must(status in REJECTED, status, text)


def a_receipt_is_a_line_that_the_ledger_keeps_as_it_is(caller, _):
    """The ledger keeps one line of 300 characters, without addresses."""
    answer = caller.post(caller.event())
    must(done(*answer), *answer)
    receipt = caller.receipt
    kept = isinstance(receipt, str) and len(receipt) <= 300 and re.fullmatch(r"[^\s@]+( [^\s@]+)*", receipt)
    if not kept:
        raise AssertionError("the receipt %r is not kept as it is" % (receipt,))


def only_signed_changes_are_handled(caller, _):
    body = caller.event()
    unsigned = {
        name: value for name, value in caller.headers(body).items() if not name.startswith("webhook-")
    }
    for headers in (
        unsigned,
        caller.headers(body, secret=b"x" * 32),
        caller.headers(body, age=3600),
    ):
        answer = caller.post(body, headers)
        must(answer[0] in (401, 403), *answer)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--item")
    parser.add_argument("--bad")
    parser.add_argument("--secret")
    parser.add_argument("--receipt", action="store_true")
    options = parser.parse_args()
    item, secret = ITEM, None
    if options.item:
        with open(options.item, encoding="utf-8") as file:
            item = json.load(file)
    if options.secret:
        with open(options.secret, encoding="utf-8") as file:
            secret = base64.b64decode(file.read().strip()[len("whsec_"):])
    rules = [
        a_change_is_handled,
        a_change_that_comes_again_is_done_or_busy,
        changes_and_removals_are_answered,
        every_type_of_attribute_is_read,
        a_change_of_400_kib_is_handled,
        a_connection_is_kept_or_closed_as_announced,
        eight_calls_at_a_time_are_answered,
    ]
    rules += [a_bad_item_is_refused_for_good] if options.bad else []
    rules += [a_receipt_is_a_line_that_the_ledger_keeps_as_it_is] if options.receipt else []
    rules += [only_signed_changes_are_handled] if options.secret else []
    broken = 0
    for rule in rules:
        try:
            rule(Caller(options.url, item, secret), options)
            told = "ok"
        except (AssertionError, OSError, http.client.HTTPException) as error:
            told, broken = "BROKEN: %s" % (error or repr(error)), broken + 1
        print("%s: %s" % (rule.__name__.replace("_", " "), told), flush=True)
    sys.exit(broken > 0)


main()

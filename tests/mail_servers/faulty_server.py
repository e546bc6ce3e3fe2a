"""A mail server that goes through faults: reads the name of one in each line of its standard input.

    faulty_server.py FILE

Adds a line with the recipient of each mail that it keeps to FILE. Prints the port that it listens on, and
ends when its standard input does.
"""

import asyncio
import sys

from aiosmtpd.smtp import SMTP

# What it says at a step instead of 250.
REPLIES = {
    "451 at MAIL": ("MAIL", "451 4.7.1 the filter is away"),
    "452 at RCPT": ("RCPT", "452 4.3.1 disk full"),
    "550 at RCPT": ("RCPT", "550 5.7.1 not your sender"),
    "454 at the dot": ("DATA", "454 4.7.0 throttled"),
    "550 at the dot": ("DATA", "550 5.4.5 daily limit reached"),
}


class Faulty:
    def __init__(self, kept):
        self.kept = kept
        self.fault = "well"
        self.open = set()

    def reply(self, step):
        at, words = REPLIES.get(self.fault, (None, None))
        return words if at == step else None

    async def handle_MAIL(self, server, session, envelope, address, options):
        envelope.mail_from = address
        return self.reply("MAIL") or "250 sender ok"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.fault == "hangs up at RCPT":
            server.transport.abort()
        words = self.reply("RCPT")
        if not words:
            envelope.rcpt_tos.append(address)
        return words or "250 recipient ok"

    async def handle_DATA(self, server, session, envelope):
        words = self.reply("DATA")
        if words:
            return words
        if self.fault == "hangs up after the dot":
            server.transport.abort()
            return "250 not kept"
        print(*envelope.rcpt_tos, file=self.kept, flush=True)
        if self.fault == "keeps the mail and hangs up":
            server.transport.abort()
        return "250 kept"

    def strikes(self, fault):
        self.fault = fault
        if fault == "away":
            for transport in self.open:
                transport.abort()


class Session(SMTP):
    def connection_made(self, transport):
        super().connection_made(transport)
        self.event_handler.open.add(transport)
        if self.event_handler.fault == "away":
            transport.abort()

    def connection_lost(self, error):
        self.event_handler.open.discard(self.transport)
        super().connection_lost(error)


async def main():
    with open(sys.argv[1], "a") as kept:
        handler = Faulty(kept)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Session(handler, hostname="faulty.example"), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            handler.strikes(line.strip())


asyncio.run(main())

"""A mail server that takes mails, keeps them, and aborts the connection in place of its reply.

    abort_server.py FOLDER ABORTS

Keeps each mail as a file FOLDER/<number>; aborts after the first ABORTS mails, answers after the
others. Prints the port that it listens on, and ends when its standard input does.
"""

import asyncio
import pathlib
import sys

from aiosmtpd.smtp import SMTP


class Keeper:
    def __init__(self, folder, aborts):
        self.folder = pathlib.Path(folder)
        self.aborts = aborts
        self.count = 0

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        (self.folder / str(self.count)).write_bytes(envelope.original_content)
        if self.count <= self.aborts:
            server.transport.abort()
        return "250 kept"


async def main():
    keeper = Keeper(sys.argv[1], int(sys.argv[2]))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(keeper, hostname="real.example"), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())

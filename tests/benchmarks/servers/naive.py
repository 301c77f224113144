"""The naive form of the daemon: asyncio streams, an iterating Unpacker, pyotp for each request.

naive.py SOCKET SEEDS, where SEEDS is JSON: account to seed in base32.
"""

import asyncio
import json
import sys
from pathlib import Path

import msgpack
import pyotp


async def main(path: str, seeds: dict[str, str]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unpacker = msgpack.Unpacker()
        while data := await reader.read(65536):
            unpacker.feed(data)
            for _, msgid, _, (args,) in unpacker:
                totp = pyotp.TOTP(seeds[args["account"]])
                valid = totp.verify(args["code"], valid_window=1)
                writer.write(msgpack.packb([1, msgid, None, {"valid": valid}]))
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))

"""Hands every connection to port 5432 on to another address, byte for byte."""

import asyncio
import sys


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.close()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    onward, back = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    await asyncio.gather(copy(reader, back), copy(onward, writer), return_exceptions=True)


async def main() -> None:
    async with await asyncio.start_server(relay, "", 5432) as server:
        await server.serve_forever()


asyncio.run(main())

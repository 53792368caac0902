"""A WebSocket origin for the suites: says back what it is told."""

import asyncio
import sys

import websockets


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    port = int(sys.argv[1])
    async with websockets.serve(echo, "127.0.0.1", port, max_size=64 << 20):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())

"""A WebSocket echo server and its client, both of the package `websockets`.

    websocket_calls.py server          prints its port, serves until killed
    websocket_calls.py client ADDRESS  talks through a proxy, prints what came of it as JSON
"""

import asyncio
import json
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        if message == "bye":
            await connection.close(4001, "as you wish")
        else:
            await connection.send(message)


async def server():
    async with serve(echo, "127.0.0.1", 0, subprotocols=["chat"], max_size=None) as serving:
        print(serving.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


async def client(address):
    out = {}
    async with connect(f"ws://{address}/chat", subprotocols=["chat"], max_size=None) as connection:
        out["subprotocol"] = connection.subprotocol
        await connection.send("hello")
        out["text"] = await connection.recv()
        large = bytes(range(256)) * 8192
        await connection.send(large)
        out["binary comes back whole"] = await connection.recv() == large
        await asyncio.wait_for(await connection.ping(), 5)
        out["ping"] = "answered"
        await connection.send("bye")
        try:
            await connection.recv()
        except websockets.ConnectionClosed as e:
            out["close"] = [e.rcvd.code, e.rcvd.reason]
    try:
        async with connect(f"ws://{address}/plain"):
            out["refused upgrade"] = "accepted"
    except websockets.InvalidStatus as e:
        out["refused upgrade"] = e.response.status_code
    print(json.dumps(out, sort_keys=True))


if __name__ == "__main__":
    asyncio.run(server() if sys.argv[1] == "server" else client(sys.argv[2]))

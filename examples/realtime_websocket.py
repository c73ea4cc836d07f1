"""No client library: the events themselves. A recorded question is sent as a microphone would, and interrupted.

    pip install websockets
    python examples/realtime_websocket.py 127.0.0.1:8000 examples/sum.wav

The server hears where the question ends (`server_vad`). When the answer begins, the question is asked once more.
"""

import asyncio
import base64
import json
import os
import sys

import soundfile
import soxr
from websockets.asyncio.client import ClientConnection, connect

RATE = 24_000
FRAME = RATE // 20  # samples: 50 ms
SILENCE = 0.8  # seconds behind the question
PATIENCE = 2.0  # seconds without anything


async def speak(socket: ClientConnection, sound: bytes) -> None:
    """Send frames as they would be spoken."""
    for start in range(0, len(sound), 2 * FRAME):
        frame = base64.b64encode(sound[start : start + 2 * FRAME]).decode()
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": frame}))
        await asyncio.sleep(FRAME / RATE)


async def main(address: str, question: str) -> None:
    samples, rate = soundfile.read(question, dtype="float32", always_2d=True)
    sound = (soxr.resample(samples.mean(axis=1), rate, RATE) * 32_767).clip(-32_768, 32_767).astype("<i2").tobytes()
    sound += bytes(2 * int(SILENCE * RATE))
    headers = {"Authorization": f"Bearer {os.environ['OMNI2_API_KEY']}"} if "OMNI2_API_KEY" in os.environ else {}
    async with connect(f"ws://{address}/v1/realtime", additional_headers=headers) as socket:
        speaking, asked, answers = asyncio.create_task(speak(socket, sound)), 1, 0
        try:
            while True:
                event = json.loads(await asyncio.wait_for(socket.recv(), len(sound) / 2 / RATE + PATIENCE))
                if event["type"] == "response.output_audio.delta" and asked == 1:
                    print("sound: ask again")
                    speaking, asked = asyncio.create_task(speak(socket, sound)), 2
                elif event["type"] == "response.done":
                    response, answers = event["response"], answers + 1
                    print("answer:", response["status"], response["output"][0]["content"][0]["transcript"])
                    if answers == 2:
                        break
                elif not event["type"].endswith(".delta"):
                    print(event["type"])
        except TimeoutError:
            print("no answer came: was there speech?")
        await speaking


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

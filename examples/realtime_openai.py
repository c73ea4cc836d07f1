"""OpenAI's own client against `omni2-engine serve`: a recorded question, its answer in answer.wav.

pip install 'openai[realtime]'
python examples/realtime_openai.py 127.0.0.1:8000 examples/sum.wav answer.wav
"""

import asyncio
import base64
import os
import sys
import wave

import soundfile
import soxr
from openai import AsyncOpenAI

RATE = 24_000


async def main(address: str, question: str, answer: str) -> None:
    samples, rate = soundfile.read(question, dtype="float32", always_2d=True)
    sound = (soxr.resample(samples.mean(axis=1), rate, RATE) * 32_767).clip(-32_768, 32_767).astype("<i2").tobytes()
    client = AsyncOpenAI(
        api_key=os.environ.get("OMNI2_API_KEY", "none"),
        base_url=f"http://{address}/v1",
        websocket_base_url=f"ws://{address}/v1",
    )
    async with client.realtime.connect(model="omni2") as connection:
        # We say ourselves when the question is over. Without this line the server hears it.
        await connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        await connection.input_audio_buffer.append(audio=base64.b64encode(sound).decode())
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        with wave.open(answer, "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            async for event in connection:
                if event.type == "response.output_audio_transcript.delta":
                    print(event.delta, end="", flush=True)
                elif event.type == "response.output_audio.delta":
                    file.writeframes(base64.b64decode(event.delta))
                elif event.type == "response.done":
                    break
                elif event.type == "error":
                    sys.exit(event.error.message)
    print(f"\nThe answer is in {answer}.")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

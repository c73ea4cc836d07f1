"""Three clients of a server in the network that this process is in; prints what each has heard.

python -m tests.serve.faults.lossy ENGINE FOLDER
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from omni2_bench.common.server_process import ServerProcess

from ..client import connect
from .conftest import PLAIN, asked


async def main(address: str) -> list[str]:
    async def one() -> str:
        async with connect(address) as client:
            return (await asked(client)).hex()

    return await asyncio.gather(one(), one(), one())


if __name__ == "__main__":
    with ServerProcess(Path(sys.argv[1]), Path(sys.argv[2]) / "log", *PLAIN) as process:
        print(json.dumps(asyncio.run(main(process.address))))

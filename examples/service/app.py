"""Labels over HTTP: python app.py MODEL [--port 8000]

    curl --data-binary @image.png http://127.0.0.1:8000/classify

All requests share one session: the event loop receives bodies, and a thread per core decodes and runs.
"""

import argparse
import asyncio
import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from PIL import Image
from starlette.requests import ClientDisconnect

from coc_runtime import CocError, Session, Task

MAX_BYTES = 1 << 20
"""of a request's body"""
MAX_SECONDS = 10
"""for a body to arrive"""
MAX_CONNECTIONS = 256
"""beyond which uvicorn answers 503"""
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for damaged files."""


def create_app(session: Session) -> FastAPI:
    app = FastAPI(title="classify", docs_url=None, redoc_url=None, openapi_url=None)
    threads = ThreadPoolExecutor(os.cpu_count())

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "input": session.info.input_shape, "backend": session.info.backend}

    @app.post("/classify")
    async def classify(request: Request) -> dict[str, Any]:
        body = await receive(request)
        return await asyncio.get_running_loop().run_in_executor(threads, answer, session, body)

    return app


async def receive(request: Request) -> bytes:
    """A request's body; HTTPException if it is too large or too slow. Never holds more than MAX_BYTES."""
    body = bytearray()
    try:
        async with asyncio.timeout(MAX_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BYTES:
                    raise HTTPException(413, f"the body is larger than {MAX_BYTES} bytes")
    except TimeoutError:
        raise HTTPException(408, f"the body took longer than {MAX_SECONDS} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection ended in the middle of the body") from None
    return bytes(body)


def answer(session: Session, body: bytes) -> dict[str, Any]:
    """What the service says about an image file; HTTPException if it is not one of the model's size."""
    result = session.run(pixels(body, session.info.input_shape))
    if session.info.task is Task.REGRESSION:
        return {"numbers": result.logits[0].tolist(), "exit": int(result.exit[0])}
    return {
        "label": int(result.label[0]),
        "exit": int(result.exit[0]),
        "confidence": float(result.confidence[0]),
    }


def pixels(body: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [1, C, H, W]. The header's size is checked before any pixel is decoded."""
    channels, height, width = shape
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
        if image.size == (width, height):
            image = image.convert("L" if channels == 1 else "RGB")
    except UNREADABLE:
        raise HTTPException(415, f"the body is no readable file of {', '.join(FORMATS)}") from None
    if image.size != (width, height):
        raise HTTPException(
            422, f"the image has {image.width}x{image.height} pixels, the model takes {width}x{height}"
        )
    return np.asarray(image).reshape(1, height, width, channels).transpose(0, 3, 1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help=".coc or .onnx")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    try:
        session = Session(options.model)
    except CocError as error:
        print(error, file=sys.stderr)
        return 2
    uvicorn.run(
        create_app(session),
        host=options.host,
        port=options.port,
        limit_concurrency=MAX_CONNECTIONS,
        access_log=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

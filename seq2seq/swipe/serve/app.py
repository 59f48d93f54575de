"""The server of the page: its files, what can be chosen, and predictions.

    GET  /             the page                     GET  /api/choices   models, layouts, lexicons, limits
    POST /api/predict  a trace -> suggestions       (requests.py has the form)

Whatever goes wrong, a client gets ``{"error": one sentence}``. Only requests to an allowed host name are answered, so
that a foreign page cannot reach a loopback server by a name of its own (DNS rebinding), and there is no CORS.
"""

import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters import ConfigurationError
from seq2seq.swipe.keyboards.layout import Layout
from seq2seq.swipe.predictor import Prediction, Predictor
from seq2seq.swipe.serve.address import LOOPBACK, host_names
from seq2seq.swipe.serve.memory import resident_mib
from seq2seq.swipe.serve.requests import MAX_BYTES, MAX_MILLISECONDS, MAX_POINTS, Question, read_question

PAGE = Path(__file__).parent / "page"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
SENTENCES = {
    404: "Nothing is at this address: the page is at /.",
    405: "The method must be GET here: traces are sent by POST to /api/predict.",
    500: "The server failed; its log says why.",
}


def make_app(predictors: Mapping[str, Predictor], host: str = "127.0.0.1") -> Starlette:
    """The application.

    Args:
        predictors: what can be chosen, by name.
        host: the address it listens on, see ``host_names``.
    """
    answering = threading.Lock()  # one trace at a time: the cores are the model's

    def choices(_: Request) -> JSONResponse:
        return JSONResponse(
            {
                "models": {name: choices_of(predictor) for name, predictor in predictors.items()},
                "limits": {"points": MAX_POINTS, "milliseconds": MAX_MILLISECONDS},
                "resident_mib": resident_mib(),
            }
        )

    def answer(question: Question) -> dict[str, Any]:
        with answering:
            prediction = question.predictor.predict(question.trace, question.lexicon)
        return as_json(prediction, question.predictor.layouts[question.trace.layout])

    async def predict(request: Request) -> JSONResponse:
        body = await read_body(request)
        question = read_question(body, request.headers.get("content-type", ""), predictors)
        return JSONResponse(await run_in_threadpool(answer, question))

    return Starlette(
        routes=[
            Route("/api/choices", choices),
            Route("/api/predict", predict, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(Guard, hosts=host_names(host))],
        exception_handlers={
            ConfigurationError: lambda _, error: refusal(400, str(error)),
            HTTPException: lambda _, error: refusal(error.status_code, SENTENCES.get(error.status_code, error.detail)),
            Exception: lambda _, error: refusal(500, SENTENCES[500]),
        },
    )


def choices_of(predictor: Predictor) -> dict[str, Any]:
    """What a model can be asked with."""
    return {
        "layouts": {name: drawn(layout) for name, layout in predictor.layouts.items()},
        "lexicons": list(predictor.tries),
        "summary": dict(predictor.summary),
    }


def drawn(layout: Layout) -> dict[str, Any]:
    """A layout as the page draws it; lengths are pixels."""
    width, height = layout.size
    return {
        "language": layout.language,
        "alphabet": layout.alphabet,
        "width": width,
        "height": height,
        "keys": [vars(key) for key in layout.keys],
    }


def as_json(prediction: Prediction, layout: Layout) -> dict[str, Any]:
    """A prediction as the page reads it: points in pixels, the posterior by letter."""
    posterior = prediction.posterior.astype(float).round(3)
    return {
        "suggestions": [suggestion._asdict() for suggestion in prediction.suggestions],
        "points": (prediction.points.astype(float) * layout.key_width).round(1).tolist(),
        "posterior": {letter: posterior[:, 1 + at].tolist() for at, letter in enumerate(prediction.alphabet)},
        "milliseconds": round(prediction.milliseconds, 1),
        "resident_mib": resident_mib(),
    }


async def read_body(request: Request) -> bytes:
    """The body; one that is too large is given up as soon as that is known."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"The body must have at most {MAX_BYTES} bytes: send fewer points.")
    return body


def refusal(status: int, sentence: str) -> JSONResponse:
    """An error as clients see it."""
    return JSONResponse({"error": sentence}, status)


class Guard:
    """Answers only requests to an allowed host, and adds the headers of every answer.

    Starlette's TrustedHostMiddleware reads no address of IPv6 and answers in plain text.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self.allows(Request(scope).headers.get("host", "")):
            await self.app(scope, receive, send_with_headers)
        else:
            sentence = f"The Host header must name this server: open it as http://{LOOPBACK[0]} with its port."
            await refusal(400, sentence)(scope, receive, send_with_headers)

    def allows(self, host: str) -> bool:
        """Whether a Host header names this server, with any port."""
        name, _, port = host.rpartition(":")
        name = name if name and port.isdecimal() else host
        return self.hosts is None or name.lower() in self.hosts

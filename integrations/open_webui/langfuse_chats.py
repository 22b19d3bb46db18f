"""
title: Langfuse for plain chats
author: ragcore
version: 0.1.0
required_open_webui_version: 0.6.0
license: Apache-2.0
description: Traces chats that go to a model directly. Answers of ragcore are traced by ragcore.
"""

# A filter function of Open WebUI, best made global. It sends OpenTelemetry spans in JSON, which
# Langfuse takes, in the background: a chat never waits for them.

import asyncio
import hashlib
import json
import logging
import time
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import aiohttp
from pydantic import BaseModel, Field

log = logging.getLogger("ragcore.langfuse_chats")

MOST_WAITING = 100
"""Traces under way; more are dropped, so that a Langfuse that hangs takes no memory."""
LONGEST_TEXT = 20_000


class Filter:
    class Valves(BaseModel):
        priority: int = Field(default=0, description="Filters with lower numbers come before.")
        langfuse_url: str = Field(
            default="http://langfuse-web:3000", description="Where Open WebUI reaches Langfuse."
        )
        public_key: str = Field(default="", description="Empty: nothing is sent.")
        secret_key: str = Field(default="", json_schema_extra={"input": {"type": "password"}})
        includes_text: bool = Field(
            default=True, description="Off: only who, when, which model and how many tokens."
        )
        skipped_models: str = Field(
            default="ragcore",
            description="Models whose ids begin so are not traced; commas between.",
        )
        timeout_seconds: int = Field(default=10, ge=1)

    def __init__(self) -> None:
        self.valves = self.Valves()
        self._began: dict[str, int] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def inlet(
        self, body: dict[str, Any], __metadata__: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Note when the question came."""
        message_id = (__metadata__ or {}).get("message_id")
        if message_id and self._traces(str(body.get("model", ""))):
            while len(self._began) >= 1000:  # chats whose answers never came
                self._began.pop(next(iter(self._began)))
            self._began[message_id] = time.time_ns()
        return body

    async def outlet(
        self, body: dict[str, Any], __user__: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Trace a finished answer; whatever goes wrong with that is logged and no more."""
        began = self._began.pop(str(body.get("id")), None)
        if self._traces(str(body.get("model", ""))):
            if len(self._sending) >= MOST_WAITING:
                log.warning("Langfuse does not keep up: a trace is dropped")
            else:
                spans = spans_of(
                    body, __user__ or {}, began_ns=began, includes_text=self.valves.includes_text
                )
                task = asyncio.create_task(self._send(spans))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
        return body

    def _traces(self, model: str) -> bool:
        skipped = [each.strip() for each in self.valves.skipped_models.split(",") if each.strip()]
        return bool(self.valves.public_key) and not model.startswith(tuple(skipped))

    async def _send(self, spans: Mapping[str, Any]) -> None:
        valves = self.valves
        key = b64encode(f"{valves.public_key}:{valves.secret_key}".encode()).decode()
        headers = {"Authorization": f"Basic {key}", "x-langfuse-ingestion-version": "4"}
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=valves.timeout_seconds), headers=headers
                ) as http,
                http.post(
                    valves.langfuse_url.rstrip("/") + "/api/public/otel/v1/traces", json=spans
                ) as answer,
            ):
                if answer.status >= 400:
                    log.warning("Langfuse refused a trace: %s", answer.status)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("Langfuse can't be reached: %s", type(error).__name__)


def trace_id_of(chat_id: str, message_id: str) -> str:
    """Return the trace of an answer, 32 hexadecimal digits: a rating finds it by the same words
    (ragcore_ratings.py)."""
    return hashlib.sha256(f"{chat_id}/{message_id}".encode()).hexdigest()[:32]


def spans_of(
    body: Mapping[str, Any],
    user: Mapping[str, Any],
    *,
    began_ns: int | None,
    includes_text: bool,
) -> dict[str, Any]:
    """Return one answer as the body of an OTLP export: a trace with one generation."""
    ended = time.time_ns()
    messages = body.get("messages") or []
    answer = next((each for each in reversed(messages) if each.get("role") == "assistant"), {})
    usage = answer.get("usage") or {}
    attributes: dict[str, Any] = {
        "langfuse.trace.name": "open-webui",
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": body.get("model"),
        "langfuse.user.id": user.get("email") or user.get("id"),
        "langfuse.session.id": body.get("chat_id"),
        "gen_ai.usage.input_tokens": usage.get("prompt_tokens"),
        "gen_ai.usage.output_tokens": usage.get("completion_tokens"),
    }
    if includes_text:
        asked = [
            {"role": each.get("role"), "content": str(each.get("content"))[:LONGEST_TEXT]}
            for each in messages
            if each is not answer
        ]
        text = json.dumps(asked[-20:], ensure_ascii=False)
        told = str(answer.get("content"))[:LONGEST_TEXT]
        attributes |= {
            "langfuse.trace.input": text,
            "langfuse.trace.output": told,
            "langfuse.observation.input": text,
            "langfuse.observation.output": told,
        }
    trace_id = trace_id_of(str(body.get("chat_id")), str(body.get("id")))
    span = {
        "traceId": trace_id,
        "spanId": trace_id[:16],
        "name": "chat",
        "kind": 3,
        "startTimeUnixNano": str(began_ns or ended),
        "endTimeUnixNano": str(ended),
        "attributes": [attribute(name, each) for name, each in attributes.items() if each],
        "status": {},
    }
    scope = {"scope": {"name": "ragcore.open_webui"}, "spans": [span]}
    return {"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [scope]}]}


def attribute(name: str, value: Any) -> dict[str, Any]:
    kind = "intValue" if isinstance(value, int) else "stringValue"
    return {"key": name, "value": {kind: str(value)}}

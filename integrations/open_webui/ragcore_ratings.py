"""
title: Ratings for ragcore and Langfuse
author: ragcore
version: 0.1.0
required_open_webui_version: 0.9.0
license: Apache-2.0
description: A thumb up or down in a chat becomes feedback on the trace of that answer.
"""

# An event function of Open WebUI: it hears that an answer was rated. Which trace the answer has
# stands in the answer's own status (ragcore) or follows from its ids (langfuse_chats.py).

import hashlib
import json
import logging
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import aiohttp
from pydantic import BaseModel, Field

log = logging.getLogger("ragcore.ratings")

PASSWORD = {"input": {"type": "password"}}
HEARD = ("feedback.created", "feedback.updated")


class Event:
    class Valves(BaseModel):
        url: str = Field(
            default="http://rag-api:8000", description="Where Open WebUI reaches ragcore."
        )
        api_key: str = Field(
            default="", description="A key of the scope `query`.", json_schema_extra=PASSWORD
        )
        langfuse_url: str = Field(
            default="http://langfuse-web:3000", description="For plain chats: where Langfuse is."
        )
        public_key: str = Field(default="", description="Empty: plain chats are not scored.")
        secret_key: str = Field(default="", json_schema_extra=PASSWORD)
        timeout_seconds: int = Field(default=10, ge=1)

    def __init__(self) -> None:
        self.valves = self.Valves()

    async def event(self, event: Mapping[str, Any]) -> None:
        """Pass a rating on. It may be heard twice: the second takes the place of the first."""
        feedback_id = (event.get("subject") or {}).get("id")
        if event.get("event") not in HEARD or not feedback_id:
            return
        # Modules of Open WebUI itself, which are there where this runs.
        from open_webui.models.chats import Chats
        from open_webui.models.feedbacks import Feedbacks

        feedback = await Feedbacks.get_feedback_by_id(id=feedback_id)
        about = (feedback and feedback.meta) or {}
        chat_id, message_id = about.get("chat_id"), about.get("message_id")
        rating = str(((feedback and feedback.data) or {}).get("rating"))
        if not chat_id or not message_id or rating not in ("1", "-1"):
            return
        message = await Chats.get_message_by_id_and_message_id(chat_id, message_id) or {}
        await self._pass_on(
            trace_of(message),
            trace_id_of(chat_id, message_id),
            score=int(rating == "1"),
            comment=comment_in(feedback.data or {}),
        )

    async def _pass_on(
        self, traced: str | None, plain: str, *, score: int, comment: str | None
    ) -> None:
        valves = self.valves
        said = {"comment": comment} if comment else {}
        if traced is not None:
            headers = {"Authorization": f"Bearer {valves.api_key}"} if valves.api_key else {}
            body: dict[str, Any] = {"trace_id": traced, "score": score, **said}
            await self._post(f"{valves.url.rstrip('/')}/feedback", body, headers)
        elif valves.public_key:
            key = b64encode(f"{valves.public_key}:{valves.secret_key}".encode()).decode()
            body = {
                "id": f"rating-{plain}",
                "traceId": plain,
                "name": "user-feedback",
                "dataType": "BOOLEAN",
                "value": score,
                **said,
            }
            url = f"{valves.langfuse_url.rstrip('/')}/api/public/scores"
            await self._post(url, body, {"Authorization": f"Basic {key}"})

    async def _post(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """A rating is not worth an error in front of whoever gave it: trouble is logged."""
        timeout = aiohttp.ClientTimeout(total=self.valves.timeout_seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
                http.post(url, json=body) as answer,
            ):
                if answer.status >= 400:
                    told = (await answer.text())[:300]
                    log.warning("a rating was not taken: %s %s", answer.status, told)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("a rating could not be sent: %s", type(error).__name__)


def trace_of(message: Mapping[str, Any]) -> str | None:
    """Return the trace that ragcore told with the answer; None for an answer of others."""
    told = message.get("statusHistory") or message.get("status_history") or ()
    if isinstance(told, str):
        told = json.loads(told)
    return next((each["trace_id"] for each in reversed(told) if each.get("trace_id")), None)


def trace_id_of(chat_id: str, message_id: str) -> str:
    """Return the trace of a plain chat's answer, as langfuse_chats.py names it."""
    return hashlib.sha256(f"{chat_id}/{message_id}".encode()).hexdigest()[:32]


def comment_in(data: Mapping[str, Any]) -> str | None:
    said = [str(data[name]) for name in ("reason", "comment") if data.get(name)]
    return ": ".join(said)[:2000] or None

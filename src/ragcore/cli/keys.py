"""`ragcore keys` and `ragcore audit`: who may call the API, and who did what."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from ragcore.cli import options, output, place, session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ragcore.model import ApiKey, AuditEntry

_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}
_SPAN: Final = re.compile(r"(\d{1,5})([hdw])")

app = typer.Typer(
    help="Create, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who uses it, for the log and the audit trail.")],
    scope: Annotated[
        list[str],
        typer.Option("--scope", "-s", help="query, ingest or admin; repeat for more than one."),
    ],
    collection: Annotated[
        list[str] | None,
        typer.Option(
            "--collection", "-c", help="A collection it sees; repeat for more. [default: every one]"
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN|DATE", help="When it stops: 12h, 90d, 52w or 2027-01-31. [default: never]"
        ),
    ] = None,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(help="Requests in a minute, 0 for no limit. [default: as the settings say]"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Create an API key and print its secret, which can't be shown again.

    \b
    Examples:
      ragcore keys create anna --scope admin
      ragcore keys create n8n --scope ingest --scope query --collection reports --expires 90d
      KEY=$(ragcore keys create notebook --scope query)

    The secret alone goes to stdout.
    """
    expires_at = _read_expiry(expires)

    async def create() -> "tuple[ApiKey, str]":
        return await place.library().create_key(
            name,
            scopes=scope,
            collections=collection,
            requests_per_minute=requests_per_minute,
            expires_at=expires_at,
        )

    key, secret = session.run_async(create, as_json=as_json)
    if as_json:
        output.print_json(output.jsonable(key) | {"secret": secret})
        return
    typer.echo(f"Key {key.key_id} for {key.name}; its secret is shown once:", err=True)
    typer.echo(secret)


@app.command("list")
def list_keys(as_json: options.AsJson = False) -> None:
    """List the API keys, the newest first, revoked and expired ones included.

    \b
    Examples:
      ragcore keys list
      ragcore keys list --json | jq -r '.keys[] | select(.revoked_at == null).name'
    """

    async def fetch() -> "Sequence[ApiKey]":
        return await place.library().keys()

    found = session.run_async(fetch, as_json=as_json)
    if as_json:
        output.print_json({"keys": list(found)})
        return
    headings = ("id", "name", "scopes", "collections", "state", "last used")
    output.print_table(None, dict.fromkeys(headings, "left"), [_row(key) for key in found])


@app.command("revoke")
def revoke_key(
    key_id: Annotated[UUID, typer.Argument(help="Id of the key, as `ragcore keys list` shows it.")],
    as_json: options.AsJson = False,
) -> None:
    """Make an API key worthless for ever; services notice within seconds.

    \b
    Example:
      ragcore keys revoke 5f2b6c1e-3f0f-4f43-9a57-2f1c2ad0c9b1

    Exit code 4 when there is no such key.
    """

    async def revoke() -> "ApiKey":
        return await place.library().revoke_key(key_id)

    key = session.run_async(revoke, as_json=as_json)
    if as_json:
        output.print_json(key)
    else:
        typer.echo(f"Key {key.key_id} for {key.name} is revoked.")


def list_audit(
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", help="Only about this collection; repeat for more."),
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this, such as document.delete or key.create.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most entries shown.")] = 50,
    as_json: options.AsJson = False,
) -> None:
    """Show who took in and deleted documents and who changed keys, the newest first.

    \b
    Examples:
      ragcore audit --limit 20
      ragcore audit --action document.delete --collection reports --json
    """

    async def fetch() -> "Sequence[AuditEntry]":
        return await place.library().audit(collections=collection, action=action, limit=limit)

    found = session.run_async(fetch, as_json=as_json)
    if as_json:
        output.print_json({"entries": list(found)})
        return
    headings = ("at", "actor", "action", "collection", "target", "details")
    rows = [
        [
            _moment(entry.at),
            entry.actor,
            entry.action,
            output.shown(entry.collection),
            output.shown(entry.target),
            output.shown(dict(entry.details)),
        ]
        for entry in found
    ]
    output.print_table(None, dict.fromkeys(headings, "left"), rows)


def _read_expiry(text: str | None) -> datetime | None:
    """Read a span from now, or a date and time; without a zone it is UTC's."""
    if text is None:
        return None
    if span := _SPAN.fullmatch(text):
        return datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is neither a span such as 12h, 90d or 52w nor a date such as 2027-01-31",
            param_hint="--expires",
        ) from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _row(key: "ApiKey") -> list[str]:
    return [
        str(key.key_id),
        key.name,
        ", ".join(sorted(key.scopes)),
        "every one" if key.collections is None else ", ".join(sorted(key.collections)),
        _state(key),
        _moment(key.last_used_at),
    ]


def _state(key: "ApiKey") -> str:
    if key.revoked_at is not None:
        return f"revoked {_moment(key.revoked_at)}"
    if key.expires_at is None:
        return "good"
    word = "good until" if key.expires_at > datetime.now(UTC) else "expired"
    return f"{word} {_moment(key.expires_at)}"


def _moment(moment: datetime | None) -> str:
    return output.shown(moment and moment.isoformat(" ", timespec="seconds"))

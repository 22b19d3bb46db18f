"""With and without a pooler between the pool and PostgreSQL."""

from pooling import pooler
from ragcore.adapters.postgres.pool import Connection, describe_server, open_pool


async def _setting(connection: Connection, name: str) -> str:
    row = await (await connection.execute("SELECT current_setting(%s)", (name,))).fetchone()
    assert row is not None
    return str(row[0])


async def test_a_session_of_our_own_is_set_up_once(database_url: str) -> None:
    async with open_pool(database_url, size=2) as pool, pool.connection() as connection:
        assert (await describe_server(connection)).keeps_sessions
        assert await _setting(connection, "hnsw.ef_search") == "64"
        assert await _setting(connection, "hnsw.iterative_scan") == "relaxed_order"


async def test_a_session_that_a_pooler_shares_is_left_as_it_is(database_url: str) -> None:
    async with (
        pooler(database_url) as url,
        open_pool(url, size=2) as pool,
        pool.connection() as connection,
    ):
        assert not (await describe_server(connection)).keeps_sessions
        assert connection.prepare_threshold is None
        assert await _setting(connection, "search_path") == '"$user", public'

"""The servers that other tests stand on are real and complete."""

import psycopg
import redis


def test_every_postgres_has_a_working_pgvector(any_postgres: str) -> None:
    with psycopg.connect(any_postgres) as connection:
        connection.execute("CREATE EXTENSION vector")
        row = connection.execute("SELECT '[1,2]'::vector <=> '[2,4]'::vector").fetchone()
    assert row is not None
    assert abs(row[0]) < 1e-6


def test_cyrillic_is_lower_cased_and_stemmed(any_postgres: str) -> None:
    with psycopg.connect(any_postgres) as connection:
        row = connection.execute(
            "SELECT lower('ЁЛКА'), to_tsvector('russian', 'маяки маяков')::text"
        ).fetchone()
    assert row == ("ёлка", "'маяк':1,2")


def test_a_wrong_password_is_refused(empty_database_url: str) -> None:
    forged = empty_database_url.replace("ragcore:", "ragcore:wrong", 1)
    try:
        psycopg.connect(forged).close()
    except psycopg.OperationalError as error:
        assert "password authentication failed" in str(error)
    else:
        raise AssertionError("a wrong password opened the database")


def test_valkey_starts_empty_and_demands_its_password(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        port = client.connection_pool.connection_kwargs["port"]
    with redis.Redis(host="127.0.0.1", port=port) as stranger:
        try:
            stranger.ping()
        except redis.AuthenticationError:
            return
    raise AssertionError("Valkey answered a stranger")

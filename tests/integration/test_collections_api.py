"""Collections as callers of the running API make, see and delete them."""

from collections.abc import Iterator, Mapping

import pytest

from apis import Api, code_of, running_api
from conftest import TestServer
from ragcore.embedded import EmbeddedServers


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[Api]:
    with running_api(
        postgres_server, template=migrated_template, redis_url=embedded.redis_url
    ) as api:
        yield api


def only(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {"X-API-Key": "", **headers}


def test_making_a_collection_twice_is_making_it_once(api: Api) -> None:
    body = {"language": "ru", "strict": True}
    first = api.http.put("/collections/minutes", json=body)
    again = api.http.put("/collections/minutes", json=body)
    found = api.http.get("/collections/minutes")
    assert [first.status_code, again.status_code] == [200, 200]
    assert first.json() == again.json() == found.json()
    assert (found.json()["language"], found.json()["strict"]) == ("ru", True)
    assert (found.json()["documents"], found.json()["chunks"]) == (0, 0)
    entries = api.http.get("/audit", params={"action": "collection.create"}).json()["entries"]
    assert [entry["collection"] for entry in entries] == ["minutes"]


def test_what_is_left_out_is_as_it_is(api: Api) -> None:
    api.http.put("/collections/reports", json={"language": "en"})
    assert api.http.put("/collections/reports", json={}).json()["language"] == "en"


def test_the_configured_model_may_be_named_and_no_other(api: Api) -> None:
    model = api.http.get("/version").json()["embedding_model"]
    answer = api.http.put("/collections/named", json={"embedding_model": model})
    assert answer.json()["embedding_model"] == model
    other = api.http.put("/collections/named", json={"embedding_model": "ollama:other"})
    assert (other.status_code, code_of(other)) == (409, "collection_mismatch")
    assert model in other.json()["detail"]


def test_a_collection_that_is_there_is_not_changed(api: Api) -> None:
    api.http.put("/collections/kept", json={"language": "en"})
    for body in ({"language": "ru"}, {"strict": True}):
        answer = api.http.put("/collections/kept", json=body)
        assert (answer.status_code, code_of(answer)) == (409, "conflict")


@pytest.mark.parametrize("name", ["UPPER", "a b", "a" * 49, "маяк", "a%2Fb", "a'b"])
def test_a_name_that_can_not_be_one_is_refused(api: Api, name: str) -> None:
    assert api.http.put(f"/collections/{name}", json={}).status_code in (404, 422)


def test_collections_are_listed_page_by_page(api: Api) -> None:
    for name in ("list-b", "list-a", "list-c"):
        api.http.put(f"/collections/{name}", json={})
    page = api.http.get("/collections", params={"cursor": "list", "limit": 2}).json()
    assert [collection["name"] for collection in page["collections"]] == ["list-a", "list-b"]
    rest = api.http.get("/collections", params={"cursor": page["next_cursor"]}).json()
    assert rest["collections"][0]["name"] == "list-c"
    assert rest["next_cursor"] is None


def test_a_collection_counts_what_it_holds_and_goes_with_it(api: Api) -> None:
    api.http.put("/collections/short", json={})
    for number in range(2):
        api.ingest(f"Text {number}.", document_id=f"d{number}", collection="short")
    counted = api.http.get("/collections/short").json()
    assert (counted["documents"], counted["chunks"]) == (2, 2)
    receipt = api.http.delete("/collections/short").json()
    assert sorted(receipt["document_ids"]) == ["d0", "d1"]
    assert (receipt["chunks"], receipt["versions"], receipt["blobs"]) == (2, 2, 6)
    for method in ("GET", "DELETE"):
        gone = api.http.request(method, "/collections/short")
        assert (gone.status_code, code_of(gone)) == (404, "collection_not_found")


def test_a_key_sees_and_makes_its_own_collections_alone(api: Api) -> None:
    api.http.put("/collections/theirs", json={})
    mine = only(api.key("query", "ingest", collections=["mine"]))
    assert api.http.put("/collections/mine", json={}, headers=mine).status_code == 200
    listed = api.http.get("/collections", headers=mine).json()["collections"]
    assert [collection["name"] for collection in listed] == ["mine"]
    for method, name in (("GET", "theirs"), ("GET", "nowhere"), ("PUT", "theirs")):
        body = {} if method == "PUT" else None
        answer = api.http.request(method, f"/collections/{name}", json=body, headers=mine)
        assert (answer.status_code, code_of(answer)) == (403, "forbidden")


def test_only_an_administrator_deletes_a_collection(api: Api) -> None:
    api.http.put("/collections/guarded", json={})
    writer = only(api.key("query", "ingest"))
    assert code_of(api.http.delete("/collections/guarded", headers=writer)) == "forbidden"
    of_another = only(api.key("admin", collections=["other"]))
    assert code_of(api.http.delete("/collections/guarded", headers=of_another)) == "forbidden"
    of_this = only(api.key("admin", collections=["guarded"]))
    assert api.http.delete("/collections/guarded", headers=of_this).status_code == 200

"""Who comes in, and how sessions end that the client does not end."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from omni2_engine.errors import SettingError
from omni2_engine.live import events as live
from omni2_serve.access import LOOPBACK, Access, split_keys
from omni2_serve.limits import ServiceLimits

from ..waiting import SOON
from .client import open_socket
from .scripted import METRICS, Script, chunk

KEY = "0123456789abcdef"


async def refused(server: Any, **options: Any) -> Any:
    """The HTTP answer of a handshake that fails."""
    with pytest.raises(InvalidStatus) as error:
        async with server.client(**options):
            raise AssertionError("it was let in")
    return error.value.response


def test_a_key_is_wanted_where_there_is_one(new_server: Any) -> None:
    server = new_server(access=Access(keys=[KEY]))

    async def connected() -> None:
        for key in (None, "0123456789abcdeg", ""):
            answer = await refused(server, key=key)
            assert answer.status_code == 401 and b"invalid_api_key" in answer.body
        async with server.client(key=KEY):
            pass
        protocols = ["realtime", f"openai-insecure-api-key.{KEY}", "openai-beta.realtime-v1"]
        async with server.client(subprotocols=protocols) as client:  # as a browser sends it
            assert client.socket.subprotocol == "realtime"

    asyncio.run(connected())
    with httpx.Client(base_url=f"http://{server.address}", timeout=SOON) as http:
        for path in ("/v1/models", "/metrics"):
            assert http.get(path).status_code == 401
            assert http.get(path, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        assert http.post("/v1/realtime/client_secrets", json={}).status_code == 401
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200


def test_a_variable_holds_several_keys() -> None:
    assert split_keys(f"{KEY},another-of-sixteen") == [KEY, "another-of-sixteen"] and split_keys("") == []


def test_a_short_key_is_refused() -> None:
    with pytest.raises(SettingError, match="too short"):
        Access(keys=["secret"])


def test_a_client_secret_opens_a_session_with_its_settings(new_server: Any) -> None:
    server = new_server(access=Access(keys=[KEY]))
    guarded = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=f"http://{server.address}", headers=guarded, timeout=SOON) as http:
        body = {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": {"instructions": "Be brief."}}
        made = http.post("/v1/realtime/client_secrets", json=body).json()
        assert made["value"].startswith("ek_") and made["session"]["instructions"] == "Be brief."
        for wrong in ({"expires_after": {"seconds": 1}}, {"session": {"type": "transcription"}}, []):
            assert http.post("/v1/realtime/client_secrets", json=wrong).status_code == 400
        secret = {"Authorization": f"Bearer {made['value']}"}
        assert http.post("/v1/realtime/client_secrets", json={}, headers=secret).status_code == 401

    async def connected() -> None:
        async with server.client(key=made["value"]) as client:
            assert client.events[0]["session"]["instructions"] == "Be brief."

    asyncio.run(connected())


def test_a_client_secret_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its seconds, however often the clock is set meanwhile."""
    now, set_to = 1000.0, 5000.0
    monkeypatch.setattr("omni2_serve.access.monotonic", lambda: now)
    monkeypatch.setattr("omni2_serve.access.time", lambda: set_to)
    access = Access(keys=[KEY])
    secret = access.new_secret("settings", 10)  # type: ignore[arg-type]
    assert secret.expires_at == 5010
    now, set_to = 1009.5, 8600.0
    assert access.session(secret.value, "others") == "settings"  # type: ignore[arg-type]
    now, set_to = 1010.5, 1400.0
    with pytest.raises(Exception, match="API key"):
        access.session(secret.value, "others")  # type: ignore[arg-type]


def test_pages_of_others_are_kept_out(new_server: Any) -> None:
    server = new_server(access=Access(hosts=LOOPBACK, origins=frozenset({"https://friend.example"})))
    own = f"http://{server.address}"

    async def connected() -> None:
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
            assert (await refused(server, origin=origin)).status_code == 403
        for origin in (own, "https://friend.example", None):
            async with server.client(origin=origin):
                pass

    asyncio.run(connected())
    with httpx.Client(base_url=own, timeout=SOON) as http:
        assert http.get("/healthz", headers={"Host": "evil.example"}).status_code == 403  # DNS rebinding
        assert http.get("/healthz", headers={"Host": "localhost:1"}).status_code == 200
        evil = {"Origin": "https://evil.example"}
        assert http.post("/v1/realtime/client_secrets", json={}, headers=evil).status_code == 403
        assert http.post("/v1/realtime/client_secrets", json={}, headers={"Origin": own}).status_code == 200


def test_browsers_let_a_friendly_page_read_the_answers(new_server: Any) -> None:
    server = new_server(access=Access(origins=frozenset({"https://friend.example"})))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    with httpx.Client(base_url=f"http://{server.address}", timeout=SOON) as http:
        friend = {"Origin": "https://friend.example"}
        allowed = http.options("/v1/realtime/calls", headers=asked | friend)
        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://friend.example"
        assert allowed.headers["Access-Control-Allow-Headers"].lower() == "authorization,content-type"
        answer = http.get("/v1/models", headers=friend)
        assert "Location" in answer.headers["Access-Control-Expose-Headers"]
        other = {"Origin": "https://evil.example"}
        for refused_one in (
            http.options("/v1/realtime/calls", headers=asked | other),
            http.get("/v1/models", headers=other),
        ):
            assert "Access-Control-Allow-Origin" not in refused_one.headers


def test_the_page_may_reach_for_this_server_alone(server: Any) -> None:
    with httpx.Client(base_url=f"http://{server.address}", timeout=SOON) as http:
        for path, kind in {
            "/": "text/html",
            "/main.js": "text/javascript",
            "/audio/ring.js": "text/javascript",
        }.items():
            answer = http.get(path)
            assert answer.status_code == 200 and answer.headers["Content-Type"].startswith(kind)
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
            assert answer.headers["Cache-Control"] == "no-cache"
            assert http.get(path, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
        assert http.get("/../app.py").status_code == 404 and http.get("/%2e%2e/app.py").status_code == 404


def test_the_models_say_what_they_were_taught(server: Any) -> None:
    (model,) = httpx.get(f"http://{server.address}/v1/models", timeout=SOON).json()["data"]
    assert model["voices"] == ["voice"]
    assert (model["typed_turns"], model["history_turns"], model["open_domain"]) == (True, None, True)


def test_a_full_server_says_when_to_come_back(new_server: Any) -> None:
    server = new_server(ServiceLimits(sessions=1))

    async def connected() -> None:
        async with server.client():
            answer = await refused(server)
            assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        while server.service.sessions:
            await asyncio.sleep(0.001)
        async with server.client():
            pass

    asyncio.run(connected())


@pytest.mark.parametrize(
    ("limits", "code"), [(ServiceLimits(idle=0.05), "session_idle"), (ServiceLimits(length=0.05), "session_expired")]
)
def test_sessions_end(new_server: Any, limits: ServiceLimits, code: str) -> None:
    server = new_server(limits)

    async def connected() -> None:
        async with server.client() as client:
            assert (await client.error())["code"] == code
            await client.socket.wait_closed()
            assert client.socket.close_code == 1008

    asyncio.run(connected())


def test_a_message_that_is_too_large_ends_the_session(new_server: Any) -> None:
    server = new_server(ServiceLimits(message=10_000))

    async def connected() -> None:
        async with server.client() as client:
            await client.send("session.update", session={"instructions": "x" * 10_000})
            await client.socket.wait_closed()
            assert client.socket.close_code == 1009

    asyncio.run(connected())


def test_a_stopping_server_finishes_its_answers(new_server: Any) -> None:
    script = Script()
    server = new_server(ServiceLimits(drain=SOON), host=script.host)

    async def connected() -> None:
        patient = httpx.AsyncClient(timeout=SOON)
        async with server.client() as talking, server.client() as waiting, patient as http:
            await talking.type("one")
            await talking.send("response.create")
            await talking.update()
            (conversation,) = script.conversations
            conversation.happens(live.TurnBegun(0, speculative=False), live.AnswerBegun(0))
            await talking.until("response.created")
            server.drain()
            error = await waiting.error()
            assert (error["code"], error["type"]) == ("server_stopping", "server_error")
            await waiting.socket.wait_closed()
            assert waiting.socket.close_code == 1001
            assert (await http.get(f"http://{server.address}/readyz")).status_code == 503
            assert (await http.get(f"http://{server.address}/healthz")).status_code == 200
            assert (await refused(server)).status_code == 503
            conversation.happens(live.SoundMade(0, chunk(0)), live.Finished(0, "end", METRICS))
            assert (await talking.until("response.done"))["response"]["status"] == "completed"
            assert (await talking.error())["code"] == "server_stopping"
            await talking.socket.wait_closed()
            assert talking.socket.close_code == 1001
        server.join()
        with pytest.raises(OSError):
            async with open_socket(f"ws://{server.address}/v1/realtime", open_timeout=SOON):
                pass

    asyncio.run(connected())


def test_a_stopping_server_does_not_wait_for_ever(new_server: Any) -> None:
    script = Script()
    server = new_server(ServiceLimits(drain=0.05), host=script.host)

    async def connected() -> None:
        async with server.client() as client:
            await client.type("one")
            await client.send("response.create")
            await client.update()
            server.drain()
            await client.socket.wait_closed()
            assert client.socket.close_code == 1012

    asyncio.run(connected())
    server.join()

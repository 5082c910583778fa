"""2,000 requests over 200 connections, a third of them hostile: honest ones are all answered, and
nothing is left behind."""
import json
import random
import socket
import sys
import threading
import unittest

sys.path.insert(0, str(__import__("pathlib").Path(__file__).resolve().parents[1]))
from support.tandem_server import Server  # noqa: E402

CONNECTIONS = 200
REQUESTS = 2000
SOCKET_DEADLINE_S = 120
MEMORY_SLACK_BYTES = 48 << 20


def request_bytes(host, path, body, headers=""):
    return (f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{headers}\r\n").encode() + body


def chat_body(**fields):
    return json.dumps({"model": "", "max_tokens": 4, "temperature": 0,
                       "messages": [{"role": "user", "content": "Say hello."}]} | fields).encode()


def joined_chunks(body):
    """A late answer comes in chunks, white space first: see server.heartbeat_ms."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + rest[:length], rest[length + 2:]
        if length == 0:
            break
    return whole


def read_response(connection):
    """(status, body) of one response on a keep-alive connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("closed before the header's end")
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        while not body.endswith(b"0\r\n\r\n"):
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionError("closed inside the body")
            body += piece
        return status, joined_chunks(body)
    length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("closed inside the body")
        body += piece
    return status, body


def large_body(piece):
    whole = json.dumps({"model": "", "messages": [
        {"role": "user", "content": piece * ((10 << 20) // len(json.dumps(piece)))}]})
    return whole.encode()[:10 << 20]


# Made once: 200 threads that each make theirs keep the honest ones from sending for seconds, and
# a connection that sends nothing for server.header_timeout_ms is closed with good reason.
LARGE_BODIES = [large_body(piece) for piece in ("a", "word ", "🦊", " ")]


class Hostile:
    """Each takes a fresh socket; none expects an answer it must get, but a 5xx is noted."""

    @staticmethod
    def cut_body(connection, host, _):
        whole = request_bytes(host, "/v1/chat/completions", chat_body())
        connection.sendall(whole[:-20])

    @staticmethod
    def slow_sender(connection, host, _):
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        for byte in b"content-le":
            connection.sendall(bytes([byte]))

    @staticmethod
    def wrong_types(connection, host, rng):
        field = rng.choice([("temperature", "hot"), ("max_tokens", -3), ("messages", 7), ("n", 1e9),
                            ("stop", {"a": 1}), ("logit_bias", [1]), ("stream", "yes"),
                            ("messages", [{"role": 3}]), ("seed", "x"), ("top_p", [])])
        connection.sendall(request_bytes(host, "/v1/chat/completions", chat_body(**dict([field]))))
        return read_response(connection)

    @staticmethod
    def broken_json(connection, host, rng):
        body = rng.choice([b"{", b"[" * 5000, b'{"a":"\xff\xfe"}', b"nul", b'{"messages": [}', b"",
                           b'{"model": "\\ud800"}'])
        connection.sendall(request_bytes(host, "/v1/chat/completions", body))
        return read_response(connection)

    @staticmethod
    def garbage(connection, host, rng):
        connection.sendall(rng.randbytes(400) + b"\r\n\r\n")

    @staticmethod
    def large_prompt(connection, host, rng):
        try:
            connection.sendall(request_bytes(host, "/v1/chat/completions",
                                             rng.choice(LARGE_BODIES)))
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before it was read whole
        return read_response(connection)

    @staticmethod
    def vanish_in_stream(connection, host, _):
        connection.sendall(request_bytes(host, "/v1/chat/completions", chat_body(
            stream=True, max_tokens=500, ignore_eos=True)))
        connection.recv(200)

    @staticmethod
    def vanish_before_answer(connection, host, _):
        connection.sendall(request_bytes(host, "/v1/chat/completions", chat_body(
            max_tokens=500, ignore_eos=True)))

    @staticmethod
    def huge_header(connection, host, _):
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-y: " + b"z" * 200_000 + b"\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return None
        return None


KINDS = [getattr(Hostile, name) for name in vars(Hostile) if not name.startswith("__")]


class Crowd(unittest.TestCase):
    def test_a_third_hostile_and_nobody_else_pays(self):
        with Server("--set", "server.header_timeout_ms=20000", "--set", "server.body_timeout_ms=5000",
                    "--set", "serve.max_queued=4096") as server:
            host, port = server.host_port
            model = json.loads(server.get("/v1/models"))["data"][0]["id"]
            expected = server.post("/v1/chat/completions", json.loads(chat_body(model=model)))[
                "choices"][0]["message"]["content"]
            # One hostile round first, so that memory is compared with a warm server.
            self.crowd(server, host, port, model, expected, 200, seed=1)
            self.assertTrue(server.wait_until(server.idle))
            before = server.resident_bytes()
            honest, hostile = self.crowd(server, host, port, model, expected, REQUESTS, seed=2)
            self.assertTrue(server.wait_until(server.idle, 60), "KV blocks are held by nobody")
            after = server.resident_bytes()
            print(f"{honest} honest answered, {hostile} hostile; resident {before >> 20} -> "
                  f"{after >> 20} MiB")
            self.assertLess(after, before + MEMORY_SLACK_BYTES)
            self.assertIsNone(server.process.poll())

    def crowd(self, server, host, port, model, expected, requests, seed):
        failures, counts = [], {"honest": 0, "hostile": 0}
        lock = threading.Lock()
        honest_body = request_bytes(host, "/v1/chat/completions", chat_body(model=model))

        def worker(number):
            rng = random.Random(seed * 1000 + number)
            connection = None
            for i in range(number, requests, CONNECTIONS):
                try:
                    if i % 3 == 0:
                        with socket.create_connection((host, port), SOCKET_DEADLINE_S) as other:
                            kind = rng.choice(KINDS)
                            answer = kind(other, host, rng)
                            if answer and answer[0] >= 500:
                                raise AssertionError(f"{kind.__name__}: {answer}")
                        with lock:
                            counts["hostile"] += 1
                        continue
                    if connection is None:
                        connection = socket.create_connection((host, port), SOCKET_DEADLINE_S)
                    connection.sendall(honest_body)
                    status, body = read_response(connection)
                    text = json.loads(body)["choices"][0]["message"]["content"]
                    if status != 200 or text != expected:
                        raise AssertionError(f"honest request: {status} {body[:300]}")
                    with lock:
                        counts["honest"] += 1
                except ConnectionError as lost:
                    if i % 3 != 0:
                        with lock:
                            failures.append(f"request {i}: {lost!r}")
                        connection = None
                except Exception as wrong:  # noqa: BLE001 - every kind is a finding
                    with lock:
                        failures.append(f"request {i}: {wrong!r}")
                    connection = None
            if connection:
                connection.close()

        threads = [threading.Thread(target=worker, args=(n,)) for n in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(counts["honest"], sum(1 for i in range(requests) if i % 3))
        return counts["honest"], counts["hostile"]


if __name__ == "__main__":
    unittest.main(verbosity=2)

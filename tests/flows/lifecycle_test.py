"""Starting, refusing to start, draining and dying: what the operator sees."""
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.error

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support.tandem_server import BINARY, QUICKSTART, Server, run_tandem  # noqa: E402

import openai  # noqa: E402

STORY = [{"role": "user", "content": "Tell me a long story about a fox."}]


class Start(unittest.TestCase):
    def refused(self, *arguments):
        status, out, err = run_tandem("up", *arguments)
        self.assertEqual(status, 1, (out, err))
        self.assertEqual(len(err.strip().splitlines()), 1, err)
        self.assertNotIn("ready", out)
        return err

    def test_ready_within_a_second_with_the_model_in_the_page_cache(self):
        QUICKSTART.read_bytes()
        times = []
        for _ in range(3):
            with Server() as server:
                times.append(server.ready_ms)
        print(f"ready in {times} ms")
        self.assertLess(min(times), 1000)

    def test_a_taken_port_is_one_line_that_names_it(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assertIn(str(port), self.refused("--port", str(port)))

    def test_broken_and_missing_models_are_one_line_each(self):
        whole = QUICKSTART.read_bytes()
        with tempfile.TemporaryDirectory() as folder:
            for name, content in [("cut.gguf", whole[:5_000_000]), ("head.gguf", whole[:40]),
                                  ("junk.gguf", b"not a model" * 100), ("empty.gguf", b"")]:
                path = pathlib.Path(folder) / name
                path.write_bytes(content)
                self.assertIn(name, self.refused("--port", "0", "--model", str(path)))
            config = pathlib.Path(folder) / "odd"
            config.mkdir()
            (config / "config.json").write_text(json.dumps(
                {"architectures": ["MambaForCausalLM"], "model_type": "mamba"}))
            self.assertIn("mamba", self.refused("--port", "0", "--model", str(config)).lower())
        self.refused("--port", "0", "--model", "/no/such/model.gguf")

    def test_too_little_memory_is_one_line_with_the_numbers(self):
        line = self.refused("--port", "0", "--set", "model.kv_memory=1TiB")
        self.assertIn("MiB", line)

    def test_a_template_that_does_not_compile_is_one_line(self):
        with tempfile.NamedTemporaryFile("w", suffix=".jinja") as broken:
            broken.write("{% for m in messages %}{{ m.content }")
            broken.flush()
            line = self.refused("--port", "0", "--set", f"model.chat_template={broken.name}")
            self.assertIn("template", line)

    def test_an_unknown_setting_is_wrong_usage_with_the_nearest_name(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write("[server]\nprot = 8000\n")
            file.flush()
            status, _, err = run_tandem("up", "--config", file.name)
            self.assertNotEqual(status, 0)
            self.assertIn("port", err)
            self.assertIn(f"{file.name}:2", err)


class End(unittest.TestCase):
    def test_sigterm_lets_running_requests_end_and_refuses_new_ones(self):
        server = Server()
        client = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
        model = client.models.list().data[0].id
        stream = client.chat.completions.create(model=model, messages=STORY, max_tokens=300,
                                                stream=True, extra_body={"ignore_eos": True})
        chunks = [next(iter(stream))]
        # A connection made before the signal: new connections are no longer accepted.
        other = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
        other.models.list()
        server.process.send_signal(signal.SIGTERM)

        def refused():
            try:
                other.chat.completions.create(model=model, messages=STORY, max_tokens=1)
            except openai.InternalServerError as no:
                self.assertEqual(no.status_code, 503)
                return True
            except openai.APIConnectionError:
                return True
            return False

        self.assertTrue(any(refused() for _ in range(200)))
        chunks += list(stream)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "length")
        self.assertEqual(server.process.wait(30), 0)

    def test_a_second_signal_ends_at_once(self):
        server = Server()
        client = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
        model = client.models.list().data[0].id
        stream = client.chat.completions.create(model=model, messages=STORY, max_tokens=4000,
                                                stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        server.process.send_signal(signal.SIGTERM)
        ended = threading.Event()

        def signal_until_dead():
            while not ended.is_set() and server.process.poll() is None:
                server.process.send_signal(signal.SIGTERM)

        sender = threading.Thread(target=signal_until_dead)
        sender.start()
        self.assertNotEqual(server.process.wait(5), 0)
        ended.set()
        sender.join()

    def test_two_devices_share_the_requests(self):
        with Server("--devices", "cpu:0-0,cpu:1-1") as server:
            model = json.loads(server.get("/v1/models"))["data"][0]["id"]
            texts = []

            def ask():
                texts.append(server.post("/v1/completions", {
                    "model": model, "prompt": "Once upon a time", "max_tokens": 60,
                    "temperature": 0, "ignore_eos": True})["choices"][0]["text"])

            threads = [threading.Thread(target=ask) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual((len(texts), len(set(texts))), (6, 1))
            self.assertTrue(server.wait_until(server.idle))
            devices = json.loads(server.get("/admin/cluster"))["devices"]
            self.assertEqual([device["name"] for device in devices], ["cpu:0-0", "cpu:1-1"])
            for device in devices:
                self.assertGreater(device["tokens_generated"], 0)
                self.assertEqual(device["lease"]["role"], "serve")

    def test_killed_it_comes_back_on_the_same_port(self):
        first = Server()
        _, port = first.host_port
        first.process.kill()
        first.process.wait()
        with Server(port=port) as second:
            self.assertEqual(second.host_port[1], port)


class Health(unittest.TestCase):
    def test_probes_and_version(self):
        with Server() as server:
            for path in ["/health", "/health/live", "/health/ready"]:
                server.get(path)
            self.assertIn("version", json.loads(server.get("/version")))
            self.assertIn("paths", json.loads(server.get("/openapi.json")))
            self.assertIn("<html", server.get("/"))
            with self.assertRaises(urllib.error.HTTPError) as refused:
                server.get("/v1/batches")
            self.assertEqual(refused.exception.code, 501)


class CommandLine(unittest.TestCase):
    def test_status_chat_and_bench_speak_to_a_running_server(self):
        with Server() as server:
            address = ["--address", server.address]
            status, out, err = run_tandem("status", "--json", *address)
            self.assertEqual(status, 0, err)
            self.assertEqual(json.loads(out)["state"], "ready")
            status, out, err = run_tandem("chat", "-m", "Name the capital of France.", "--temperature",
                                          "0", *address)
            self.assertEqual(status, 0, err)
            self.assertIn("Paris", out)
            status, out, err = run_tandem("bench", "serve", "--json", "--streams", "2", "--requests",
                                          "4", "--max-tokens", "8", *address)
            self.assertEqual(status, 0, err)
            json.loads(out)

    def test_without_a_server_commands_say_what_to_do(self):
        status, _, err = run_tandem("status", "--address", "http://127.0.0.1:1")
        self.assertEqual(status, 1)
        self.assertEqual(len(err.strip().splitlines()), 1)

    def test_wrong_usage_is_status_2(self):
        self.assertEqual(run_tandem("up", "--no-such-option")[0], 2)
        self.assertEqual(run_tandem("statsu")[0], 2)

    def test_the_binary_runs_where_nothing_else_is(self):
        done = subprocess.run([str(BINARY), "version"], capture_output=True, text=True, env={},
                              timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)

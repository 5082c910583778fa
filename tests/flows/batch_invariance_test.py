"""Sixteen streams at once, a long prompt arriving in the middle: every text as if alone."""
import asyncio
import gc
import json
import statistics
import sys
import time
import unittest

sys.path.insert(0, str(__import__("pathlib").Path(__file__).resolve().parents[1]))
from support.tandem_server import Server  # noqa: E402

LONG_PROMPT_TOKENS = 4000
TOPICS = ["fox", "river", "clock", "lamp", "mountain", "kitchen", "garden", "ship", "violin",
          "desert", "library", "storm", "bridge", "market", "island", "winter"]


class BatchInvariance(unittest.TestCase):
    def flow(self, *settings):
        with Server(*settings) as server:
            asyncio.run(self.compare(server))
            self.assertTrue(server.wait_until(server.idle))

    async def together(self, server):
        """All streams and the long prompt at once: the texts, a way to ask again, the ratio."""
        model = json.loads(server.get("/v1/models"))["data"][0]["id"]
        words = "the quick brown fox jumps over the lazy dog and runs into the deep dark forest "
        long_prompt = (words * 400).split(" ")
        ids = server.post("/tokenize", {"model": model, "prompt": " ".join(long_prompt)})["tokens"]
        self.assertGreaterEqual(len(ids), LONG_PROMPT_TOKENS)
        long_ids = ids[:LONG_PROMPT_TOKENS]

        async def stream(topic, started, gaps, seed):
            """Reads the events from the socket itself: sixteen clients on two cores must cost
            little, or the pauses measured are the clients' own."""
            host, port = server.host_port
            reader, writer = await asyncio.open_connection(host, port)
            body = json.dumps({
                "model": model, "stream": True, "max_tokens": 200, "temperature": 0.8,
                "seed": seed, "ignore_eos": True,
                "messages": [{"role": "user", "content": f"Tell me a story about a {topic}."}],
            }).encode()
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: "
                         + str(len(body)).encode() + b"\r\n\r\n" + body)
            events, last = [], None
            while True:
                line = await reader.readline()
                if not line.startswith(b"data: "):
                    self.assertTrue(line, "the stream broke off")
                    continue
                if line.startswith(b"data: [DONE]"):
                    break
                events.append(line[6:])
                now = time.monotonic()
                if len(events) > 2:  # the role, then the first token
                    gaps.append(now - last)
                last = now
                if len(gaps) == 20:
                    started.set()
            writer.close()
            return "".join(json.loads(event)["choices"][0]["delta"].get("content") or ""
                           for event in events)

        async def ask_again(i):
            if i == 0:
                return await long_request()
            return await stream(TOPICS[i - 1], asyncio.Event(), [], i - 1)

        async def long_request():
            answer = await asyncio.to_thread(server.post, "/v1/completions", {
                "model": model, "prompt": long_ids, "max_tokens": 8, "temperature": 0})
            return answer["choices"][0]["text"]

        # Together first, so that nothing of a solo run is in the prefix cache.
        started = [asyncio.Event() for _ in TOPICS]
        gaps = [[] for _ in TOPICS]
        streams = [asyncio.create_task(stream(topic, started[i], gaps[i], i))
                   for i, topic in enumerate(TOPICS)]
        await asyncio.gather(*(event.wait() for event in started))
        began = time.monotonic()
        together_long = await long_request()
        long_took = time.monotonic() - began
        together = await asyncio.gather(*streams)

        median = statistics.median(gap for list_ in gaps for gap in list_)
        longest = max(gap for list_ in gaps for gap in list_)
        print(f"long prompt {long_took:.1f} s, median gap {median * 1000:.1f} ms, longest {longest * 1000:.1f} ms, "
              f"ratio {longest / median:.2f}")
        return [together_long, *together], ask_again, longest / median

    async def compare(self, server):
        texts, ask_again, _ = await self.together(server)
        for i, text in enumerate(texts):
            self.assertEqual(text, await ask_again(i), f"request {i} alone")

    def test_texts_do_not_depend_on_the_batch_with_the_prefix_cache(self):
        self.flow("--set", "serve.prefix_cache=true")

    def test_texts_do_not_depend_on_the_batch_without_the_prefix_cache(self):
        self.flow("--set", "serve.prefix_cache=false")

    def test_a_long_prompt_pauses_the_other_streams_for_less_than_three_gaps(self):
        # Machines are shared: what the scheduler does shows in the calmest of a few runs.
        ratios = []
        while len(ratios) < 4:
            with Server() as server:
                ratios.append(asyncio.run(self.together(server))[2])
            if ratios[-1] < 3:
                return
        self.fail(f"longest pause over median gap: {ratios}")


if __name__ == "__main__":
    gc.disable()  # its pauses would be measured as the server's
    unittest.main(verbosity=2)

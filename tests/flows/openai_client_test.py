"""The unmodified openai client from PyPI against a running server."""
import sys
import threading
import unittest

sys.path.insert(0, str(__import__("pathlib").Path(__file__).resolve().parents[1]))
from support.tandem_server import Server  # noqa: E402

import httpx  # noqa: E402
import openai  # noqa: E402

FRANCE = [{"role": "user", "content": "Name the capital of France."}]
STORY = [{"role": "user", "content": "Tell me a long story about a fox."}]


class OpenAIClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.client = openai.OpenAI(base_url=cls.server.address + "/v1", api_key="none",
                                   max_retries=0)
        cls.model = cls.client.models.list().data[0].id

    @classmethod
    def tearDownClass(cls):
        cls.server.end()

    def chat(self, **fields):
        fields = {"model": self.model, "messages": FRANCE, "temperature": 0, "max_tokens": 24} | fields
        return self.client.chat.completions.create(**fields)

    def test_a_chat_is_answered_with_usage(self):
        answer = self.chat()
        self.assertIn("Paris", answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertEqual(answer.usage.total_tokens,
                         answer.usage.prompt_tokens + answer.usage.completion_tokens)
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.model_extra["tandem"]["weights_version"], 1)

    def test_a_stream_says_the_same_as_the_whole_answer(self):
        whole = self.chat()
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        self.assertEqual([r for r in reasons if r], ["stop"])
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(len({c.id for c in chunks}), 1)

    def test_stop_strings_end_the_text_and_are_not_part_of_it(self):
        free = self.chat(messages=STORY, max_tokens=60).choices[0].message.content
        words = free.split(" ")
        stop = words[6] + " " + words[7][:2]
        cut = self.chat(messages=STORY, max_tokens=60, stop=[stop])
        self.assertEqual(cut.choices[0].message.content, free[:free.index(stop)])
        self.assertEqual(cut.choices[0].finish_reason, "stop")
        streamed = "".join(c.choices[0].delta.content or ""
                           for c in self.chat(messages=STORY, max_tokens=60, stop=stop, stream=True)
                           if c.choices)
        self.assertEqual(streamed, free[:free.index(stop)])

    def test_the_same_seed_gives_the_same_text_and_another_seed_another(self):
        def draw(seed):
            return self.chat(messages=STORY, temperature=1.0, seed=seed,
                             max_tokens=40).choices[0].message.content
        self.assertEqual(draw(7), draw(7))
        self.assertNotEqual(draw(7), draw(8))

    def test_n_choices_differ_and_are_counted_together(self):
        answer = self.chat(messages=STORY, temperature=1.0, seed=3, n=4, max_tokens=20)
        self.assertEqual([c.index for c in answer.choices], [0, 1, 2, 3])
        self.assertEqual(len({c.message.content for c in answer.choices}), 4)
        self.assertEqual(answer.usage.completion_tokens, 80)

    def test_logprobs_of_chat_tokens(self):
        answer = self.chat(logprobs=True, top_logprobs=3)
        content = answer.choices[0].logprobs.content
        self.assertEqual(len(answer.choices[0].message.content.encode()),
                         sum(len(entry.bytes) for entry in content))
        for entry in content:
            self.assertEqual(len(entry.top_logprobs), 3)
            self.assertEqual(entry.top_logprobs[0].token, entry.token)
            self.assertLessEqual(entry.logprob, 0)

    def test_completions_echo_scores_the_prompt_as_lm_eval_asks(self):
        answer = self.client.completions.create(
            model=self.model, prompt="The capital of France is Paris.", max_tokens=1, echo=True,
            logprobs=1, temperature=0)
        scores = answer.choices[0].logprobs
        self.assertIsNone(scores.token_logprobs[0])
        self.assertTrue(all(value <= 0 for value in scores.token_logprobs[1:]))
        self.assertEqual("".join(scores.tokens[:-1]), "The capital of France is Paris.")
        self.assertEqual(scores.text_offset[0], 0)
        self.assertEqual(len(scores.tokens), len(scores.token_logprobs))

    def test_completions_take_texts_ids_and_lists(self):
        texts = self.client.completions.create(model=self.model, prompt=["One two three", "A b c"],
                                               max_tokens=4, temperature=0)
        self.assertEqual([c.index for c in texts.choices], [0, 1])
        ids = self.server.post("/tokenize", {"model": self.model, "prompt": "One two three"})
        by_ids = self.client.completions.create(model=self.model, prompt=ids["tokens"],
                                                max_tokens=4, temperature=0)
        self.assertEqual(by_ids.choices[0].text, texts.choices[0].text)

    def test_errors_have_the_classes_clients_expect(self):
        with self.assertRaises(openai.NotFoundError) as refused:
            self.chat(model="no-such-model")
        self.assertEqual(refused.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as refused:
            self.chat(temperature=9)
        self.assertEqual(refused.exception.param, "temperature")
        with self.assertRaises(openai.BadRequestError) as refused:
            self.chat(messages=[{"role": "user", "content": "word " * 9000}])
        self.assertEqual(refused.exception.code, "context_length_exceeded")
        self.assertIn("maximum context length is", str(refused.exception))
        with self.assertRaises(openai.BadRequestError):
            self.chat(messages=[])
        with self.assertRaises(openai.BadRequestError):
            self.chat(n=100000)

    def test_a_cancelled_stream_frees_its_blocks(self):
        stream = self.chat(messages=STORY, max_tokens=2000, stream=True,
                           extra_body={"ignore_eos": True})
        for _, chunk in zip(range(5), stream):
            self.assertTrue(chunk.id)
        stream.close()
        self.assertTrue(self.server.wait_until(self.server.idle))

    def test_a_client_time_out_is_the_clients_own_and_frees_the_request(self):
        with self.assertRaises(openai.APITimeoutError):
            self.client.with_options(timeout=0.3).chat.completions.create(
                model=self.model, messages=STORY, max_tokens=4000, extra_body={"ignore_eos": True})
        self.assertTrue(self.server.wait_until(self.server.idle))

    def test_models_say_what_they_are(self):
        model = self.client.models.retrieve(self.model)
        self.assertEqual(model.id, self.model)
        self.assertEqual(model.object, "model")


class Overload(unittest.TestCase):
    def test_a_full_queue_is_a_429_that_the_client_retries(self):
        with Server("--set", "serve.max_queued=1", "--set", "model.max_sequences=1") as server:
            seen = []
            http = httpx.Client(event_hooks={"response": [lambda r: seen.append(r)]})
            patient = openai.OpenAI(base_url=server.address + "/v1", api_key="none",
                                    max_retries=40, http_client=http)
            model = patient.models.list().data[0].id
            texts = []

            def ask():
                texts.append(patient.chat.completions.create(
                    model=model, messages=STORY, temperature=0, max_tokens=60).choices[0].message.content)

            threads = [threading.Thread(target=ask) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(len(texts), 6)
            self.assertEqual(len(set(texts)), 1)
            refused = [r for r in seen if r.status_code == 429]
            self.assertTrue(refused)
            for answer in refused:
                self.assertIn("retry-after", answer.headers)

    def test_without_retries_overload_is_a_rate_limit_error(self):
        with Server("--set", "serve.max_queued=1", "--set", "model.max_sequences=1") as server:
            hasty = openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)
            model = hasty.models.list().data[0].id
            streams = [hasty.chat.completions.create(model=model, messages=STORY, max_tokens=1500,
                                                     stream=True, extra_body={"ignore_eos": True})]
            with self.assertRaises(openai.RateLimitError):
                for _ in range(3):
                    streams.append(hasty.chat.completions.create(
                        model=model, messages=STORY, max_tokens=1500, stream=True,
                        extra_body={"ignore_eos": True}))
            for stream in streams:
                stream.close()


class Keys(unittest.TestCase):
    def test_a_missing_or_wrong_key_is_an_authentication_error(self):
        import tempfile
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
            keys.write("# keys\nsecret-one\n")
            keys.flush()
            with Server("--set", f"server.api_keys_file={keys.name}") as server:
                wrong = openai.OpenAI(base_url=server.address + "/v1", api_key="no", max_retries=0)
                with self.assertRaises(openai.AuthenticationError):
                    wrong.models.list()
                right = openai.OpenAI(base_url=server.address + "/v1", api_key="secret-one",
                                      max_retries=0)
                self.assertTrue(right.models.list().data)


if __name__ == "__main__":
    unittest.main(verbosity=2)

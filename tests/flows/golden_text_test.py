"""`tandem tokenize` and `tandem render` over the goldens, as a user would pipe them."""
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from support.tandem_server import QUICKSTART, run_tandem  # noqa: E402

GOLDEN_DAY = "1783123200"  # 4 July 2026: what strftime_now showed when they were made
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


class Golden(unittest.TestCase):
    def test_tokenize_agrees_with_every_golden_text(self):
        cases = json.loads((GOLDEN / "tokenizer_smollm2.json").read_text())
        lines = "".join(json.dumps({"text": case["text"]}) + "\n" for case in cases)
        status, out, err = run_tandem("tokenize", QUICKSTART, stdin=lines)
        self.assertEqual(status, 0, err)
        answers = [json.loads(line)["ids"] for line in out.splitlines()]
        right = sum(answer == case["ids"] for answer, case in zip(answers, cases))
        print(f"{right} of {len(cases)}")
        self.assertEqual((len(answers), right), (len(cases), len(cases)))

    def test_render_agrees_with_every_golden_template(self):
        cases = json.loads((GOLDEN / "chat_templates.json").read_text())
        right = 0
        for case in cases:
            with self.subTest(case["name"]), tempfile.NamedTemporaryFile("w", suffix=".jinja") as file:
                file.write(case["template"])
                file.flush()
                status, out, err = run_tandem("render", file.name,
                                              stdin=json.dumps(case["context"]) + "\n",
                                              SOURCE_DATE_EPOCH=GOLDEN_DAY)
                answer = json.loads(out) if out else {"error": err}
                if "error" in case:
                    self.assertIn("error", answer)
                else:
                    self.assertEqual(answer.get("text"), case["expected"])
                right += 1
        print(f"{right} of {len(cases)}")


if __name__ == "__main__":
    unittest.main(verbosity=2)

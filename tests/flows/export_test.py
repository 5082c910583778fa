"""Exports read by Python's safetensors: the merged model is W + scale B A, by numpy's arithmetic.

tests_train writes the exports of eight small models; nothing of ours reads them here.
"""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy
from safetensors.numpy import load_file

BINARY = Path(os.environ["TANDEM_BINARY"])
TINY = Path(__file__).resolve().parent.parent / "golden" / "tiny"
PREFIX = "base_model.model."


class ExportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="tandem-exports-")
        writer = subprocess.run(
            [BINARY.parent / "tests" / "tests_train", "writes exports for others"],
            env=dict(os.environ, TANDEM_EXPORT_TO=cls.folder.name),
            capture_output=True, text=True, check=False)
        if writer.returncode != 0:
            raise AssertionError(writer.stdout + writer.stderr)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_a_merged_model_is_the_base_and_its_adapter(self):
        for exports in sorted(Path(self.folder.name).iterdir()):
            with self.subTest(exports.name):
                base = load_file(TINY / exports.name / "model.safetensors")
                merged = load_file(exports / "merged" / "model.safetensors")
                adapter = load_file(exports / "adapter" / "adapter_model.safetensors")
                config = json.loads((exports / "adapter" / "adapter_config.json").read_text())
                scale = config["lora_alpha"] / config["r"]
                self.assertEqual(sorted(merged), sorted(base))
                changed = 0
                for name, weight in base.items():
                    wanted = weight.astype(numpy.float64)
                    module = PREFIX + name.removesuffix(".weight")
                    if module + ".lora_A.weight" in adapter:
                        a = adapter.pop(module + ".lora_A.weight").astype(numpy.float64)
                        b = adapter.pop(module + ".lora_B.weight").astype(numpy.float64)
                        wanted = wanted + scale * (b @ a)
                        changed += 1
                    self.assertEqual(merged[name].dtype, numpy.float32)
                    self.assertLess(numpy.abs(merged[name] - wanted).max(), 1e-6, name)
                self.assertEqual(adapter, {})  # nothing that belongs nowhere
                self.assertGreater(changed, 0)

    def test_an_adapter_has_the_names_that_peft_gives(self):
        for exports in sorted(Path(self.folder.name).iterdir()):
            with self.subTest(exports.name):
                theirs = load_file(TINY / exports.name / "adapter_start/adapter_model.safetensors")
                ours = load_file(exports / "adapter" / "adapter_model.safetensors")
                self.assertEqual({name: tensor.shape for name, tensor in ours.items()},
                                 {name: tensor.shape for name, tensor in theirs.items()})


if __name__ == "__main__":
    unittest.main()

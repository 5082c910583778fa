"""A model folder for flows that need training in milliseconds: the weights of tests/golden/tiny with
a byte-level vocabulary and a ChatML template, which those have not of their own."""
import json
import pathlib
import shutil

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "tiny"

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")


def byte_letters():
    """GPT-2's printable letter for each byte."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in own}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(own))
    return [letters[byte] for byte in range(256)]


def make_tiny_chat_model(folder, name="llama_tied"):
    """Writes the folder and returns its path. Ids: 0-2 are <pad>, <s>, <|im_end|>, then bytes."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    source = GOLDEN / name
    shutil.copy(source / "model.safetensors", folder)
    shutil.copy(source / "config.json", folder)
    specials = ["<pad>", "<s>", "<|im_end|>", "<|im_start|>"]
    vocabulary = {word: index for index, word in enumerate([*specials, *byte_letters()])}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0",
        "added_tokens": [{"id": index, "content": word, "special": True, "lstrip": False,
                          "rstrip": False, "normalized": False, "single_word": False}
                         for index, word in enumerate(specials)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True,
                          "trim_offsets": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True,
                    "trim_offsets": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                  "byte_fallback": False, "vocab": vocabulary, "merges": []}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>",
        "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}))
    return folder

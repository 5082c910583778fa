#!/usr/bin/env python3
"""Makes the vocabulary-only GGUF goldens beside it.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 gguf==0.19.0
    python make.py && python make_gguf.py [SmolLM2-135M-Instruct.Q4_1.gguf]

NAME.gguf has a NAME.gguf.expected.json: a list of {text, ids, decoded}, ids of the text as plain
text with the tokens that the file wants at begin and end. The truth is SentencePiece itself for
sp_bpe and sp_unigram, and the tokenizer.json of the same name for the others. With an argument it
also cuts the vocabulary out of that model.
"""
import io
import json
import pathlib
import sys

import gguf
import sentencepiece
from tokenizers import Tokenizer

from make import CORPUS, charsmap_of, nasty_strings

HERE = pathlib.Path(__file__).parent
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def write(name, model, tokens, types, fields, scores=None, merges=None, pre=None):
    out = gguf.GGUFWriter(HERE / f"{name}.gguf", "llama")
    out.add_tokenizer_model(model)
    if pre:
        out.add_tokenizer_pre(pre)
    out.add_token_list(tokens)
    out.add_token_types(types)
    if scores:
        out.add_token_scores(scores)
    if merges:
        out.add_token_merges(merges)
    for key, value in fields.items():
        key = "tokenizer.ggml." + key
        if isinstance(value, bool):
            out.add_bool(key, value)
        elif isinstance(value, int):
            out.add_uint32(key, value)
        else:
            out.add_array(key, value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()


def save(name, cases):
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    (HERE / f"{name}.gguf.expected.json").write_text(f"[\n{lines}\n]\n")
    print(name, len(cases))


def sentencepiece_gguf(name, kind, model_name, seed, **options):
    blob = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=blob, model_type=kind, hard_vocab_limit=False,
        minloglevel=2, num_threads=1, **options)
    sp = sentencepiece.SentencePieceProcessor(model_proto=blob.getvalue())
    ids = range(sp.get_piece_size())
    types = [UNKNOWN if sp.is_unknown(i) else CONTROL if sp.is_control(i) else BYTE if sp.is_byte(i) else
             NORMAL for i in ids]
    fields = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    if kind == "unigram":
        fields |= {"precompiled_charsmap": charsmap_of(blob.getvalue()), "remove_extra_whitespaces": True,
                   "add_space_prefix": True}
    write(name, model_name, [sp.id_to_piece(i) for i in ids], types, fields, [sp.get_score(i) for i in ids])
    cases = []
    for text in nasty_strings(seed):
        if "\x00" in text or (kind == "unigram" and text.strip(" ") == ""):
            continue  # SentencePiece's own text ends at a zero byte
        pieces = sp.encode(text)
        ended = [1] + pieces if kind == "bpe" else pieces + [2]
        cases.append({"text": text, "ids": ended, "decoded": sp.decode(pieces).replace(" \u2047 ", "")})
    save(name, cases)


def from_json(name, source, seed, model, fields, pre=None):
    described = json.loads((HERE / f"{source}.tokenizer.json").read_text())
    for token in described["added_tokens"]:
        token["single_word"] = False  # GGUF cannot say it
    t = Tokenizer.from_str(json.dumps(described))
    t.encode_special_tokens = True
    tokens = [t.id_to_token(i) for i in range(t.get_vocab_size())]
    added = {a["id"]: a for a in described["added_tokens"]}
    types = [CONTROL if i in added and added[i]["special"] else USER if i in added else NORMAL
             for i in range(len(tokens))]
    merges = None
    if model == "gpt2":
        merges = [" ".join(m) if isinstance(m, list) else m for m in described["model"]["merges"]]
    if model == "bert":
        def marked(token):
            if token.startswith("[") and token.endswith("]"):
                return token
            return token[2:] if token.startswith("##") else "▁" + token
        tokens = [marked(token) for token in tokens]
    write(name, model, tokens, types, fields, merges=merges, pre=pre)
    cases = []
    for text in nasty_strings(seed):
        ids = t.encode(text).ids
        cases.append({"text": text, "ids": ids, "decoded": t.decode(ids)})
    save(name, cases)


def cut(path):
    reader = gguf.GGUFReader(path)
    out = gguf.GGUFWriter(HERE / "smollm2_vocabulary.gguf", "llama")
    for key, field in reader.fields.items():
        if not key.startswith("tokenizer.") or key == "tokenizer.chat_template":
            continue
        value = field.contents()
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            out.add_array(key, value)
        else:
            out.add_key_value(key, value, field.types[0])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()


if __name__ == "__main__":
    sentencepiece_gguf("sp_bpe", "bpe", "llama", 50, vocab_size=900, byte_fallback=True,
                       normalization_rule_name="identity", remove_extra_whitespaces=False)
    sentencepiece_gguf("sp_unigram", "unigram", "t5", 51, vocab_size=560, normalization_rule_name="nmt_nfkc")
    from_json("bert", "bert_uncased", 52, "bert",
              {"bos_token_id": 2, "seperator_token_id": 3, "unknown_token_id": 1, "cls_token_id": 2})
    from_json("gpt2", "gpt2", 53, "gpt2", {"eos_token_id": 700}, pre="gpt-2")
    from_json("llama3", "llama3", 54, "gpt2", {"bos_token_id": 700, "eos_token_id": 701}, pre="llama-bpe")
    from_json("qwen2", "qwen2", 55, "gpt2", {"eos_token_id": 701}, pre="qwen2")
    from_json("gpt4o", "gpt4o", 56, "gpt2", {"eos_token_id": 700}, pre="gpt-4o")
    from_json("deepseek_v3", "deepseek_v3", 57, "gpt2", {"bos_token_id": 700, "add_bos_token": True},
              pre="deepseek-v3")
    if len(sys.argv) > 1:
        cut(sys.argv[1])

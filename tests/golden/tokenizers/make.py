#!/usr/bin/env python3
"""Makes the goldens beside it: small tokenizers of every kind, trained on the text below, and what
Hugging Face's `tokenizers` makes of many nasty strings with them.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3 && python make.py

Each NAME.tokenizer.json has a NAME.expected.json: a list of {text, ids, plain, decoded, kept}.
`ids` reads special tokens in the text and adds those of the post-processor; `plain` takes special
tokens as text and adds none; `decoded` and `kept` are decode(ids) without and with special tokens.
`plain` and `kept` are left out where they are the same as the other. `plain` is null where Hugging
Face lets a text become a control token because the model's vocabulary has its spelling; we never do.
"""
import io
import json
import pathlib
import random

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

HERE = pathlib.Path(__file__).parent
ENGLISH = """
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
foolishness. She didn't know that they'd said "I'll come, we've got 12,345 reasons and 3.14159 more!"
def encode(self, text: str) -> list[int]:\n    return [self.vocab[c] for c in text if c != '\\n']\n
for (int i = 0; i < 1024; ++i) { sum += values[i] * weights[i]; }  // a loop\n\n\tindented by a tab
The quick brown fox jumps over the lazy dog. THE QUICK BROWN FOX. Sphinx of black quartz, judge my vow.
Réunion à Zürich: l'été dernier, naïve façade, déjà vu; año, señor, Straße, Ærøskøbing, žluťoučký kůň.
"""
WORLD = """
Съешь же ещё этих мягких французских булок, да выпей чаю. Привет, мир! Здравствуйте.
你好，世界！今天天气很好。我们去公园玩吧。人工智能正在改变世界。東京都は日本の首都です。こんにちは、カタカナ。
안녕하세요 세계. 한국어 문장입니다. مرحبا بالعالم، كيف حالك؟ שלום עולם. नमस्ते दुनिया। สวัสดีชาวโลก
😀 😂 🚀 👨‍👩‍👧 🇩🇪 👍🏽 e\u0301 a\u0308 ﬁ ① ② ½ Ⅷ ™ … – — “quoted” ‘single’ €100 £5 ¥3
"""
CORPUS = [line for line in (ENGLISH * 6 + WORLD * 4).split("\n") if line]

NASTY = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n \n\t ", "a", " a", "a ", "  a  b  ",
    "Hello", " Hello world", "Hello, world!", "hello   world    again", "don't I'll WE'VE they'D it'S",
    "1234567890", "3.14 1,000 ½ ② Ⅷ ٣٤", "a1b22c333", "snake_case camelCase kebab-case x==y",
    "def f(x):\n    return x**2\n\n\n", "if (a && b) { return; }\r\n\r\n", "trailing   ", "\t\ttabs\t",
    "été naïve Zürich", "e\u0301te\u0301 nai\u0308ve", "ﬁne ﬀ ℌ Å Å ｆｕｌｌ", "İstanbul ıI ẞß ΣΑΣ",
    "你好，世界！", "東京 tower カタカナ", "안녕하세요 세계", "مرحبا بالعالم", "שלום", "नमस्ते", "สวัสดี",
    "😀🚀 👨‍👩‍👧 👍🏽🇩🇪", "\u200b\ufeff\u00a0\u2009\u3000x\u0085y\u180ez", "\x00\x01\x02 \x7f\x9f",
    "\ufffd \ufffe \U0010ffff \ue000", "▁already▁ ▁▁here ▁", "Ġthe Ċ", "<0x41><0x0A>", "##ing ##",
    "<s>hi</s>", "</s>", "text<s>text", " <s> ", "<s><s>", "<|im_start|>user\nhi<|im_end|>\n",
    "<|im_start", "< |im_end| >", "[CLS] a [SEP]", "[MASK] x [MASK]", " [MASK]", "a[MASK]b", "<mask> a <mask>",
    "<unk>", "[UNK]", "USERDEF xUSERDEFx", "USERDEF", "one USERDEF, two", "\n\n\n\n",
    "x" * 60, "ab" * 50, " " * 50, "\n" * 20, "a " * 30, "the" * 20, "0" * 25,
    "https://example.com/a?b=c&d=%20e#f", "100% of $5.00 = €4.60 ± 0.1", "… — ‘q’ “q” it’s",
    "MiXeD CaSe WORDS", "\u0301", "a\u0301\u0323b", "c\u0327\u0301", "가각", "\U0001d54f\U0001d7d8",
    "don 't  n't do not  's", "x . y ? z ! w , v", "word" + "s" * 120,
]


def nasty_strings(seed):
    """The list above, and mixtures of its characters."""
    rng = random.Random(seed)
    letters = sorted(set("".join(NASTY)) | set("".join(CORPUS)))
    common = "    \n\taeiountsrl.,'-0123456789"
    words = "".join(CORPUS).split(" ")
    out = list(NASTY)
    for _ in range(60):
        out.append("".join(rng.choice(letters if rng.random() < 0.4 else common)
                           for _ in range(rng.randint(1, 50))))
    for _ in range(30):
        out.append(rng.choice(["", " ", "\n"]).join(rng.choice(words) for _ in range(rng.randint(1, 12))))
    return out


def save(name, tokenizer, seed, decode=True):
    control = {i: t for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
    cases = []
    for text in nasty_strings(seed):
        tokenizer.encode_special_tokens = False
        ids = tokenizer.encode(text).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(ids)
        kept = tokenizer.decode(ids, skip_special_tokens=False)
        case = {"text": text, "ids": ids}
        if any(i in control and control[i].content in text for i in plain):
            case["plain"] = None
        elif plain != ids:
            case["plain"] = plain
        if decode:
            case["decoded"] = decoded
            if kept != decoded:
                case["kept"] = kept
        cases.append(case)
    tokenizer.encode_special_tokens = False
    described = json.loads(tokenizer.to_str())
    (HERE / f"{name}.tokenizer.json").write_text(json.dumps(described, ensure_ascii=False) + "\n")
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    (HERE / f"{name}.expected.json").write_text(f"[\n{lines}\n]\n")
    print(name, tokenizer.get_vocab_size(), len(cases))


def special(*names, **options):
    return [AddedToken(name, special=True, normalized=False, **options) for name in names]


BYTES = pre_tokenizers.ByteLevel.alphabet()
GPT4_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + GPT4_TAIL
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + GPT4_TAIL


def byte_level(name, seed, pre_tokenizer, size=700, normalizer=None, prefix=None, specials=(), extra=(),
               ignore_merges=False):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizer
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, initial_alphabet=BYTES,
                                                      show_progress=False))
    t.add_special_tokens(special(*specials))
    t.add_tokens(list(extra))
    if prefix:
        t.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{prefix} $A", pair=f"{prefix} $A $B",
                                          special_tokens=[(prefix, t.token_to_id(prefix))])])
    else:
        t.post_processor = processors.ByteLevel(trim_offsets=False)
    save(name, t, seed)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def bytes_after(*steps):
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    byte_level("gpt2", 1, pre_tokenizers.ByteLevel(add_prefix_space=False), specials=["<|endoftext|>"],
               extra=[AddedToken("USERDEF", single_word=True), AddedToken("\n\n\n", normalized=False)])
    byte_level("gpt2_prefix_space", 2, pre_tokenizers.ByteLevel(add_prefix_space=True),
               specials=["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    byte_level("smollm", 3, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False)]),
               specials=["<|im_start|>", "<|im_end|>"])


def gpt4_like():
    byte_level("llama3", 4, bytes_after(split(LLAMA3)), specials=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
               prefix="<s>", ignore_merges=True)
    byte_level("qwen2", 5, bytes_after(split(QWEN2)), normalizer=normalizers.NFC(),
               specials=["<|im_start|>", "<|im_end|>"])
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    tail = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    byte_level("gpt4o", 6, bytes_after(split(
        rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{tail}|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{tail}|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")), specials=["<|im_end|>"])
    byte_level("deepseek_v3", 7, bytes_after(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
        r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")), prefix="<s>", specials=["<s>"])
    byte_level("deepseek_llm", 8, bytes_after(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
                                              split(r"\s+$"), split("[一-龥ࠀ-一가-퟿]+"),
                                              pre_tokenizers.Digits(individual_digits=True)))
    byte_level("han_intersection", 9, bytes_after(split(
        r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Ll}\p{M}&&[^\p{Han}]]+|[\w&&[^a-z]]|\S|\s+")))
    byte_level("posix_classes", 30, bytes_after(split(
        r"[[:alpha:]]+|[[:punct:]_x]+|[[:^alnum:]]|[[:upper:]-]")))


def sentencepiece_bpe(name, seed, normalizer, pre_tokenizer, decoder, prefix="<s>", normalized=False,
                      fuse_unk=True, byte_fallback=True):
    t = Tokenizer(models.BPE(byte_fallback=byte_fallback, fuse_unk=fuse_unk, unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)] if byte_fallback else []
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    t.train_from_iterator([line for line in CORPUS if line.isascii()],
                          trainers.BpeTrainer(vocab_size=620, show_progress=False,
                                              special_tokens=["<unk>", "<s>", "</s>", *byte_tokens]))
    described = json.loads(t.to_str())
    described["added_tokens"] = [
        {"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": normalized, "special": True} for i, c in enumerate(["<unk>", "<s>", "</s>"])]
    described["pre_tokenizer"] = None
    described["normalizer"] = None
    t = Tokenizer.from_str(json.dumps(described))
    if normalizer:
        t.normalizer = normalizer
    if pre_tokenizer:
        t.pre_tokenizer = pre_tokenizer
    t.decoder = decoder
    # Since 0.21 the library decodes a normalized token as its normalized spelling, and then does not
    # know it as special: no goldens of that.
    prepends = normalizer is not None and "Prepend" in repr(normalizer)
    t.add_tokens([AddedToken("USERDEF", normalized=False), AddedToken("▁▁▁", normalized=not prepends)])
    if prefix:
        t.post_processor = processors.TemplateProcessing(single=f"{prefix} $A", pair=f"{prefix} $A $B",
                                                         special_tokens=[(prefix, t.token_to_id(prefix))])
    save(name, t, seed, decode=not normalized)


def llama2_and_gemma():
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    stripped = decoders.Sequence([*spaces, decoders.Strip(" ", 1, 0)])
    legacy = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    sentencepiece_bpe("llama2", 10, legacy, None, stripped)
    sentencepiece_bpe("llama2_normalized_special", 11, legacy, None, stripped, normalized=True)
    sentencepiece_bpe("llama2_first", 12, None, pre_tokenizers.Metaspace("▁", "first", split=False), stripped)
    sentencepiece_bpe("gemma", 13, normalizers.Replace(" ", "▁"),
                      pre_tokenizers.Split(" ", "merged_with_previous"), decoders.Sequence(spaces))
    sentencepiece_bpe("no_bytes", 14, normalizers.Replace(" ", "▁"), None, decoders.Fuse(), prefix=None,
                      fuse_unk=False, byte_fallback=False)


def unigram(name, seed, normalizer, scheme, byte_fallback=False, ending=True):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=800 if byte_fallback else 560,
        model_type="unigram", byte_fallback=byte_fallback, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="nmt_nfkc", bos_id=-1, pad_id=0, eos_id=1, unk_id=2, num_threads=1)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocab = [(sp.id_to_piece(i), sp.get_score(i)) for i in range(sp.get_piece_size())]
    t = Tokenizer(models.Unigram(vocab, 2, byte_fallback))
    if normalizer == "charsmap":
        t.normalizer = normalizers.Sequence([
            normalizers.Precompiled(charsmap_of(model.getvalue())),
            normalizers.Replace(Regex(" {2,}"), " ")])
    else:
        t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme)
    t.decoder = (decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", scheme)])
                 if byte_fallback else decoders.Metaspace("▁", scheme))
    t.add_special_tokens(special("<pad>", "</s>", "<unk>") + [AddedToken("<mask>", lstrip=True, special=True)])
    if ending:
        t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>",
                                                         special_tokens=[("</s>", 1)])
    save(name, t, seed)


def charsmap_of(model):
    """Field 3 (normalizer_spec), field 2 (precompiled_charsmap) of a SentencePiece model."""
    def fields(data):
        at = 0
        def varint():
            nonlocal at
            value = shift = 0
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return value
        while at < len(data):
            key = varint()
            if key & 7 == 0:
                varint()
            elif key & 7 == 5:
                at += 4
            else:
                size = varint()
                yield key >> 3, data[at:at + size]
                at += size
    spec = next(value for number, value in fields(model) if number == 3)
    return next(value for number, value in fields(spec) if number == 2)


def t5_like():
    unigram("t5", 20, "charsmap", "always")
    unigram("unigram_nmt_bytes", 21, normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(),
                                                           normalizers.Strip(), normalizers.Replace(Regex(r"\s+"), " ")]),
            "first", byte_fallback=True, ending=False)


def wordpiece(name, seed, normalizer, pre_tokenizer, bert_processing):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizer
    t.pre_tokenizer = pre_tokenizer
    t.decoder = decoders.WordPiece("##", cleanup=bert_processing)
    t.train_from_iterator([line for line in CORPUS if line.isascii()], trainers.WordPieceTrainer(
        vocab_size=400, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"]))
    t.add_special_tokens([AddedToken("[MASK]", lstrip=True, rstrip=True, special=True, normalized=False)])
    if bert_processing:
        t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    else:
        t.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    save(name, t, seed)


def bert_like():
    wordpiece("bert_uncased", 30, normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), True)
    wordpiece("bert_cased", 31, normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer(), True)
    wordpiece("wordpiece_words", 32, normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(),
                                                           normalizers.Lowercase()]),
              pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits()]), False)


def the_rest():
    t = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    t.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.Strip(left=True, right=False)])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_next"),
        pre_tokenizers.CharDelimiterSplit("e"), pre_tokenizers.Split(Regex("[aou]+"), "contiguous", invert=True)])
    t.train_from_iterator(CORPUS, trainers.WordLevelTrainer(vocab_size=300, show_progress=False,
                                                            special_tokens=["[UNK]"]))
    save("word_level", t, 40)

    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=False))
    t.normalizer = normalizers.Lowercase()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(),
                                               pre_tokenizers.Split(Regex("[0-9]"), "removed")])
    t.decoder = decoders.BPEDecoder("</w>")
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, show_progress=False,
                                                      special_tokens=["<unk>"], end_of_word_suffix="</w>"))
    save("word_ends", t, 41)

    t = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="@@", fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("[A-Z]"), "merged_with_previous"),
                                               pre_tokenizers.Split("o", "merged_with_next"),
                                               pre_tokenizers.Whitespace()])
    t.decoder = decoders.Sequence([decoders.Replace(Regex("@@"), ""), decoders.Strip("e", 1, 0)])
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, show_progress=False,
                                                      special_tokens=["<unk>"],
                                                      continuing_subword_prefix="@@"))
    save("continuing_prefix", t, 42)


if __name__ == "__main__":
    gpt2()
    gpt4_like()
    llama2_and_gemma()
    t5_like()
    bert_like()
    the_rest()

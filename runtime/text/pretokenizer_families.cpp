#include "runtime/text/pretokenizer_families.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <span>

namespace tandem::text {
namespace {

using std::string_view;

// GPT-4's way and its relatives differ in how many digits stand together and in what may follow
// punctuation.
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORDS R"([^\r\n\p{L}\p{N}]?\p{L}+)"
#define SYMBOLS_AND_SPACES R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define CASED_TAIL R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define CASED_WORDS(ending)                                                                   \
  R"([^\r\n\p{L}\p{N}]?)" UPPER "*" LOWER "+" ending R"(|[^\r\n\p{L}\p{N}]?)" UPPER "+" LOWER \
  "*" ending "|"
#define DEEPSEEK_WORDS                                                                       \
  R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)" \
  R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"

constexpr string_view gpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr string_view digit = R"(\p{N})";
constexpr string_view three_digits = "[0-9][0-9][0-9]";
constexpr string_view line_end = R"([\r\n])";
constexpr string_view ideographs_and_hangul = "[一-龥ࠀ-一가-퟿]+";

constexpr string_view gpt2_steps[] = {gpt2};
constexpr string_view digits_gpt2_steps[] = {digit, gpt2};
constexpr string_view llama3_steps[] = {CONTRACTIONS "|" WORDS
                                                     R"(|\p{N}{1,3}|)" SYMBOLS_AND_SPACES};
constexpr string_view qwen2_steps[] = {CONTRACTIONS "|" WORDS R"(|\p{N}|)" SYMBOLS_AND_SPACES};
constexpr string_view qwen35_steps[] = {
    CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)"
                 R"(\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr string_view deepseek_llm_steps[] = {
    line_end,
    R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅ)"
    R"(ὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿ)"
    R"(ﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)",
    "\\s?[!-/:-~！-／：-～‘-‟　-。]+",
    R"(\s+$)",
    ideographs_and_hangul,
    R"(\p{N}+)"};
constexpr string_view deepseek_coder_steps[] = {line_end, R"(\s?\p{L}+)", R"(\s?\p{P}+)",
                                                ideographs_and_hangul, digit};
constexpr string_view deepseek_v3_steps[] = {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
                                             DEEPSEEK_WORDS};
constexpr string_view falcon_steps[] = {R"([\p{P}\$\+<=>\^~\|`]+)", gpt2, three_digits};
constexpr string_view default_steps[] = {R"([\p{P}\$\+<=>\^~\|]+)", gpt2, R"(\p{N}+)",
                                         three_digits};
constexpr string_view bloom_steps[] = {R"( ?[^(\s|.,!?…。，、।۔،)]+)"};
constexpr string_view viking_steps[] = {R"( ?[^(\s|.,!?…。，、।۔،)]+)", digit};
constexpr string_view tekken_steps[] = {CASED_WORDS("") R"(\p{N}|)" CASED_TAIL};
constexpr string_view gpt4o_steps[] = {CASED_WORDS(CONTRACTIONS "?") R"(\p{N}{1,3}|)" CASED_TAIL};
constexpr string_view tiny_aya_steps[] = {
    R"(\d{1,3}(?=(?:\d{3})*\b))", CASED_WORDS(CONTRACTIONS "?") R"(\p{N}{1,3}|)" CASED_TAIL};
constexpr string_view bailing_steps[] = {
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|)"
    R"(\s*[\r\n]|\s+(?!\S)|\s+)"};
constexpr string_view seed_steps[] = {
    CONTRACTIONS "|" WORDS R"(|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr string_view minicpm_steps[] = {R"(\p{N}{1,3})",
                                         CONTRACTIONS "|" WORDS R"(|\p{N}+|)" SYMBOLS_AND_SPACES};
constexpr string_view exaone_moe_steps[] = {
    CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|)"
                 R"( ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)"};
constexpr string_view lines_steps[] = {R"([^\n]+|[\n]+)"};

#undef CONTRACTIONS
#undef WORDS
#undef SYMBOLS_AND_SPACES
#undef UPPER
#undef LOWER
#undef CASED_TAIL
#undef CASED_WORDS
#undef DEEPSEEK_WORDS

struct family {
  string_view names;  // one space around each
  std::span<const string_view> steps;
  bool ignore_merges = false;
  bool add_bos = false;
  bool compose = false;
  bool reads_bytes = true;
};

constexpr family families[] = {
    {" gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe "
     "gigachat "
     "a.x-4.0 mellum modern-bert jais trillion granite-docling exaone4 ",
     gpt2_steps},
    {" mpt olmo ", gpt2_steps, false, false, true},
    {" smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ", digits_gpt2_steps},
    {" llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano ",
     llama3_steps, true, true},
    {" dbrx smaug-bpe chatglm-bpe glm4 ", llama3_steps},
    {" qwen2 deepseek-r1-qwen megrez kormo f2llmv2 ", qwen2_steps, false, false, true},
    {" stablelm2 hunyuan grok-2 solar-open ", qwen2_steps},
    {" qwen35 ", qwen35_steps, false, false, true},
    {" deepseek-llm ", deepseek_llm_steps},
    {" deepseek-coder ", deepseek_coder_steps},
    {" deepseek-v3 hunyuan-dense joyai-llm ", deepseek_v3_steps},
    {" falcon ", falcon_steps},
    {" default ", default_steps},
    {" poro-chat bloom gpt3-finnish ", bloom_steps},
    {" viking ", viking_steps},
    {" tekken ", tekken_steps, true, true},
    {" gpt-4o llama4 kanana2 talkie minimax-m2 ", gpt4o_steps},
    {" tiny_aya cohere2moe ", tiny_aya_steps},
    {" bailingmoe bailingmoe2 llada-moe ", bailing_steps},
    {" seed-coder ", seed_steps},
    {" minicpm5 ", minicpm_steps, true},
    {" exaone-moe ", exaone_moe_steps},
    {" gemma4 sarvam-moe ", lines_steps, false, false, false, false},
};

}  // namespace

result<splitting> splitting_by_name(string_view name) {
  const std::string wanted = fmt::format(" {} ", name);
  const auto found = std::find_if(std::begin(families), std::end(families), [&](const family& f) {
    return f.names.find(wanted) != string_view::npos;
  });
  if (found == std::end(families) || name.find(' ') != string_view::npos) {
    return error{
        errc::unsupported,
        fmt::format("unknown splitting '{}' (tokenizer.ggml.pre): its pattern is not built in; "
                    "load the model's tokenizer.json instead",
                    name),
        {}};
  }
  splitting out;
  out.ignore_merges = found->ignore_merges;
  out.add_bos = found->add_bos;
  out.compose = found->compose;
  out.reads_bytes = found->reads_bytes;
  for (const string_view source : found->steps) {
    result<regex> pattern = regex::compile(source);
    ensure(pattern.has_value(), "a built-in splitting pattern does not compile");
    out.steps.add(regex_split{std::move(*pattern), split_behavior::isolated, false});
    out.patterns.emplace_back(source);
  }
  return out;
}

string_view splitting_name(const std::vector<std::string>& patterns, bool ignore_merges,
                           bool compose) {
  for (const family& f : families) {
    if (!f.reads_bytes || f.ignore_merges != ignore_merges || f.compose != compose) continue;
    if (!std::equal(f.steps.begin(), f.steps.end(), patterns.begin(), patterns.end())) continue;
    return f.names.substr(1, f.names.find(' ', 1) - 1);
  }
  return {};
}

}  // namespace tandem::text

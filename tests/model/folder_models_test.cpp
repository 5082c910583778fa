// Hugging Face folders: shards, the small files beside the weights, and what must be refused.
#include "runtime/model/weights.hpp"
#include "tests/support/golden.hpp"
#include "tests/support/model_runner.hpp"
#include "tests/support/safetensors_text.hpp"
#include "tests/support/temporary_folder.hpp"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <map>
#include <string>

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;
using model::load_format;
using model::model_source;

namespace {

using tensor = tensor_text;

tensor_texts tensors_of(const std::string& family) {
  return tensor_texts_of(golden("tiny/" + family + "/model.safetensors"));
}

// float32 cut to its upper half: bfloat16, rounded towards zero.
tensor as_bf16(const tensor& t) {
  tensor half{"BF16", t.shape, {}};
  for (std::size_t at = 0; at < t.bytes.size(); at += 4) half.bytes += t.bytes.substr(at + 2, 2);
  return half;
}

void copy_config(const temporary_folder& folder, const std::string& family) {
  folder.copy(golden("tiny/" + family + "/config.json"), "config.json");
}

std::string load_refusal(const temporary_folder& folder, load_format format = load_format::native) {
  const auto source = model_source::open(folder.path());
  if (!source) return source.error().detail;
  const auto device = kernels::cpu::make_backend({});
  device->attach_calling_thread();
  memory::ledger book(1 << 30);
  const auto loaded = (*source)->load(*device, book, format);
  REQUIRE_FALSE(loaded);
  CHECK(book.used() == 0);
  return loaded.error().detail;
}

const std::vector<std::int32_t> prompt{1, 17, 300, 42, 5, 5, 118, 269};

}  // namespace

TEST_CASE("a model in shards computes what it computes in one file") {
  const temporary_folder folder;
  copy_config(folder, "qwen2_bias");
  tensor_texts shards[2];
  std::string map;
  int at = 0;
  for (const auto& [name, t] : tensors_of("qwen2_bias")) {
    shards[at % 2][name] = t;
    map += fmt::format(R"({}"{}":"part-{}.safetensors")", map.empty() ? "" : ",", name, at % 2);
    ++at;
  }
  for (int s = 0; s < 2; ++s)
    folder.write(fmt::format("part-{}.safetensors", s), safetensors(shards[s]));
  folder.write("model.safetensors.index.json", R"({"weight_map":{)" + map + "}}");
  model_runner sharded(folder.path());
  model_runner whole(golden("tiny/qwen2_bias"));
  CHECK(sharded.read(prompt) == whole.read(prompt));
}

TEST_CASE("a file in bfloat16 keeps its precision natively, and mixes with float32") {
  const temporary_folder folder;
  copy_config(folder, "llama31_rope_untied");
  auto tensors = tensors_of("llama31_rope_untied");
  for (auto& [name, t] : tensors)
    if (name.find("v_proj") == std::string::npos) t = as_bf16(t);
  folder.write("model.safetensors", safetensors(tensors));
  model_runner native(folder.path(), {.format = load_format::native});
  model_runner widened(folder.path(), {.format = load_format::f32});
  CHECK(native.model().precision == "bf16");
  CHECK(native.model().layers[0].qkv_XD.format == kernels::weight_format::f32);
  CHECK(native.model().layers[0].output_DX.format == kernels::weight_format::bf16);
  const auto wanted = widened.read(prompt).back();
  CHECK(largest_difference(native.read(prompt).back(), wanted) < 1e-5);
}

TEST_CASE("Gemma's text model is found inside a checkpoint with pictures") {
  const std::string prefix = GENERATE("language_model.model.", "model.language_model.");
  const temporary_folder folder;
  copy_config(folder, "gemma3_local_global");
  tensor_texts tensors;
  for (const auto& [name, t] : tensors_of("gemma3_local_global"))
    tensors[prefix + name.substr(std::string("model.").size())] = t;
  const tensor one{"F32", {1}, std::string(4, '\0')};
  tensors["vision_tower.vision_model.post_layernorm.weight"] = one;
  tensors["multi_modal_projector.mm_soft_emb_norm.weight"] = one;
  folder.write("model.safetensors", safetensors(tensors));
  model_runner inside(folder.path());
  model_runner alone(golden("tiny/gemma3_local_global"));
  CHECK(inside.read(prompt) == alone.read(prompt));
}

TEST_CASE("Mistral's text model is found inside a Mistral 3 with pictures") {
  const bool older = GENERATE(true, false);
  const temporary_folder folder;
  std::ifstream file(golden("tiny/mistral_window/config.json"));
  const std::string inner{std::istreambuf_iterator<char>(file), {}};
  folder.write("config.json",
               R"({"model_type":"mistral3","vision_config":{},"text_config":)" + inner + "}");
  std::map<std::string, tensor> tensors;
  for (const auto& [name, t] : tensors_of("mistral_window")) {
    const bool head = name == "lm_head.weight";
    if (older)
      tensors["language_model." + name] = t;
    else
      tensors[head ? name : "model.language_model." + name.substr(6)] = t;
  }
  tensors["vision_tower.ln_pre.weight"] = {"F32", {1}, std::string(4, '\0')};
  folder.write("model.safetensors", safetensors(tensors));
  model_runner inside(folder.path());
  model_runner alone(golden("tiny/mistral_window"));
  CHECK(inside.read(prompt) == alone.read(prompt));
}

TEST_CASE("an output head that repeats the embedding is not read twice") {
  const temporary_folder folder;
  copy_config(folder, "llama_tied");
  auto tensors = tensors_of("llama_tied");
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"];
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {"F32", {8}, std::string(32, '\0')};
  folder.write("model.safetensors", safetensors(tensors));
  model_runner runner(folder.path());
  CHECK(runner.model().head_VD.data == runner.model().embedding_VD.data);
  CHECK(runner.model().memory.used() <= runner.model().memory.bytes().size());
}

TEST_CASE("tensors that are missing, unknown or of another shape are refused by name") {
  const temporary_folder folder;
  copy_config(folder, "qwen3_qknorm");
  auto tensors = tensors_of("qwen3_qknorm");
  SECTION("missing") {
    tensors.erase("model.layers.2.self_attn.k_norm.weight");
    folder.write("model.safetensors", safetensors(tensors));
    CHECK_THAT(load_refusal(folder),
               Contains("'model.layers.2.self_attn.k_norm.weight' [32] is missing"));
  }
  SECTION("unknown") {
    tensors["model.layers.1.self_attn.q_proj.bias"] = {"F32", {128}, std::string(512, '\0')};
    folder.write("model.safetensors", safetensors(tensors));
    CHECK_THAT(load_refusal(folder),
               Contains("'model.layers.1.self_attn.q_proj.bias' [128] is not known"));
  }
  SECTION("a layer more than the config has") {
    tensors["model.layers.3.input_layernorm.weight"] = tensors["model.norm.weight"];
    folder.write("model.safetensors", safetensors(tensors));
    CHECK_THAT(load_refusal(folder), Contains("'model.layers.3.input_layernorm.weight'"));
  }
  SECTION("another shape") {
    tensors["model.layers.0.mlp.up_proj.weight"].shape = {64, 96};
    folder.write("model.safetensors", safetensors(tensors));
    CHECK_THAT(load_refusal(folder), Contains("'model.layers.0.mlp.up_proj.weight'") &&
                                         Contains("[64, 96]") && Contains("[96, 64]"));
  }
}

TEST_CASE("a load that does not fit the device's memory is refused with the numbers") {
  const auto source = model_source::open(golden("tiny/llama_tied"));
  REQUIRE(source);
  const auto device = kernels::cpu::make_backend({});
  device->attach_calling_thread();
  const auto forecast = (*source)->forecast(*device, load_format::native);
  REQUIRE(forecast);
  memory::ledger small(forecast->bytes - 1);
  const auto refused = (*source)->load(*device, small, load_format::native);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == errc::no_memory);
  CHECK_THAT(refused.error().detail, Contains("llama_tied"));
  CHECK(small.used() == 0);

  memory::ledger enough(forecast->bytes);
  std::vector<double> progress;
  const auto loaded = (*source)->load(*device, enough, load_format::native,
                                      [&](double done) { progress.push_back(done); });
  REQUIRE(loaded);
  CHECK((*loaded)->precision == forecast->precision);
  CHECK(enough.used() == forecast->bytes);
  CHECK(std::is_sorted(progress.begin(), progress.end()));
  CHECK(progress.back() == 1.0);
}

TEST_CASE("smaller formats take less memory, and every parameter is counted once") {
  const auto source = model_source::open(golden("tiny/llama_tied"));
  REQUIRE(source);
  const auto device = kernels::cpu::make_backend({});
  std::uint64_t before = ~std::uint64_t{0};
  for (const auto format : {load_format::f32, load_format::bf16, load_format::fp8,
                            load_format::q8_0, load_format::q4_1}) {
    const auto forecast = (*source)->forecast(*device, format);
    REQUIRE(forecast);
    CHECK(forecast->bytes < before);
    before = forecast->bytes;
  }
  model_runner runner(golden("tiny/llama_tied"));
  std::uint64_t parameters = 0;
  for (const auto& [name, t] : tensors_of("llama_tied")) parameters += t.bytes.size() / 4;
  CHECK(runner.model().parameter_count == parameters);
}

TEST_CASE("a long rope turns by its short factors up to the original context, by its long beyond") {
  const auto phi3_with = [](const temporary_folder& folder, const std::string& scaling) {
    folder.copy(golden("tiny/phi3_fused/model.safetensors"), "model.safetensors");
    folder.write("config.json", R"({"model_type": "phi3", "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-05, "tie_word_embeddings": false, "rope_scaling": )" +
                                    scaling + "}");
  };
  const temporary_folder longrope;
  phi3_with(longrope, R"({"type": "longrope", "original_max_position_embeddings": 64,
      "attention_factor": 1.0, "short_factor": [1, 1, 1, 1, 1, 1, 1, 1],
      "long_factor": [4, 4, 4, 4, 4, 4, 4, 4]})");
  const temporary_folder stretched;
  phi3_with(stretched, R"({"type": "linear", "factor": 4.0})");

  model_runner within(longrope.path(), {.context = 64});
  model_runner beyond(longrope.path(), {.context = 65});
  model_runner plain(golden("tiny/phi3_fused"));
  model_runner linear(stretched.path());
  const auto unscaled = plain.read(prompt);
  CHECK(within.read(prompt) == unscaled);
  CHECK(beyond.read(prompt) == linear.read(prompt));
  CHECK(unscaled != linear.read(prompt, 1));
}

TEST_CASE("a config without weights serves dummies only, and says so") {
  const temporary_folder folder;
  copy_config(folder, "qwen3_moe");
  CHECK_THAT(load_refusal(folder), Contains("no model.safetensors") && Contains("dummy"));
  model_runner dummy(folder.path(), {.format = load_format::dummy});
  CHECK(dummy.model().format == load_format::dummy);
  CHECK(dummy.read(prompt).size() == prompt.size());
}

TEST_CASE("the chat template is found wherever a model ships it") {
  const temporary_folder folder;
  copy_config(folder, "llama_tied");
  const auto found = [&] {
    const auto source = model_source::open(folder.path());
    REQUIRE(source);
    return (*source)->chat_template();
  };
  CHECK_FALSE(found());
  folder.write("chat_template.json", R"({"chat_template": "from the processor"})");
  CHECK(found() == "from the processor");
  folder.write("tokenizer_config.json", R"({"chat_template": [
      {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]})");
  CHECK(found() == "plain");
  folder.write("tokenizer_config.json", R"({"model_max_length": 1000000000000000019884624838656,
      "chat_template": "one \"text\""})");
  CHECK(found() == "one \"text\"");
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": 3}]})");
  CHECK(found() == "from the processor");
  folder.write("chat_template.jinja", "a file of its own");
  CHECK(found() == "a file of its own");
}

TEST_CASE("a folder's small files are read: sampling defaults, ends, tokenizer, name") {
  const temporary_folder folder;
  copy_config(folder, "llama_tied");
  folder.write("generation_config.json", R"({"eos_token_id": [2, 7], "temperature": 0.2})");
  auto source = model_source::open(folder.path() / "");
  REQUIRE(source);
  CHECK((*source)->config().eos_ids == std::vector<std::int32_t>{2, 7});
  CHECK((*source)->defaults().temperature == 0.2F);
  CHECK((*source)->name() == folder.path().filename().string());
  CHECK_FALSE((*source)->tokenizer_path());
  folder.write("tokenizer.json", "{}");
  CHECK((*source)->tokenizer_path() == folder.path() / "");

  folder.write("generation_config.json", "{");
  CHECK_FALSE(model_source::open(folder.path()));
}

TEST_CASE("a path that is no model says what is there instead") {
  const temporary_folder folder;
  const auto refusal = [](const std::filesystem::path& path) {
    const auto source = model_source::open(path);
    REQUIRE_FALSE(source);
    return source.error();
  };
  CHECK(refusal(folder.path() / "nothing").code == errc::not_found);
  CHECK_THAT(refusal(folder.path()).detail, Contains("0 .gguf files"));
  folder.write("a.gguf", "");
  folder.write("b.gguf", "");
  CHECK_THAT(refusal(folder.path()).detail, Contains("2 .gguf files"));
  CHECK_THAT(refusal(folder.path() / "a.gguf").detail, Contains("a.gguf"));
  folder.write("config.json", "not JSON");
  CHECK_THAT(refusal(folder.path()).detail, Contains("config.json"));
}

TEST_CASE("load formats have names, and only those") {
  for (const auto format :
       {load_format::native, load_format::f32, load_format::bf16, load_format::fp8,
        load_format::q8_0, load_format::q4_1, load_format::dummy})
    CHECK(model::load_format_from(name_of(format)) == format);
  CHECK_FALSE(model::load_format_from("int3"));
  CHECK_FALSE(model::load_format_from(""));
}

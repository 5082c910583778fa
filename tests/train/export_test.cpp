// What is exported is what was trained: read back by our own loader, tensor by tensor and as
// logits.
#include "runtime/train/export.hpp"

#include "runtime/formats/safetensors.hpp"
#include "runtime/text/value.hpp"
#include "tests/support/model_runner.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/train/export_world.hpp"

#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <array>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>

namespace tandem::train {
namespace {

namespace fs = std::filesystem;
using test::export_world;

constexpr std::array families{"llama_tied",         "llama31_rope_untied", "mistral_window",
                              "qwen2_bias",         "qwen3_qknorm",        "gemma3_local_global",
                              "phi3_fused",         "qwen3_moe",           "mixtral_window",
                              "smollm3_skips_rope", "granite_multipliers", "gemma_first",
                              "seed_oss_bias"};
const std::vector<std::int32_t> prompt{1, 17, 300, 42, 5, 5, 118, 269, 33, 2, 250, 61,
                                       9, 13, 77,  20, 1, 8, 199, 201, 64, 3, 310, 12};

test::logits_rows read_prompt(const fs::path& path) {
  test::model_runner runner(path);
  auto ids = prompt;
  for (auto& id : ids) id %= static_cast<std::int32_t>(runner.model().config.vocabulary_size);
  return runner.read(ids);
}

fs::path tiny(const std::string& family) { return test::golden("tiny/" + family); }

exported good(const result<exported>& done) {
  if (!done) FAIL(done.error().detail);
  return *done;
}

export_options as(export_form form, kernels::source_format format = kernels::source_format::f32) {
  return {form, format, {}};
}

// The trained model's logits, computed from its parameters as the trainer holds them.
test::logits_rows trained_logits(export_world& world, const fs::path& checkpoint) {
  const auto weights = trained_weights::read(*world.device, *world.source, checkpoint,
                                             read_checkpoint_facts(checkpoint).value());
  REQUIRE(weights);
  // Into a folder of plain float32 files, by the test's own hand.
  test::temporary_folder folder;
  fs::copy(world.base / "config.json", folder.path() / "config.json");
  std::string header = "{";
  std::string data;
  for (const auto& tensor : (*weights)->tensors()) {
    const std::size_t begin = data.size();
    std::vector<float> row(static_cast<std::size_t>(tensor.columns));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      (*weights)->row(tensor, r, row.data());
      for (float& number : row) number = number / tensor.factor - tensor.added;
      data.append(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
    }
    header += fmt::format(R"({}"{}":{{"dtype":"F32","shape":[{}],"data_offsets":[{},{}]}})",
                          header.size() > 1 ? "," : "", tensor.name, fmt::join(tensor.shape, ","),
                          begin, data.size());
  }
  header += "}";
  const std::uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  folder.write("model.safetensors", file + header + data);
  return read_prompt(folder.path());
}

double worst(const test::logits_rows& one, const test::logits_rows& other) {
  REQUIRE(one.size() == other.size());
  double largest = 0.0;
  for (std::size_t r = 0; r < one.size(); ++r)
    largest = std::max(largest, test::largest_difference(one[r], other[r]));
  return largest;
}

TEST_CASE("a full training's folder gives the same logits to the bit, for every family") {
  for (const std::string family : families) {
    INFO(family);
    test::temporary_folder home;
    export_world world(tiny(family));
    const auto checkpoint = world.write_full(home.path() / "checkpoints");
    const auto wanted = trained_logits(world, checkpoint);
    const auto done = good(export_checkpoint(*world.device, checkpoint, world.base,
                                             home.path() / "out", as(export_form::merged)));
    CHECK(done.files == std::vector<std::string>{"config.json", "model.safetensors"});
    const auto found = read_prompt(done.path);
    CHECK(found == wanted);
    const auto base = read_prompt(world.base);
    CHECK(worst(found, base) > 1e-3);  // it was trained
  }
}

TEST_CASE("a merged adapter is W + scale B A, for every family") {
  for (const std::string family : families) {
    INFO(family);
    test::temporary_folder home;
    export_world world(tiny(family));
    const auto checkpoint = world.write_lora(home.path() / "checkpoints");
    const auto done = good(export_checkpoint(*world.device, checkpoint, world.base,
                                             home.path() / "out", as(export_form::merged)));
    const auto before = formats::safetensors_file::open(world.base / "model.safetensors");
    const auto after = formats::safetensors_file::open(done.path / "model.safetensors");
    REQUIRE(before);
    REQUIRE(after);
    std::map<std::string, const formats::safetensor*> merged;
    for (const auto& tensor : after->tensors()) merged[tensor.name] = &tensor;
    const auto layout =
        model::adapter_layout::make(*world.device, world.source->config(), 4, 8.0,
                                    world.facts(training_method::lora).settings.targets);
    REQUIRE(layout);
    std::map<std::string, model::module_numbers> added;
    for (const auto& module : layout->modules)
      added[module.name + ".weight"] = world.numbers(module);
    double largest = 0.0;
    for (const auto& tensor : before->tensors()) {
      REQUIRE(merged.contains(tensor.name));
      REQUIRE(merged[tensor.name]->shape == tensor.shape);
      const auto* const w = reinterpret_cast<const float*>(tensor.bytes.data());
      const auto* const found = reinterpret_cast<const float*>(merged[tensor.name]->bytes.data());
      const auto delta = added.find(tensor.name);
      const std::size_t columns = static_cast<std::size_t>(tensor.shape.back());
      for (std::size_t i = 0; i < tensor.bytes.size() / sizeof(float); ++i) {
        double wanted = w[i];
        if (delta != added.end())
          for (std::size_t r = 0; r < 4; ++r)
            wanted += 2.0 * delta->second.b[i / columns * 4 + r] *
                      delta->second.a[r * columns + i % columns];
        largest = std::max(largest, std::fabs(found[i] - wanted));
      }
    }
    CHECK(largest < 1e-6);
    CHECK(read_prompt(done.path) == trained_logits(world, checkpoint));
  }
}

TEST_CASE("an adapter has peft's files, names, shapes and numbers") {
  for (const std::string family : {"llama_tied", "phi3_fused", "qwen3_moe"}) {
    INFO(family);
    test::temporary_folder home;
    export_world world(tiny(family));
    const auto checkpoint = world.write_lora(home.path() / "checkpoints");
    const auto done = good(export_checkpoint(*world.device, checkpoint, world.base,
                                             home.path() / "out", as(export_form::adapter)));
    CHECK(done.files ==
          std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"});
    std::ifstream file(done.path / "adapter_config.json");
    const auto config = text::value::from_json(
        std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()));
    REQUIRE(config);
    CHECK(*config->find("peft_type") == text::value("LORA"));
    CHECK(*config->find("task_type") == text::value("CAUSAL_LM"));
    CHECK(*config->find("r") == text::value(4));
    CHECK(*config->find("lora_alpha") == text::value(8.0));
    CHECK(*config->find("base_model_name_or_path") == text::value(world.base.string()));

    // The same names and shapes as peft's own file for this model.
    const auto theirs =
        formats::safetensors_file::open(world.base / "adapter_start/adapter_model.safetensors");
    const auto ours = formats::safetensors_file::open(done.path / "adapter_model.safetensors");
    REQUIRE(theirs);
    REQUIRE(ours);
    std::map<std::string, std::vector<std::int64_t>> wanted;
    std::map<std::string, std::vector<std::int64_t>> found;
    for (const auto& tensor : theirs->tensors()) wanted[tensor.name] = tensor.shape;
    for (const auto& tensor : ours->tensors()) found[tensor.name] = tensor.shape;
    CHECK(found == wanted);
    model::adapter_module first{.name = {}, .rows = 64, .rank = 4, .columns = 64};
    const auto& a = ours->tensors().front();
    const auto numbers = world.numbers(first);
    CHECK(std::memcmp(a.bytes.data(), numbers.a.data(), a.bytes.size()) == 0);
  }
}

TEST_CASE("a GGUF file made from a folder gives the logits of what was trained, for every family") {
  for (const std::string family : families) {
    INFO(family);
    test::temporary_folder home;
    export_world world(tiny(family));
    const auto checkpoint = world.write_full(home.path() / "checkpoints");
    const auto wanted = trained_logits(world, checkpoint);
    const auto done = export_checkpoint(*world.device, checkpoint, world.base, home.path() / "out",
                                        as(export_form::gguf));
    if (!done) {
      // Llama files have no windows, and Gemma's pattern must be told as a period.
      CHECK(done.error().code == errc::unsupported);
      FAIL(done.error().detail);
    }
    CHECK(done->files == std::vector<std::string>{"tiny-tuned.F32.gguf"});
    CHECK(worst(read_prompt(done->path), wanted) < 2e-5);

    // And from that file as a base: back to a folder, and to a file of halves.
    export_world again(done->path / done->files.front());
    const auto lora = again.write_lora(home.path() / "again");
    const auto folder = good(export_checkpoint(*again.device, lora, again.base,
                                               home.path() / "folder", as(export_form::merged)));
    const auto halves =
        good(export_checkpoint(*again.device, lora, again.base, home.path() / "halves",
                               as(export_form::gguf, kernels::source_format::bf16)));
    const auto whole = read_prompt(folder.path);
    const auto rounded = read_prompt(halves.path);
    CHECK(worst(rounded, whole) < 0.1);
    CHECK(worst(rounded, whole) > 0.0);
    fmt::print("{}: GGUF within {:.1e}, bf16 within {:.1e}\n", family,
               worst(read_prompt(done->path), wanted), worst(rounded, whole));
  }
}

TEST_CASE("halves are rounded to nearest and say so in config.json") {
  test::temporary_folder home;
  export_world world(tiny("llama_tied"));
  const auto checkpoint = world.write_full(home.path() / "checkpoints");
  const auto exact = trained_logits(world, checkpoint);
  for (const auto& [format, name] : {std::pair{kernels::source_format::bf16, "bfloat16"},
                                     std::pair{kernels::source_format::f16, "float16"}}) {
    const auto done = good(export_checkpoint(*world.device, checkpoint, world.base,
                                             home.path() / name, as(export_form::merged, format)));
    std::ifstream text(done.path / "config.json");
    const std::string config{std::istreambuf_iterator<char>(text),
                             std::istreambuf_iterator<char>()};
    CHECK_THAT(config, Catch::Contains(fmt::format("\"dtype\":\"{}\"", name)));
    CHECK(worst(read_prompt(done.path), exact) < 0.05);
  }
}

TEST_CASE("what cannot be exported is refused, and nothing is left behind") {
  test::temporary_folder home;
  export_world world(tiny("llama_tied"));
  const auto full = world.write_full(home.path() / "full");
  const auto out = home.path() / "out";
  const auto refusal = [&](const fs::path& base, const fs::path& folder,
                           const export_options& options) {
    const auto done = export_checkpoint(*world.device, full, base, folder, options);
    REQUIRE_FALSE(done.has_value());
    CHECK_FALSE(fs::exists(out));
    CHECK_FALSE(fs::exists(out.string() + ".part"));
    return done.error().detail;
  };
  CHECK_THAT(refusal(world.base, out, as(export_form::adapter)),
             Catch::Contains("full training") && Catch::Contains("merged"));
  CHECK_THAT(refusal(world.base, out, as(export_form::merged, kernels::source_format::q8_0)),
             Catch::Contains("--gguf"));
  CHECK_THAT(refusal(tiny("qwen2_bias"), out, as(export_form::merged)),
             Catch::Contains("not the one it was trained from"));
  CHECK_THAT(refusal(home.path() / "nowhere", out, as(export_form::merged)),
             Catch::Contains("the base model of ftjob-0123456789abcdef01234567"));
  CHECK_THAT(refusal(world.base, home.path(), as(export_form::merged)),
             Catch::Contains("not an empty folder"));
  home.write("file", "x");
  CHECK_THAT(refusal(world.base, home.path() / "file", as(export_form::merged)),
             Catch::Contains("not an empty folder"));

  fs::create_directories(home.path() / "empty");
  CHECK(export_checkpoint(*world.device, full, world.base, home.path() / "empty",
                          as(export_form::merged))
            .has_value());
}

}  // namespace
}  // namespace tandem::train

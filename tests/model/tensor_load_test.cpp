// Of a model's files a rank reads the rows that it keeps: all others are out of bounds here.
#include "kernels/cpu/cpu_backend.hpp"
#include "runtime/model/load_plan.hpp"

#include <catch2/catch.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

using namespace tandem;
using namespace tandem::model;

namespace {

constexpr std::int64_t row_floats = 1024;  // a row is one page of memory

const std::string config_json = R"({"model_type":"llama","architectures":["LlamaForCausalLM"],
    "hidden_size":1024,"intermediate_size":1024,"num_hidden_layers":1,"num_attention_heads":16,
    "num_key_value_heads":4,"head_dim":64,"vocab_size":96,"max_position_embeddings":64,
    "rms_norm_eps":1e-6,"rope_theta":10000.0,"hidden_act":"silu","tie_word_embeddings":false})";

// A tensor's rows, those outside a range closed to everybody.
class guarded_rows {
 public:
  explicit guarded_rows(std::int64_t rows)
      : bytes_(static_cast<std::size_t>(rows * row_floats) * sizeof(float)),
        data_(static_cast<std::byte*>(
            ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    REQUIRE(data_ != MAP_FAILED);
  }
  guarded_rows(const guarded_rows&) = delete;
  guarded_rows& operator=(const guarded_rows&) = delete;
  ~guarded_rows() { ::munmap(data_, bytes_); }

  void open_only(output_range rows) {
    const auto row_bytes = row_floats * std::int64_t{sizeof(float)};
    REQUIRE(::mprotect(data_, bytes_, PROT_NONE) == 0);
    REQUIRE(::mprotect(data_ + rows.first * row_bytes,
                       static_cast<std::size_t>(rows.count * row_bytes), PROT_READ) == 0);
  }
  std::span<const std::byte> bytes() const { return {data_, bytes_}; }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

output_range heads(output_range range) { return {range.first * 64, range.count * 64}; }

// What a rank may read of a tensor, by the end of its name.
output_range allowed(const std::string& name, std::int64_t rows, const rank_part& own) {
  const std::map<std::string, output_range> split{
      {"q_proj.weight", heads(own.query_heads)}, {"k_proj.weight", heads(own.key_heads)},
      {"v_proj.weight", heads(own.key_heads)},   {"o_proj.weight", own.model},
      {"gate_proj.weight", own.hidden},          {"up_proj.weight", own.hidden},
      {"down_proj.weight", own.model},           {"lm_head.weight", own.vocabulary}};
  for (const auto& [end, range] : split)
    if (name.ends_with(end)) return range;
  return {0, rows};
}

}  // namespace

TEST_CASE("a rank reads its rows of a model's files and no other") {
  if (::sysconf(_SC_PAGESIZE) != row_floats * static_cast<long>(sizeof(float))) {
    WARN("pages are no 4 KiB here, not run");
    return;
  }
  const auto config = config_from_json(config_json);
  REQUIRE(config);
  const auto device = kernels::cpu::make_backend({.cores = {}});
  tensor_set files;
  files.names = hugging_face_names(*config);
  files.ignorable = [](std::string_view) { return false; };
  const auto imagined = plan_load(*config, files, load_format::dummy, *device);
  REQUIRE(imagined);
  std::map<std::string, guarded_rows> rows;
  for (const auto& tensor : imagined->invented) {
    const auto count = tensor->shape.size() == 2 ? tensor->shape[0] : 1;
    REQUIRE(tensor->shape.back() == row_floats);
    auto stored = *tensor;
    stored.bytes = rows.try_emplace(tensor->name, count).first->second.bytes();
    files.tensors.emplace(tensor->name, stored);
  }
  for (const tensor_rank place : {tensor_rank{0, 2}, tensor_rank{1, 2}, tensor_rank{3, 4}}) {
    const auto split = tensor_split::make(*config, place);
    REQUIRE(split);
    std::int64_t open = 0;
    for (auto& [name, guarded] : rows) {
      const auto whole = static_cast<std::int64_t>(guarded.bytes().size()) / (row_floats * 4);
      const auto range = allowed(name, whole, split->own());
      guarded.open_only(range);
      open += range.count;
    }
    memory::ledger book(std::uint64_t{1} << 30);
    auto plan = plan_load(*config, files, load_format::bf16, *device, place);
    REQUIRE(plan);
    const auto loaded = run_load(*std::move(plan), *device, book, "guarded", {});
    REQUIRE(loaded);
    const auto& layer = (*loaded)->layers.front();
    CHECK(open == 96 + 3 + layer.qkv_XD.rows + layer.output_DX.rows + layer.gate_up_FD.rows +
                      layer.down_DF.rows + (*loaded)->head_VD.rows);
  }
}

// What a load will read and pack, worked out and checked before any memory is taken: which rows of
// which file tensor make which packed matrix, in which format.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/formats/mapped_file.hpp"
#include "runtime/model/tensor_split.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tandem::model {

// A tensor of a model's files. Without bytes it is invented: random values for load_format::dummy.
struct stored_tensor {
  std::string name;
  std::vector<std::int64_t> shape;
  kernels::source_format format = kernels::source_format::f32;
  std::span<const std::byte> bytes;
  const formats::mapped_file* map = nullptr;         // where its pages can be given back
  std::shared_ptr<const std::vector<float>> scales;  // of e4m3
  kernels::scale_grid grid;                          // lies in them
};

// What a family calls its tensors. "{}" in `layer` is the layer's index, in the expert names the
// expert's; names without ".weight" have a ".weight" and perhaps a ".bias".
struct tensor_names {
  std::string_view embedding;
  std::string_view final_norm;
  std::string_view head;
  std::string_view layer;
  std::string_view attention_norm;
  std::string_view post_attention_norm;
  std::string_view feed_forward_norm;
  std::string_view post_feed_forward_norm;
  std::string_view query_norm;
  std::string_view key_norm;
  std::string_view query;
  std::string_view key;
  std::string_view value;
  std::string_view fused_qkv;  // empty: three tensors
  std::string_view output;
  std::string_view gate;
  std::string_view up;
  std::string_view fused_gate_up;  // empty: two tensors; otherwise gate's rows stand first
  std::string_view down;
  std::string_view router;
  std::string_view expert_gate;  // without "{}": one tensor holds every expert's rows
  std::string_view expert_up;
  std::string_view expert_down;
  // Llama's GGUF files interleave the two halves of each query and key head.
  bool interleaved_heads = false;
};
tensor_names hugging_face_names(const model_config& config);
tensor_names gguf_names(const model_config& config, std::string_view architecture);

struct tensor_set {
  std::unordered_map<std::string, stored_tensor> tensors;  // by name
  tensor_names names;
  // Tensors that a model of this kind may carry and nobody needs.
  std::function<bool(std::string_view)> ignorable;
};

struct row_part {
  const stored_tensor* tensor = nullptr;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::span<const std::int32_t> order;
};
struct matrix_load {
  kernels::packed_matrix* target = nullptr;
  bool gated = false;  // parts are gate and up, to be packed side by side
  std::vector<row_part> parts;
  std::int64_t whole_rows = 0;  // of all ranks together
};
struct vector_load {
  const float** target = nullptr;
  std::int64_t size = 0;
  float added = 0.0F;     // to what is stored: 1 for Gemma's norms
  float factor = 1.0F;    // on the sum: Granite's final norm takes in the scale of logits
  float invented = 0.0F;  // the value where the tensor is invented
  std::vector<row_part> parts;
};

// What a rank's embedding_VD is: the whole table, or the rows of its part of the vocabulary alone.
enum class table_rows : std::uint8_t { whole, own };

struct load_plan {
  // Config, formats and sizes are set; no memory yet. Targets below lie in it.
  std::shared_ptr<weights> model;
  std::vector<matrix_load> matrices;
  std::vector<vector_load> vectors;
  std::vector<std::int32_t> query_order;
  std::vector<std::int32_t> key_order;
  std::vector<std::unique_ptr<stored_tensor>> invented;
  table_rows table = table_rows::whole;
  std::uint64_t bytes = 0;
};

// Refuses missing, unknown and mis-shaped tensors by name. `files` must outlive the plan. Of
// several ranks one's plan names that rank's rows alone, the same ones of a file's tensors in any
// order and however they are fused.
result<load_plan> plan_load(const model_config& config, const tensor_set& files, load_format format,
                            const kernels::backend& device, tensor_rank place = {},
                            table_rows embedding = table_rows::whole);
// Of these files, in float32: what a rank trains. `source` must outlive the plan.
result<load_plan> plan_masters(const model_source& source, const kernels::backend& device,
                               tensor_rank place);

// A load of which somebody else says when its next part is read. The calling thread must be the
// device's.
class load_run {
 public:
  // Takes the memory of everything, for the weights' vectors and matrices at their places.
  static result<std::unique_ptr<load_run>> reserve(load_plan plan, kernels::backend& device,
                                                   memory::ledger& book, std::string_view what);
  ~load_run();

  // The same number for every rank of a model.
  std::size_t piece_count() const;
  void run(std::size_t piece);
  const std::shared_ptr<weights>& model() const;

 private:
  struct state;
  explicit load_run(std::unique_ptr<state> s);
  std::unique_ptr<state> state_;
};

// All at once.
result<std::shared_ptr<const weights>> run_load(load_plan plan, kernels::backend& device,
                                                memory::ledger& book, std::string_view name,
                                                const std::function<void(double)>& progress);

}  // namespace tandem::model

// A LoRA adapter in a device's memory (Hu et al. 2021, arXiv:2106.09685): for a product y = W x it
// adds scale * B (A x). Immutable once published; the base it belongs to is shared by all.
//
// One pair of matrices a packed product of the base: where the family keeps q, k and v (or gate and
// up) as modules of their own, their A's are stacked and B is block-diagonal, zero elsewhere, so
// that a product of several modules is still one. Padding and off-diagonal entries are zero and
// stay zero.
#pragma once

#include "kernels/backend.hpp"
#include "runtime/memory/arena.hpp"
#include "runtime/model/model_config.hpp"
#include "runtime/model/tensor_split.hpp"
#include "runtime/result.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tandem::model {

// Absent where a_RX.data is null.
struct adapter_product {
  kernels::packed_matrix a_RX;  // f32; R: sum of the modules' ranks
  kernels::packed_matrix b_YR;  // f32; of gate_up by pack_gated (2F rows)
};

struct layer_adapter {
  adapter_product qkv;
  adapter_product output;
  adapter_product gate_up;
  adapter_product down;
};

// Where one module's A and B lie: what peft calls them and how to take them out of the above.
struct adapter_module {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  int layer = 0;
  int product = 0;             // 0 qkv, 1 output, 2 gate_up, 3 down
  std::int64_t first_row = 0;  // of B: output rows of the product (of gate_up: up's after gate's)
  std::int64_t rows = 0;       // outputs of the module
  std::int64_t first_rank = 0;
  std::int64_t rank = 0;
  std::int64_t columns = 0;  // inputs of the module
};

// Sizes and places, from config, rank and targets alone: the same everywhere.
struct adapter_layout {
  int rank = 0;
  float scale = 1.0F;  // alpha / rank
  std::vector<adapter_module> modules;
  tensor_rank place;      // of several: A whole, and this rank's rows of B alone
  std::size_t bytes = 0;  // of the arena, on this backend
  // Refuses targets none of which this family has, with those it has.
  static result<adapter_layout> make(const kernels::backend& device, const model_config& config,
                                     int rank, double alpha,
                                     const std::vector<std::string>& targets);
  // What one of several ranks has of it.
  adapter_layout part_of(const kernels::backend& device, const model_config& config,
                         tensor_rank at) const;
};

struct adapter {
  std::uint64_t version = 1;
  adapter_layout layout;
  std::vector<layer_adapter> layers;
  // Set where the adapter may outlive the device that made it; the arena is booked there.
  std::shared_ptr<memory::ledger> book;
  memory::arena memory;  // the matrices lie here: layer by layer, qkv to down, A before B

  // An adapter of zeros at its place in `book`.
  static result<std::shared_ptr<adapter>> reserve(kernels::backend& device, memory::ledger& book,
                                                  const model_config& config,
                                                  const adapter_layout& layout);
};

// The matrices of such an adapter where they would lie at `memory` (layout.bytes long, on a line of
// 64): an arena of gradients or moments has the same places. Of null: sizes alone.
std::vector<layer_adapter> place_adapter(const kernels::backend& device, const model_config& config,
                                         const adapter_layout& layout, std::byte* memory);

// One rank's part, at its place in `book`, of an adapter whose bytes lie at `whole_bytes` in the
// host's memory. `whole` is its layout.
result<std::shared_ptr<adapter>> adapter_part(kernels::backend& device, memory::ledger& book,
                                              const model_config& config,
                                              const adapter_layout& whole,
                                              std::span<std::byte> whole_bytes, tensor_rank place);

// One module's numbers as peft stores them, row-major: A [rank, columns], B [rows, rank].
struct module_numbers {
  std::vector<float> a;
  std::vector<float> b;
};
module_numbers read_module(const kernels::backend& device, const std::vector<layer_adapter>& layers,
                           const adapter_module& module);
// Packs every module of `layout` into `layers`, asking for each one's numbers in layout order.
void fill_adapter(kernels::backend& device, const std::vector<layer_adapter>& layers,
                  const adapter_layout& layout,
                  const std::function<module_numbers(const adapter_module&)>& numbers);

}  // namespace tandem::model

// Everything that decides what a fine-tuning job computes, complete: no "auto" is left. Two jobs
// with equal settings, data and base weights make the same weights, to the bit, whatever the
// devices. Filled in by job_options (runtime/train/job_options.hpp) from what the user asked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem::train {

enum class training_method : std::uint8_t { lora, full };
enum class schedule_kind : std::uint8_t { constant, linear, cosine, warmup_stable_decay };
// What to do with an example longer than sequence_length.
// What the products of training multiply: numbers rounded to bfloat16, summed in float32, where the
// device gains by it (a GPU), or float32 throughout. Parameters and optimizer are float32 always.
enum class product_precision : std::uint8_t { bf16, f32 };
enum class too_long : std::uint8_t { refuse, truncate, skip };

struct job_settings {
  training_method method = training_method::lora;

  // LoRA (Hu et al. 2021, arXiv:2106.09685): y += (alpha / rank) * B A x.
  int rank = 16;
  double alpha = 32.0;
  // Hugging Face module names ("q_proj", "gate_up_proj"); those a family does not have are ignored
  // as long as one is there.
  std::vector<std::string> targets;

  int epochs = 1;
  std::int64_t batch_size = 4;  // examples of one optimizer step; the last of an epoch has the rest
  int slots = 4;                // logical slots a step's rows are dealt to; a power of two
  int micro_batch = 1;          // rows that one slot computes at a time
  std::int64_t sequence_length = 1024;  // most tokens of a row
  bool packing = true;                  // several examples in one row; else one each
  bool shuffle = true;
  std::uint64_t seed = 0;
  too_long long_examples = too_long::refuse;

  double learning_rate = 1e-4;
  // As asked for, or learning_rate's share of our default; for people, learning_rate decides.
  double learning_rate_multiplier = 1.0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;  // on matrices only
  double clip_norm = 1.0;     // global gradient norm; 0: off
  schedule_kind schedule = schedule_kind::linear;
  std::int64_t warmup_steps = 0;

  product_precision precision = product_precision::bf16;
  bool recompute = false;  // keep only each layer's input, compute its inside again in backward
  std::int64_t publish_every_steps = 0;     // 0: at the end only
  std::int64_t checkpoint_every_steps = 0;  // 0: at each epoch's end
  int checkpoints_kept = 3;
  // Of the serving copy of full fine-tuning: as model.format (f32, bf16, fp8, q8_0, q4_1).
  std::string serve_format = "bf16";

  bool operator==(const job_settings&) const = default;
};

}  // namespace tandem::train

// The names of tensors in Hugging Face checkpoints and in GGUF files.
#include "runtime/model/load_plan.hpp"

namespace tandem::model {

tensor_names hugging_face_names(const model_config& config) {
  tensor_names names{.embedding = "model.embed_tokens.weight",
                     .final_norm = "model.norm.weight",
                     .head = "lm_head.weight",
                     .layer = "model.layers.{}.",
                     .attention_norm = "input_layernorm.weight",
                     .post_attention_norm = {},
                     .feed_forward_norm = "post_attention_layernorm.weight",
                     .post_feed_forward_norm = {},
                     .query_norm = "self_attn.q_norm.weight",
                     .key_norm = "self_attn.k_norm.weight",
                     .query = "self_attn.q_proj",
                     .key = "self_attn.k_proj",
                     .value = "self_attn.v_proj",
                     .fused_qkv = {},
                     .output = "self_attn.o_proj",
                     .gate = "mlp.gate_proj",
                     .up = "mlp.up_proj",
                     .fused_gate_up = {},
                     .down = "mlp.down_proj",
                     .router = "mlp.gate",
                     .expert_gate = "mlp.experts.{}.gate_proj",
                     .expert_up = "mlp.experts.{}.up_proj",
                     .expert_down = "mlp.experts.{}.down_proj",
                     .interleaved_heads = false};
  if (config.post_norms) {
    names.post_attention_norm = "post_attention_layernorm.weight";
    names.feed_forward_norm = "pre_feedforward_layernorm.weight";
    names.post_feed_forward_norm = "post_feedforward_layernorm.weight";
  }
  if (!config.pre_norms) {
    names.attention_norm = {};
    names.feed_forward_norm = {};
  }
  if (config.family == "mixtral") {
    names.router = "block_sparse_moe.gate";
    names.expert_gate = "block_sparse_moe.experts.{}.w1";
    names.expert_up = "block_sparse_moe.experts.{}.w3";
    names.expert_down = "block_sparse_moe.experts.{}.w2";
  }
  if (config.family == "phi3") {
    names.fused_qkv = "self_attn.qkv_proj";
    names.fused_gate_up = "mlp.gate_up_proj";
  }
  return names;
}

tensor_names gguf_names(const model_config& config, std::string_view architecture) {
  tensor_names names{.embedding = "token_embd.weight",
                     .final_norm = "output_norm.weight",
                     .head = "output.weight",
                     .layer = "blk.{}.",
                     .attention_norm = "attn_norm.weight",
                     .post_attention_norm = "post_attention_norm.weight",
                     .feed_forward_norm = "ffn_norm.weight",
                     .post_feed_forward_norm = "post_ffw_norm.weight",
                     .query_norm = "attn_q_norm.weight",
                     .key_norm = "attn_k_norm.weight",
                     .query = "attn_q",
                     .key = "attn_k",
                     .value = "attn_v",
                     .fused_qkv = {},
                     .output = "attn_output",
                     .gate = "ffn_gate",
                     .up = "ffn_up",
                     .fused_gate_up = {},
                     .down = "ffn_down",
                     .router = "ffn_gate_inp",
                     .expert_gate = "ffn_gate_exps",
                     .expert_up = "ffn_up_exps",
                     .expert_down = "ffn_down_exps",
                     .interleaved_heads = architecture == "llama" || architecture == "granite" ||
                                          architecture == "smollm3"};
  if (config.family == "seed_oss") names.feed_forward_norm = "post_attention_norm.weight";
  if (config.family == "phi3") {
    names.fused_qkv = "attn_qkv";
    names.fused_gate_up = "ffn_up";
  }
  return names;
}

}  // namespace tandem::model

// How the runtime's plain structs travel in messages: one `inspect` each, found by
// argument-dependent lookup. Nothing else may live here.
#pragma once

#include "runtime/lease/policy.hpp"
#include "runtime/result.hpp"
#include "runtime/serve/device.hpp"
#include "runtime/serve/request.hpp"
#include "runtime/serve/scheduler.hpp"
#include "runtime/serve/step_plan.hpp"

#include <caf/all.hpp>

#include <vector>

namespace tandem {

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, error& x) {
  return f(caf::meta::type_name("error"), x.code, x.detail, x.param);
}

}  // namespace tandem

namespace tandem::lease {

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, lease& x) {
  return f(caf::meta::type_name("lease"), x.device, x.held_as, x.holder, x.at, x.guest,
           x.serve_since, x.train_since);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, policy_settings& x) {
  return f(caf::meta::type_name("policy_settings"), x.kind, x.min_serve_devices,
           x.max_train_devices, x.cooldown_ms, x.ttft_target_ms, x.itl_target_ms);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, service_view& x) {
  return f(caf::meta::type_name("service_view"), x.requests, x.ttft_ms, x.itl_ms, x.waiting_ms);
}

}  // namespace tandem::lease

namespace tandem::memory {

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, shared_place& x) {
  return f(caf::meta::type_name("shared_place"), x.machine, x.process, x.file, x.inode, x.bytes);
}

// Of keys and values, what another process needs to find them.
struct kv_far {
  shared_place place;
  std::uint64_t block_bytes = 0;
  std::string layout;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, kv_far& x) {
  return f(caf::meta::type_name("kv_far"), x.place, x.block_bytes, x.layout);
}
// None or one, as CAF 0.17 has it; none: no other process finds them.
inline std::vector<kv_far> as_list(const std::shared_ptr<const kv_memory>& kv) {
  if (!kv || !kv->place) return {};
  return {{*kv->place, kv->block_bytes, kv->layout}};
}
inline std::shared_ptr<const kv_memory> from_list(std::vector<kv_far> list) {
  if (list.empty()) return nullptr;
  auto& one = list.front();
  return std::make_shared<const kv_memory>(kv_memory{
      nullptr, {}, static_cast<std::size_t>(one.block_bytes), std::move(one.layout), one.place});
}

}  // namespace tandem::memory

namespace tandem::serve {

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, sampling_parameters& x) {
  return f(caf::meta::type_name("sampling_parameters"), x.temperature, x.top_p, x.top_k, x.min_p,
           x.presence_penalty, x.frequency_penalty, x.repetition_penalty, x.logit_bias, x.seed,
           x.logprobs, x.prompt_logprobs);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, stop_conditions& x) {
  return f(caf::meta::type_name("stop_conditions"), x.max_tokens, x.min_tokens, x.ignore_eos,
           x.eos_ids, x.stop_token_ids, x.stop, x.include_stop);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, generation_request& x) {
  return f(caf::meta::type_name("generation_request"), x.id, x.model, x.variant, x.prompt,
           x.sampling, x.stops, x.choices, x.best_of, x.priority, x.cache_salt, x.use_prefix_cache,
           x.arrived, x.deadline, x.skip_special_tokens, x.want_text);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, token_logprob& x) {
  return f(caf::meta::type_name("token_logprob"), x.id, x.logprob, x.rank, x.top);
}

// std::optional travels as a list of none or one: CAF 0.17 knows only its own optional.
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, generation_delta& x) {
  auto stop_token = x.stop_token ? std::vector<token_id>{*x.stop_token} : std::vector<token_id>{};
  auto failure = x.failure ? std::vector<error>{*x.failure} : std::vector<error>{};
  auto stop_string =
      x.stop_string ? std::vector<std::string>{*x.stop_string} : std::vector<std::string>{};
  auto load = [&]() -> caf::error {
    if (!stop_string.empty()) x.stop_string = std::move(stop_string.front());
    if (!stop_token.empty()) x.stop_token = stop_token.front();
    if (!failure.empty()) x.failure = std::move(failure.front());
    return caf::none;
  };
  return f(caf::meta::type_name("generation_delta"), x.id, x.choice, x.text, x.tokens, x.logprobs,
           x.prompt_logprobs, x.finish, stop_string, stop_token, failure, x.prompt_tokens,
           x.cached_tokens, x.completion_tokens, x.queued_ns, x.weights_version,
           caf::meta::load_callback(load));
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, slot_start& x) {
  return f(caf::meta::type_name("slot_start"), x.slot, x.variant, x.sampling, x.choice, x.prompt,
           x.generated);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, step_chunk& x) {
  return f(caf::meta::type_name("step_chunk"), x.slot, x.first_position, x.tokens, x.new_blocks,
           x.sample, x.prompt_logprobs, x.banned);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, kv_copy& x) {
  auto from = memory::as_list(x.from);
  auto load = [&]() -> caf::error {
    x.from = memory::from_list(std::move(from));
    return caf::none;
  };
  return f(caf::meta::type_name("kv_copy"), from, x.blocks, caf::meta::load_callback(load));
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, step_plan& x) {
  return f(caf::meta::type_name("step_plan"), x.number, x.follows, x.releases, x.starts, x.copies,
           x.chunks);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, sampled_token& x) {
  return f(caf::meta::type_name("sampled_token"), x.slot, x.token);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, prompt_scores& x) {
  return f(caf::meta::type_name("prompt_scores"), x.slot, x.first_position, x.scores);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, step_result& x) {
  return f(caf::meta::type_name("step_result"), x.number, x.sampled, x.prompt, x.device_ns);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, load_order& x) {
  return f(caf::meta::type_name("load_order"), x.path, x.format, x.kv_format, x.context_length,
           x.kv_bytes, x.max_sequences, x.max_batch_tokens);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, loaded_model& x) {
  auto kv = memory::as_list(x.kv);
  auto load = [&]() -> caf::error {
    x.kv = memory::from_list(std::move(kv));
    return caf::none;
  };
  return f(caf::meta::type_name("loaded_model"), x.weights_version, x.precision, x.kv_format,
           x.parameter_count, x.context_length, x.kv_blocks, x.max_logit_rows, x.facts,
           x.steps_ahead, kv, caf::meta::load_callback(load));
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, device_facts& x) {
  return f(caf::meta::type_name("device_facts"), x.name, x.backend, x.threads, x.gpu,
           x.memory_capacity, x.memory_by_owner);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, scheduler_counts& x) {
  return f(caf::meta::type_name("scheduler_counts"), x.queued, x.running, x.blocks_total,
           x.blocks_free, x.blocks_cached, x.preemptions, x.prompt_tokens_computed,
           x.prompt_tokens_cached, x.tokens_generated);
}

}  // namespace tandem::serve

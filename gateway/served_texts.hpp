// A served model as the doors see it: its tokenizer and chat template, read from its files, and
// what the devices that have it in their memory say of it.
#pragma once

#include "actors/messages.hpp"
#include "gateway/engine.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/result.hpp"
#include "runtime/settings.hpp"
#include "runtime/text/chat_template.hpp"
#include "runtime/text/tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace tandem::gateway {

// What a model needs besides its weights: read while the device packs those.
struct model_texts {
  std::shared_ptr<const text::tokenizer> tokenizer;
  std::shared_ptr<const text::chat_template> chat_template;
  std::string no_chat_reason;
};

// The text of model.chat_template; empty: the model's own is meant.
result<std::string> chat_template_of(const model_settings& settings);
// `chat_template` stands in for the model's own where it is not empty.
result<model_texts> texts_of(const model::model_source& source, const std::string& chat_template);

std::size_t ready_lanes(const actors::serve_report& report);
// Of a report with a ready lane.
std::shared_ptr<const served_model> describe(const model::model_source& source, std::string id,
                                             std::int64_t created, model_texts texts,
                                             const actors::serve_report& report);

// Where a server with these settings is called from this machine.
std::string url_of(const server_settings& server, int port);

}  // namespace tandem::gateway

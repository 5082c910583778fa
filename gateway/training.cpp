#include "gateway/training.hpp"

#include "gateway/nodes/link_settings.hpp"
#include "runtime/text/chat_messages.hpp"

#include <caf/all.hpp>

#include <string>
#include <utility>

namespace tandem::gateway {
namespace {

train::reader reader_of(const served_model& model) {
  train::reader how;
  how.tokenizer = model.tokenizer;
  how.chat_template = model.chat_template;
  how.no_chat_reason = model.no_chat_reason;
  how.eos_ids = model.eos_ids;
  if (model.tokenizer) text::add_token_spellings(how.template_context, *model.tokenizer);
  return how;
}

}  // namespace

training::training(caf::actor_system& system, std::shared_ptr<store::store> store)
    : system_(system), store_(std::move(store)) {}

training::~training() {
  if (watch_ != 0) store_->unwatch(watch_);
}

actors::train_desk_actor training::open_desk(const settings& configuration,
                                             const served_model& model,
                                             const model::model_config& config,
                                             actors::coordinator_actor coordinator,
                                             actors::serve_coordinator_actor serve_coordinator) {
  auto context = std::make_shared<actors::train_context>();
  context->store = store_;
  context->base_name = model.id;
  context->model_path = configuration.model.path;
  context->config = config;
  context->reader = reader_of(model);
  context->default_slots = configuration.train.slots;
  context->devices_apart = configuration.model.tensor_parallel > 1;
  context->directory = jobs_folder(configuration.train);
  desk_ = system_.spawn(actors::train_desk,
                        std::shared_ptr<const actors::train_context>(std::move(context)),
                        std::move(coordinator), std::move(serve_coordinator));
  watch_ = store_->watch(
      [desk = desk_](const std::string& job) { caf::anon_send(desk, actors::job_changed{job}); });
  return desk_;
}

bool training::park(std::chrono::milliseconds patience) {
  if (!desk_) return true;
  caf::scoped_actor self(system_);
  bool parked = false;
  self->request(desk_, patience, actors::park_jobs{})
      .receive([&](const actors::jobs_parked&) { parked = true; }, [](const caf::error&) {});
  return parked;
}

}  // namespace tandem::gateway

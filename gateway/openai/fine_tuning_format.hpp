// Jobs, events and checkpoints as OpenAI's objects, appended as JSON; "tandem" beside them holds
// what those have no place for.
#pragma once

#include "runtime/store/store.hpp"

#include <string>

namespace tandem::gateway::openai {

void append_job(std::string& out, const store::job_record& job);
void append_job_event(std::string& out, const store::event_record& event);
void append_job_checkpoint(std::string& out, const store::checkpoint_record& checkpoint);

}  // namespace tandem::gateway::openai

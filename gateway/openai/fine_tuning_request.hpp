// The body of POST /v1/fine_tuning/jobs, checked field by field, as the job the store keeps. What
// can only be known with the data (lengths, "auto") is settled by the job itself.
#pragma once

#include "gateway/openai/endpoints.hpp"
#include "gateway/openai/request_body.hpp"
#include "runtime/store/store.hpp"

#include <string>
#include <vector>

namespace tandem::gateway::openai {

struct job_request {
  store::job_record job;
  bool seed_given = false;
  std::vector<std::string> warnings;  // one a misspelt field
};

result<job_request> read_job_request(const request_body& body);
// The same job, asked for again with the same idempotency key.
bool same_job(const job_request& asked, const store::job_record& kept);

// For /openapi.json.
std::string job_request_schema();

}  // namespace tandem::gateway::openai
